//! Durable writes flat out: so many clients, each of which writes again as soon as it is answered.
//!
//! Of Disco, and of etcd beside it (`scripts/compare`). etcd is asked through its own HTTP door, with a connection that
//! stays open for each client; Disco over mutual TLS and gRPC, as its command does.

use crate::load::{self, Identity, LoadError, Report, Tally};
use proto::{
    Channel, ChannelLimits, Spawner,
    v1::{KvSet, WriteRequest, disco_client::DiscoClient, write_request::Op},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Clients at once.
pub const CLIENTS: u32 = 32;
const KEYS: u64 = 64;
const VALUE: [u8; 64] = [b'x'; 64];
/// The same in base64, as etcd's HTTP door wants it.
const VALUE_BASE64: &str = "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA==";
const PATIENCE: Duration = Duration::from_secs(10);

/// Disco's node at `address`, for as long as `lasting`.
///
/// # Errors
/// The identity is no identity. Refused writes are in the report.
pub fn disco(address: &str, identity: &Identity, lasting: Duration) -> Result<Report, LoadError> {
    let tls = load::tls(identity)?;
    let executor = Arc::new(smol::Executor::new());
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let channel = Channel::tcp(Spawner(executor.clone()), address.to_owned(), tls.clone(), ChannelLimits::default());
            executor.spawn(async move {
                let mut client = DiscoClient::new(channel);
                let mut tally = Tally::default();
                let (who, mut sequence) = (load::new_client(), 0);
                while began.elapsed() < lasting {
                    sequence += 1;
                    let op = Op::KvSet(KvSet { key: format!("puts/{}", key(number, sequence)), value: VALUE.to_vec() });
                    let asked = Instant::now();
                    let request = WriteRequest { client: who, sequence, op: Some(op) };
                    let answer = client.write(request).await;
                    tally.note(asked.elapsed(), answer.map(drop).map_err(|status| status.message().to_owned()));
                }
                tally
            })
        })
        .collect();
    let tally = smol::block_on(executor.run(async {
        let mut all = Tally::default();
        for client in clients {
            all.add(client.await);
        }
        all
    }));
    Ok(tally.report(began.elapsed()))
}

/// etcd's member at `address` (`host:port`), for as long as `lasting`.
pub fn etcd(address: &str, lasting: Duration) -> Report {
    let began = Instant::now();
    let mut all = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || etcd_client(address, number, began, lasting))).collect();
        for client in clients {
            all.add(client.join().expect("a client does not panic"));
        }
    });
    all.report(began.elapsed())
}

fn etcd_client(address: &str, number: u32, began: Instant, lasting: Duration) -> Tally {
    let mut tally = Tally::default();
    let mut stream = match connect(address) {
        Ok(stream) => stream,
        Err(error) => {
            tally.note(Duration::ZERO, Err(format!("cannot connect to {address}: {error}")));
            return tally;
        }
    };
    let mut sequence = 0;
    while began.elapsed() < lasting {
        sequence += 1;
        let asked = Instant::now();
        // base64 of `puts/NN` plus two bytes that fill it up: any key of fixed length does.
        let body = format!(r#"{{"key":"cHV0cy{:02}","value":"{VALUE_BASE64}"}}"#, key(number, sequence));
        let answer = put(&mut stream, address, &body).map_err(|error| error.to_string());
        let broken = answer.is_err();
        tally.note(asked.elapsed(), answer);
        if broken {
            break;
        }
    }
    tally
}

fn key(client: u32, sequence: u64) -> u64 {
    (u64::from(client) + sequence) % KEYS
}

fn connect(address: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// One request on a connection that stays open (RFC 9112): its answer names its length.
fn put(stream: &mut BufReader<TcpStream>, host: &str, body: &str) -> io::Result<()> {
    let request = format!("POST /v3/kv/put HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.get_mut().write_all(request.as_bytes())?;
    let mut status = String::new();
    stream.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
    }
    io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
    if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(io::Error::other(status.trim().to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn writes_are_counted_and_a_refusal_is_no_write() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = listener.local_addr().expect("bound").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            let mut request = [0; 1024];
            for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"] {
                assert!(stream.read(&mut request).expect("a request") > 0);
                stream.write_all(answer.as_bytes()).expect("it is awaited");
            }
        });
        let tally = etcd_client(&address, 0, Instant::now(), PATIENCE);
        server.join().expect("the server saw two requests");
        let report = tally.report(Duration::from_secs(1));
        assert_eq!((report.answered, report.refused), (1, 1));
        assert!(report.error.expect("it was told").contains("503"));
    }
}
