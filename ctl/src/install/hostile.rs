//! Servers that are not what they should be, and plain bad ones: each is refused in time and with a reason.

use super::error::SshError;
use super::session::{Keys, Session, Target};
use super::trust::Trust;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// Connects to a server that does this with the first connection.
fn refused_by(server: impl FnOnce(TcpStream) + Send + 'static) -> SshError {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || server(listener.accept().expect("somebody connects").0));
    let target = Target {
        host: "127.0.0.1".into(),
        port,
        user: "admin".into(),
        trust: Trust::Given(vec![KEY.into()]),
        keys: Keys { file: Some("/nonexistent".into()), ..Keys::default() },
    };
    let started = Instant::now();
    let refused = smol::block_on(Session::connect(target)).err().expect("this is no machine of ours");
    assert!(started.elapsed() < REFUSED_WITHIN, "it took {:?}: {refused}", started.elapsed());
    refused
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// An unencrypted packet (RFC 4253, section 6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let mut bytes = ((payload.len() + padding + 1) as u32).to_be_bytes().to_vec();
    bytes.push(padding as u8);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

/// KEXINIT as a server sends it (RFC 4253, section 7.1).
fn kex_init() -> Vec<u8> {
    let lists = ["curve25519-sha256", "ssh-ed25519", "aes256-ctr", "aes256-ctr", "hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""];
    let mut payload = vec![20; 17];
    lists.iter().for_each(|list| payload.extend(text(list.as_bytes())));
    payload.extend([0; 5]);
    packet(&payload)
}

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n";

/// Reads until the client goes.
fn listen(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_server_that_says_nothing_is_refused() {
    assert!(matches!(refused_by(listen), SshError::Silent { .. }));
}

#[test]
fn a_server_that_hangs_up_at_once_is_refused() {
    let refused = refused_by(drop);
    assert!(matches!(refused, SshError::Protocol { .. }) && refused.may_pass(), "{refused:?}");
}

#[test]
fn a_server_that_hangs_up_within_the_handshake_is_refused() {
    let refused = refused_by(|mut stream| {
        let _ = stream.write_all(&[BANNER, &kex_init()].concat());
        let _ = stream.read(&mut [0; 64]);
    });
    assert!(matches!(refused, SshError::Protocol { .. }), "{refused:?}");
}

#[test]
fn a_server_that_greets_without_end_is_refused() {
    let lines = refused_by(|mut stream| while stream.write_all(&b"welcome\r\n".repeat(1000)).is_ok() {});
    assert!(matches!(lines, SshError::Protocol { .. }), "{lines:?}");
    let one_line = refused_by(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    assert!(matches!(one_line, SshError::Protocol { .. }), "{one_line:?}");
    let slowly = refused_by(|mut stream| {
        while stream.write_all(b"x").is_ok() {
            // It is the server's slowness that is tested, not ours.
            std::thread::park_timeout(Duration::from_millis(100));
        }
    });
    assert!(matches!(slowly, SshError::Silent { .. } | SshError::Protocol { .. }), "{slowly:?}");
}

#[test]
fn a_server_that_proves_no_key_and_goes_on_is_refused() {
    // NEWKEYS instead of the answer that holds the host key and its signature.
    let refused = refused_by(|mut stream| {
        let _ = stream.write_all(&[BANNER, &kex_init()].concat());
        let _ = stream.write_all(&packet(&[21]));
        listen(stream);
    });
    assert!(matches!(refused, SshError::Protocol { .. } | SshError::Silent { .. }), "{refused:?}");
}

#[test]
fn a_server_whose_signature_is_nonsense_is_refused() {
    let refused = refused_by(|mut stream| {
        let key = [text(b"ssh-ed25519"), text(&[9; 32])].concat();
        let signature = [text(b"ssh-ed25519"), text(&[7; 64])].concat();
        let reply = [vec![31], text(&key), text(&[5; 32]), text(&signature)].concat();
        let _ = stream.write_all(&[BANNER, &kex_init()[..]].concat());
        let _ = stream.write_all(&packet(&reply));
        listen(stream);
    });
    assert!(!matches!(refused, SshError::PrivateKey { .. } | SshError::Refused { .. } | SshError::NoKey { .. }), "{refused:?}");
}

#[test]
fn noise_of_any_kind_is_refused() {
    // A small generator with a seed: the same noise each time.
    let mut state = 7u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..40 {
        let mut bytes = [BANNER, &kex_init()[..], &packet(&[31; 200])].concat();
        for _ in 0..=round % 8 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(next() % bytes.len() + 1);
        refused_by(move |mut stream| {
            let _ = stream.write_all(&bytes);
        });
    }
}
