//! What anybody can send to a node's port without being anybody: garbage, plain HTTP, connections that say nothing.

mod common;

use agent::drivers::pki::random_bytes;
use common::{
    Daemon,
    intruder::{Intruder, assert_refused, now_ms, stolen_authority},
    until,
};
use proto::v1;
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tonic::Code;

/// An administrator gets through within this, whatever else goes on.
const ADMIN_WITHIN: Duration = Duration::from_secs(10);
/// What the daemon may grow by under a crowd. Its build for tests is larger than the one that ships; growth is not.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

fn leader() -> Daemon {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    first
}

/// Resident memory without file pages.
fn anonymous_kib(node: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn connect(node: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(&node.address).expect("it listens");
    stream.set_read_timeout(Some(common::BOUND)).expect("a number of seconds");
    stream
}

/// Reads to the end; how it ended does not matter, that it ended does.
fn closed_with(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it is kept open"),
        _ => answer,
    }
}

fn admin_gets_through(node: &Daemon, admin: &Intruder) {
    let begun = Instant::now();
    admin.asks(&node.address).expect("an administrator gets through");
    assert!(begun.elapsed() < ADMIN_WITHIN, "it took {:?}", begun.elapsed());
}

#[test]
fn garbage_and_plain_http_are_closed_and_harm_nobody() {
    let node = leader();
    let admin = Intruder::admin(&stolen_authority(&node), now_ms());
    let before = node.picture();
    let http2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    // Records of TLS that announce more than they bring, or the impossible (RFC 8446, 5.1: at most 2^14 + 256 bytes).
    let records: [&[u8]; 4] =
        [&[22, 3, 1, 0xff, 0xff, 1], &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], &[22, 0, 0, 0, 0], &[22, 3, 3, 0, 1, 99]];
    let random = random_bytes::<512>();
    let mut table: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("HTTP/2 in the clear", http2),
        ("zeros", vec![0; 4096]),
        ("random bytes", [&[23], random.as_slice()].concat()),
        ("random bytes after TLS' first", [&[22], random.as_slice()].concat()),
        ("a flood", vec![0x41; 4 << 20]),
    ];
    table.extend(records.map(|record| ("a bad record", record.to_vec())));
    for (what, bytes) in table {
        let mut stream = connect(&node);
        // It may be closed while we still write.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = closed_with(&mut stream);
        assert!(!answer.starts_with(b"HTTP") && answer.len() < 1024, "{what} is answered {answer:?}");
    }
    admin_gets_through(&node, &admin);
    assert_eq!(node.picture(), before);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn two_hundred_idle_connections_keep_no_administrator_out_and_cost_little() {
    let node = leader();
    let authority = stolen_authority(&node);
    let admin = Intruder::admin(&authority, now_ms());
    admin_gets_through(&node, &admin);
    let (before, picture) = (anonymous_kib(&node), node.picture());

    let silent: Vec<TcpStream> = (0..200).map(|_| connect(&node)).collect();
    admin_gets_through(&node, &admin);

    // The same with TLS' first byte: as many handshakes that never go on.
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect(&node)).collect();
    for stream in &mut slow {
        // It may have lost its seat to a later one already.
        let _ = stream.write_all(&[22]);
    }
    admin_gets_through(&node, &admin);

    // The same with TLS: strangers that finish the handshake and say no more.
    let tls = Intruder::stranger().tls();
    let strangers: Vec<_> = (0..200).filter_map(|_| shaken(connect(&node), tls.clone())).collect();
    assert!(strangers.len() > 100, "only {} got to the end of the handshake", strangers.len());
    admin_gets_through(&node, &admin);
    let grown = anonymous_kib(&node).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "grew by {grown} KiB");
    assert_eq!(node.picture(), picture);
    drop((silent, slow, strangers));
}

#[test]
fn a_handshake_that_never_ends_is_closed() {
    let node = leader();
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..10).map(|_| connect(&node)).collect();
    // A byte now and then: it is the whole handshake that has its time.
    let mut open = slow.len();
    until("all of them to be closed", common::BOUND, || {
        slow.retain_mut(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a millisecond");
            let gone = stream.write_all(&[22]).is_err() || matches!(stream.read(&mut [0]), Ok(0)) || is_reset(stream);
            !gone
        });
        open = slow.len();
        (open == 0).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "after {:?}", begun.elapsed());
}

fn is_reset(stream: &TcpStream) -> bool {
    stream.take_error().is_ok_and(|error| error.is_some())
}

#[test]
fn a_removed_node_cannot_take_the_places_of_those_who_belong() {
    let node = leader();
    let authority = stolen_authority(&node);
    let admin = Intruder::admin(&authority, now_ms());
    let nobody = Intruder::node(&authority, agent::drivers::pki::node_of(b"nobody"), now_ms());
    common::block_on(async |spawner| {
        let mut kept = Vec::new();
        for _ in 0..100 {
            let channel = nobody.channel(&spawner, &node.address);
            // Named by the authority, and it has asked something: a seat it would keep if that were enough.
            let refused = channel.disco().read(v1::ReadRequest::default()).await;
            assert_refused(refused, Code::Unauthenticated, &["is not a node of this cluster"]);
            kept.push(channel);
        }
        let query = v1::read_request::Query::Status(v1::StatusQuery {});
        let request = v1::ReadRequest { stale: false, query: Some(query) };
        admin.channel(&spawner, &node.address).disco().read(request).await.expect("an administrator gets through");
    });
}

#[test]
fn messages_over_their_bounds_are_refused_by_name_and_change_nothing() {
    use v1::write_request::Op;
    let node = leader();
    let admin = Intruder::admin(&stolen_authority(&node), now_ms());
    let before = node.picture();
    let set = |key: &str, bytes: usize| Op::KvSet(v1::KvSet { key: key.into(), value: vec![b'v'; bytes] });
    let table = [
        ("a value of 64 KiB and one byte", set("k", 64 * 1024 + 1), Code::ResourceExhausted, "65536"),
        ("a key of 257 bytes", set(&"k".repeat(257), 1), Code::InvalidArgument, "256"),
        ("an empty key", set("", 1), Code::InvalidArgument, "key"),
        ("a message of 1 MiB", set("k", 1 << 20), Code::OutOfRange, "524288"),
        ("65 nodes", Op::Scale(v1::ScaleRequest { nodes: 65 }), Code::InvalidArgument, "64"),
        ("no nodes", Op::Scale(v1::ScaleRequest { nodes: 0 }), Code::InvalidArgument, "disco destroy"),
        ("a node nobody knows", Op::NodeRemove(v1::NodeRemove { node: "nobody".into() }), Code::NotFound, "node"),
        (
            "an instance nobody knows",
            Op::InstanceSet(v1::InstanceSet { instance: "i-99".into(), desired: "stopped".into() }),
            Code::NotFound,
            "i-99",
        ),
    ];
    common::block_on(async |spawner| {
        let channel = admin.channel(&spawner, &node.address);
        for (sequence, (what, op, code, words)) in (1..).zip(table) {
            println!("{what}");
            let request = v1::WriteRequest { client: 9, sequence, op: Some(op) };
            let outcome = channel.disco().write(request).await;
            assert_refused(outcome, code, &[words]);
        }
        let nothing = v1::WriteRequest { client: 9, sequence: 100, op: None };
        assert_refused(channel.disco().write(nothing).await, Code::InvalidArgument, &["op"]);
        assert_refused(channel.disco().read(v1::ReadRequest::default()).await, Code::InvalidArgument, &["query"]);
    });
    assert_eq!(node.picture(), before);
}

/// The client's half of a handshake to its end; `None` if the server closed it on the way.
fn shaken(mut socket: TcpStream, tls: std::sync::Arc<rustls::ClientConfig>) -> Option<(TcpStream, rustls::ClientConnection)> {
    let name = "node.disco".try_into().expect("a DNS name");
    let mut session = rustls::ClientConnection::new(tls, name).expect("good settings");
    while session.is_handshaking() {
        session.complete_io(&mut socket).ok()?;
    }
    Some((socket, session))
}
