//! Join tokens that must not let anybody in, or not as what they would like to be.

mod common;

use common::{Daemon, intruder::now_ms, until};
use proto::v1;
use std::{fs, time::Duration};

fn leader() -> Daemon {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    first
}

/// A token's digest and secret.
fn apart(token: &str) -> (&str, &str) {
    token.rsplit_once('-').expect("DISCO1-<digest>-<secret>")
}

#[test]
fn wrong_expired_and_used_tokens_are_refused_by_name_and_change_nothing() {
    let first = leader();
    let (wrong, expired, used) = (first.token("manager"), first.token_for("manager", Duration::from_millis(1)), first.token("worker"));
    let expired_at = now_ms() + 1;
    let guest = Daemon::join("guest", &used, &[&first.address]);
    first.until("the guest is ready", |status| status.nodes.iter().filter(|node| node.state == "ready").count() == 2);
    until("the token to be over", common::BOUND, || (now_ms() > expired_at + 50).then_some(()));
    let before = first.picture();

    let guess = format!("{}-{}", apart(&wrong).0, "0".repeat(apart(&wrong).1.len()));
    let (mistyped, short) = (format!("{wrong} x"), wrong[..40].to_owned());
    let table = [
        ("guess", guess.as_str(), "the token is not of this cluster, or was revoked"),
        ("late", expired.as_str(), "expired"),
        ("second", used.as_str(), "was used already"),
        ("mistyped", mistyped.as_str(), "`token` in "),
        ("short", short.as_str(), "`token` in "),
    ];
    let joiners: Vec<Daemon> = table.iter().map(|(name, token, _)| Daemon::join(name, token, &[&first.address])).collect();
    for (mut joiner, (name, token, words)) in joiners.into_iter().zip(table) {
        assert_eq!(joiner.ended().code(), Some(2), "{name}");
        let said = joiner.log();
        assert!(said.contains("error: ") && said.contains(words), "{name}: {said}");
        assert!(!said.contains(apart(token).1), "{name} prints its secret: {said}");
        assert!(!joiner.data().join("identity.toml").exists(), "{name} has an identity");
    }
    assert_eq!(first.picture(), before);
    drop(guest);
}

#[test]
fn a_token_lets_in_as_many_as_it_says_each_key_once() {
    use v1::{write_reply::Result as Reply, write_request::Op};
    let first = leader();
    let op = Op::TokenCreate(v1::TokenCreate { role: "worker".into(), ttl_ms: 600_000, uses: 2 });
    let Some(Reply::TokenCreated(created)) = first.write(op).expect("it leads").result else { panic!("asked for a token") };
    let mut nodes: Vec<Daemon> = ["w1", "w2"].iter().map(|name| Daemon::join(name, &created.token, &[&first.address])).collect();
    let ready = |status: &v1::Status| status.nodes.iter().filter(|node| node.state == "ready").count() == 3;
    first.until("both are in", ready);
    // One that starts again is no third.
    nodes[0].kill();
    nodes[0].start();
    first.until("it is back", ready);
    let mut third = Daemon::join("w3", &created.token, &[&first.address]);
    assert_eq!(third.ended().code(), Some(2));
    assert!(third.log().contains("was used already"), "{}", third.log());
    assert_eq!(first.status().expect("it leads").nodes.len(), 3);
}

#[test]
fn guesses_take_half_a_second_each_and_are_ten_a_second_in_all() {
    use agent::drivers::pki;
    use common::intruder::Intruder;
    use std::time::Instant;
    use tonic::Code;
    const GUESSES: usize = 48;
    let first = leader();
    let before = first.picture();
    let began = Instant::now();
    let (mut heard, mut unheard) = (0, 0);
    let guess = |number: usize| {
        let request = v1::JoinRequest {
            token_secret: format!("t{number:032x}"),
            csr: pki::new_csr(&pki::new_key()).expect("a good key"),
            name: "n".into(),
            address: "127.0.0.1:1".into(),
            commands_known: 1000,
            ..Default::default()
        };
        let asked = Instant::now();
        let answer = common::block_on(async |spawner| Intruder::stranger().channel(&spawner, &first.address).join().join(request).await);
        (answer.expect_err("a guess").code(), asked.elapsed())
    };
    std::thread::scope(|scope| {
        let guess = &guess;
        let all: Vec<_> = (0..GUESSES).map(|number| scope.spawn(move || guess(number))).collect();
        for answer in all {
            match answer.join().expect("it was refused") {
                (Code::ResourceExhausted, _) => unheard += 1,
                (code, took) => {
                    heard += 1;
                    assert!(took >= Duration::from_millis(500), "{code:?} after {took:?}");
                }
            }
        }
    });
    // As many as may come at once, and ten for each second that began.
    let most = 10 + (began.elapsed().as_secs() as usize + 1) * 10;
    assert!(heard >= 1 && heard <= most && unheard >= 1, "{heard} of {GUESSES} were looked at in {:?}", began.elapsed());
    assert_eq!(first.picture(), before);
}

#[test]
fn a_token_of_another_cluster_is_refused_before_the_secret_is_sent() {
    let (ours, theirs) = (leader(), leader());
    let (our_token, their_token) = (ours.token("manager"), theirs.token("manager"));
    let (ours_before, theirs_before) = (ours.picture(), theirs.picture());
    // With a secret that `theirs` would take: if it were sent the token would be used.
    let crossed = format!("{}-{}", apart(&our_token).0, apart(&their_token).1);
    for token in [&our_token, &crossed] {
        let mut joiner = Daemon::join("lost", token, &[&theirs.address]);
        assert_eq!(joiner.ended().code(), Some(2));
        let said = joiner.log();
        assert!(said.contains("no seed is of the token's cluster") && said.contains(&theirs.address), "{said}");
        assert!(!joiner.data().join("identity.toml").exists());
    }
    assert_eq!((ours.picture(), theirs.picture()), (ours_before, theirs_before));
}

#[test]
fn a_workers_token_makes_no_voter_and_there_is_no_token_for_other_roles() {
    use v1::write_request::Op;
    let first = leader();
    for (role, uses, ttl_ms, words) in
        [("boss", 1, 60_000, "boss"), ("", 1, 60_000, "role"), ("manager", 0, 60_000, "use"), ("manager", 1, u64::MAX, "ten years")]
    {
        let refused = first.write(Op::TokenCreate(v1::TokenCreate { role: role.into(), ttl_ms, uses })).expect_err("no such token");
        assert!(refused.message().contains(words), "{refused}");
    }
    let worker = Daemon::join("worker", &first.token("worker"), &[&first.address]);
    first.until("the worker is ready", |status| status.nodes.iter().any(|node| node.name == "worker" && node.state == "ready"));
    // Older than both managers and ready before them: it would be the first choice.
    let others: Vec<Daemon> = ["m2", "m3"].iter().map(|name| Daemon::join(name, &first.token("manager"), &[&first.address])).collect();
    let status = first.until("three voters", |status| status.voters.len() == 3);
    let found = status.nodes.iter().find(|node| node.name == "worker").expect("it joined");
    assert_eq!((found.role.as_str(), found.member), ("worker", 0));
    assert!(!worker.data().join("keyring").exists(), "a worker holds no keys of the cluster");
    drop(others);
}

#[test]
fn junk_instead_of_a_join_request_is_refused_and_changes_nothing() {
    use agent::drivers::pki;
    use common::intruder::{Intruder, assert_refused};
    use tonic::{Code, client::GrpcService};
    let first = leader();
    let secret = apart(&first.token("manager")).1.to_owned();
    let before = first.picture();
    let good = v1::JoinRequest {
        token_secret: secret,
        csr: pki::new_csr(&pki::new_key()).expect("a good key"),
        name: "n".into(),
        address: "127.0.0.1:1".into(),
        commands_known: 1000,
        ..Default::default()
    };
    let with = |change: &dyn Fn(&mut v1::JoinRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let junk: Vec<u8> = (0..64).flat_map(|_| pki::random_bytes::<64>()).collect();
    let table: Vec<(v1::JoinRequest, &str)> = vec![
        (with(&|r| r.csr = junk.clone()), "certificate request"),
        (with(&|r| r.csr = Vec::new()), "certificate request"),
        (with(&|r| r.csr = vec![0x30; 5000]), "certificate request has 5000 bytes"),
        (with(&|r| *r.csr.last_mut().expect("not empty") ^= 1), "certificate request"),
        (with(&|r| r.name = "a\u{1b}[2Jb".into()), "name"),
        (with(&|r| r.name = "x".repeat(65)), "`name` has 65"),
        (with(&|r| r.name = String::new()), "name"),
        (with(&|r| r.address = "nowhere".into()), "address"),
        (with(&|r| r.address = "\u{1b}[31mred:1".into()), "address"),
        (with(&|r| r.address = format!("{}:1", "a".repeat(200))), "`address` has 202"),
        (with(&|r| r.labels = (0..17).map(|n| (n.to_string(), String::new())).collect()), "`labels` has 17"),
        (with(&|r| r.labels = [("zone".into(), "\u{7}\u{1b}]0;owned\u{7}".into())].into()), "label"),
        (with(&|r| r.instance = "i\n-1".into()), "instance"),
        (with(&|r| r.address = "host:99999".into()), "address"),
        (with(&|r| r.token_secret = "y".repeat(300)), "`token_secret` has 300"),
    ];
    common::block_on(async |spawner| {
        let stranger = Intruder::stranger();
        for (request, words) in table {
            let channel = stranger.channel(&spawner, &first.address);
            let outcome = loop {
                let outcome = channel.join().join(request.clone()).await;
                // More than ten a second are sent away unread.
                if outcome.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted) {
                    async_io::Timer::after(Duration::from_millis(100)).await;
                    continue;
                }
                break outcome;
            };
            assert_refused(outcome, Code::InvalidArgument, &[words]);
        }
        // Bytes that are no message at all, whole and cut off, to each service.
        for (path, body) in
            [("/disco.v1.Join/Join", &junk[..]), ("/disco.v1.Peer/Report", &junk[..700]), ("/disco.v1.Disco/Write", &[0, 0, 0, 9, 9])]
        {
            let mut channel = stranger.channel(&spawner, &first.address);
            let body = tonic::body::Body::new(String::from_utf8_lossy(body).into_owned());
            let request = http::Request::post(path).header("content-type", "application/grpc").body(body).expect("a request");
            let answer = channel.call(request).await.expect("an answer");
            let status = tonic::Status::from_header_map(answer.headers()).expect("a refusal is in the headers");
            assert_ne!(status.code(), Code::Ok, "{path}");
        }
    });
    assert_eq!(first.picture(), before);
    assert!(!fs::read_to_string(first.folder().join("discod.log")).expect("there").contains("panic"));
}
