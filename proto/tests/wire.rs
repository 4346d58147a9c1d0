//! The wire as callers and attackers meet it: real sockets, real TLS, a small service behind.

mod stage;

use std::{
    future::Future,
    io::{Read, Write},
    net::TcpStream,
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_lite::{StreamExt, future::or, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use proto::{
    Channel,
    v1::{ForwardRequest, KvGet, RaftBatch, ReadRequest, read_request::Query},
};
use stage::{Stage, limits};
use tonic::{Code, Status, body::Body};
use tower_service::Service;

fn question(key: &str) -> ReadRequest {
    ReadRequest { stale: false, query: Some(Query::KvGet(KvGet { key: key.into() })) }
}

#[test]
fn a_call_is_answered_and_says_who_called() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let reply = stage.channel(address).disco().read(question("hello")).await.expect("answered").into_inner();
        assert_eq!(stage::text(&reply), "hello, with certificate");
        let refused = stage.stranger(address).disco().read(question("hello")).await.expect_err("it shows no certificate");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    });
}

type Asked = Pin<Box<dyn Future<Output = Option<String>>>>;

/// A request whose message announces more than ever comes. Answers with the gRPC status of its reply.
fn half_a_request(channel: &mut Channel, path: &str) -> Asked {
    let begin = Bytes::from(vec![0, 0, 0, 4, 0, 10]);
    let frames = stream::once(Ok::<_, Status>(Frame::data(begin))).chain(stream::pending());
    let request = http::Request::post(path).header("content-type", "application/grpc").body(Body::new(StreamBody::new(frames)));
    let reply = channel.call(request.expect("a good path"));
    Box::pin(async { Some(reply.await.expect("the connection holds").headers().get("grpc-status")?.to_str().ok()?.to_owned()) })
}

/// None: it is waited for the rest.
async fn soon(asked: &mut Asked) -> Option<String> {
    or(asked, async {
        smol::Timer::after(Duration::from_millis(500)).await;
        None
    })
    .await
}

fn number(code: Code) -> Option<String> {
    Some((code as i32).to_string())
}

#[test]
fn a_stranger_is_sent_away_before_its_message_is_read_and_may_ask_little_at_once() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let mut stranger = stage.stranger(address);
        for path in ["/disco.v1.Disco/Recover", "/disco.v1.Disco/Watch", "/disco.v1.Peer/Raft", "/disco.v1.Peer/Report"] {
            assert_eq!(half_a_request(&mut stranger, path).await, number(Code::Unauthenticated), "{path}");
        }
        assert_eq!(soon(&mut half_a_request(&mut stage.channel(address), "/disco.v1.Disco/Recover")).await, None);

        // Who wants in is heard out, but neither at any length nor with any number of requests at once.
        let join = proto::v1::JoinRequest { name: "x".repeat(20 * 1024), ..Default::default() };
        let refused = stage.stranger(address).join().join(join).await.expect_err("no joiner has so much to say");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let mut open = Vec::new();
        for _ in 0..4 {
            let mut asked = half_a_request(&mut stranger, "/disco.v1.Join/Join");
            assert_eq!(soon(&mut asked).await, None);
            open.push(asked);
        }
        assert_eq!(half_a_request(&mut stranger, "/disco.v1.Join/Join").await, number(Code::ResourceExhausted));
        drop(open);
    });
}

#[test]
fn streams_run_both_ways() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let channel = stage.channel(address);
        let mut replies = channel.disco().watch(question("tick")).await.expect("stream").into_inner();
        for index in 0..5 {
            assert_eq!(replies.message().await.expect("alive").expect("five of them").index, index);
        }
        assert!(replies.message().await.expect("ends well").is_none());
        let batches = futures_lite::stream::iter(0..100).map(|n| RaftBatch { messages: vec![vec![0; 1000]], to_member: n });
        channel.peer().raft(batches).await.expect("all hundred taken");
    });
}

#[test]
fn a_stream_outlives_the_deadline_of_a_call() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let channel = stage.channel_with(address, |limits| limits.request_timeout = Duration::from_millis(100));
        let error = channel.disco().read(question("sleep")).await.expect_err("too slow");
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.message().contains(&address.to_string()), "{}", error.message());
        let mut replies = channel.disco().watch(question("slow")).await.expect("stream").into_inner();
        for _ in 0..3 {
            assert!(replies.message().await.expect("alive").is_some());
        }
    });
}

#[test]
fn an_unknown_service_is_unimplemented() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        for mut caller in [stage.channel(address), stage.stranger(address)] {
            assert_eq!(half_a_request(&mut caller, "/disco.v2.Disco/Read").await, number(Code::Unimplemented));
        }
    });
}

#[test]
fn an_oversize_message_is_refused_and_the_next_one_served() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let channel = stage.channel_with(address, |limits| limits.message_bytes_max = 8 << 20);
        let huge = "x".repeat(600 * 1024);
        let error = channel.disco().read(question(&huge)).await.expect_err("larger than 512 KiB");
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
        channel.disco().read(question("hello")).await.expect("unharmed");
        let careful = stage.channel(address);
        let error = careful.peer().forward(ForwardRequest { principal: huge, request: None }).await.expect_err("not even sent");
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
    });
}

#[test]
fn what_is_not_tls_is_closed_at_once() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0xff; 4096],
            &[22, 9, 9, 9, 9, 9, 9, 9],
        ] {
            let bytes = bytes.to_vec();
            let took = smol::unblock(move || {
                let started = Instant::now();
                let mut socket = TcpStream::connect(address).expect("listening");
                socket.set_read_timeout(Some(Duration::from_secs(10))).expect("valid");
                // The server may close before all is written: that is what is asked for.
                let _ = socket.write_all(&bytes);
                let _ = socket.shutdown(std::net::Shutdown::Write);
                let mut answer = Vec::new();
                let _ = socket.read_to_end(&mut answer);
                assert!(answer.len() < 64, "at most an alert");
                started.elapsed()
            })
            .await;
            assert!(took < Duration::from_secs(2), "closed after {took:?}");
        }
        stage.channel(address).disco().read(question("hello")).await.expect("unharmed");
    });
}

#[test]
fn a_handshake_that_stops_half_way_times_out() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(proto::ServerLimits { handshake_timeout: Duration::from_millis(300), ..limits() });
        let took = smol::unblock(move || {
            let started = Instant::now();
            let mut socket = TcpStream::connect(address).expect("listening");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("valid");
            // A record header that announces 512 bytes of ClientHello, and none of them.
            socket.write_all(&[22, 3, 1, 2, 0]).expect("accepted");
            let read = socket.read(&mut [0; 16]);
            assert!(matches!(read, Ok(0)) || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
            started.elapsed()
        })
        .await;
        assert!(took < Duration::from_secs(5), "closed after {took:?}");
    });
}

#[test]
fn two_hundred_idle_connections_do_not_lock_anybody_out() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let old = stage.channel(address);
        old.disco().read(question("hello")).await.expect("answered");
        let mut watching = old.disco().watch(question("slow")).await.expect("stream").into_inner();
        // Some say nothing, some begin a handshake, some finish one and ask nothing.
        let crowd = smol::unblock(move || {
            let open = |n: usize| {
                let mut socket = TcpStream::connect(address).expect("listening");
                if n.is_multiple_of(2) {
                    let _ = socket.write_all(&[22, 3, 1, 2, 0]);
                }
                socket
            };
            (0..200).map(open).collect::<Vec<_>>()
        })
        .await;
        let strangers = stage.idle_tls(address, 20).await;
        let started = Instant::now();
        stage.channel(address).disco().read(question("hello")).await.expect("a newcomer is served");
        assert!(started.elapsed() < Duration::from_secs(4), "after {:?}", started.elapsed());
        assert!(watching.message().await.expect("an old stream goes on").is_some());
        old.disco().read(question("hello")).await.expect("as does the old connection");
        drop((crowd, strangers));
    });
}

#[test]
fn a_connection_that_asks_nothing_is_closed() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(proto::ServerLimits { first_request_timeout: Duration::from_millis(200), ..limits() });
        let mut idle = stage.idle_tls(address, 1).await;
        let mut rest = Vec::new();
        // How it ends does not matter here (the server says goodbye by HTTP/2, which nobody answers).
        let end = futures_lite::AsyncReadExt::read_to_end(&mut idle[0], &mut rest);
        let closed = futures_lite::future::or(async { end.await.map_or(true, |_| true) }, async {
            smol::Timer::after(Duration::from_secs(10)).await;
            false
        });
        assert!(closed.await, "still open after 10 s");
    });
}

#[test]
fn a_dead_server_is_unavailable_by_name_and_found_again() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let channel = stage.channel_with(address, |limits| {
            limits.ping_interval = Duration::from_millis(100);
            limits.ping_timeout = Duration::from_millis(200);
        });
        channel.disco().read(question("hello")).await.expect("answered");
        stage.close().await;
        let error = channel.disco().read(question("hello")).await.expect_err("nobody there");
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains(&address.to_string()), "{}", error.message());
        let error = channel.disco().read(question("hello")).await.expect_err("nobody there");
        assert_eq!(error.message(), format!("cannot reach {address}: connection refused (nothing listens there)"));
        stage.listen_at(address, limits());
        channel.disco().read(question("hello")).await.expect("connects again");
    });
}

#[test]
fn a_silent_peer_is_noticed_while_a_stream_is_open() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let relay = stage::Relay::to(address);
        let channel = stage.channel_with(relay.address, |limits| {
            limits.ping_interval = Duration::from_millis(100);
            limits.ping_timeout = Duration::from_millis(200);
        });
        let mut replies = channel.disco().watch(question("hang")).await.expect("stream").into_inner();
        relay.freeze();
        let error = replies.message().await.expect_err("the peer is silent");
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains(&relay.address.to_string()), "{}", error.message());
    });
}

#[test]
fn certificates_of_others_are_refused_in_words() {
    stage::run(async |stage: Stage| {
        let address = stage.listen(limits());
        let error = stage.foreigner(address).disco().read(question("hello")).await.expect_err("another authority's certificate");
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.message(), format!("lost the connection to {address}: it refuses our certificate"));
        let error = stage.distrustful(address).disco().read(question("hello")).await.expect_err("the server's is another authority's");
        assert!(error.message().contains("its certificate is refused"), "{}", error.message());
    });
}

#[test]
fn a_socket_file_tells_the_callers_user() {
    stage::run(async |stage: Stage| {
        let path = std::env::temp_dir().join(format!("disco-wire-{}.sock", std::process::id()));
        stage.listen_unix(&path);
        let channel = proto::Channel::unix(stage.spawner.clone(), path.clone(), proto::ChannelLimits::default());
        let reply = channel.disco().read(question("hello")).await.expect("answered").into_inner();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("exists").permissions());
        std::fs::remove_file(&path).expect("exists");
        assert!(stage::text(&reply).starts_with("hello, uid "), "{}", stage::text(&reply));
        assert_eq!(mode & 0o777, 0o600);
    });
}
