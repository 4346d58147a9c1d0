//! Callers with a certificate that is not enough: another cluster's, an expired one, a worker's, a removed node's, and
//! managers that speak as somebody else.

mod common;

use agent::{
    drivers::pki::{Authority, node_of, random_bytes},
    model::{
        codec,
        ids::{ClusterId, NodeId},
        io::Keyring,
        limits::{ADMIN_CERTIFICATE_TTL_MS, RAFT_MESSAGE_BYTES_MAX, SNAPSHOT_BYTES_MAX},
    },
};
use common::{
    Daemon,
    intruder::{Intruder, assert_refused, now_ms, stolen_authority},
};
use futures_lite::{future::or, stream};
use proto::v1;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// A removed node is refused everywhere by then.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

fn leader() -> Daemon {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    first
}

fn ready(first: &Daemon, count: usize) -> v1::Status {
    first.until("all are ready", |status| status.nodes.iter().filter(|node| node.state == "ready").count() == count)
}

fn id_of(status: &v1::Status, name: &str) -> String {
    status.nodes.iter().find(|node| node.name == name).expect("it joined").id.clone()
}

#[test]
fn certificates_that_are_not_of_this_cluster_or_not_of_now_are_refused() {
    let first = leader();
    let before = first.picture();
    let ours = stolen_authority(&first);
    let status = first.status().expect("it leads");
    let other = Authority::create(ClusterId(u64::from_be_bytes(random_bytes())), now_ms());
    // The cluster's own name, signed by somebody else.
    let forged = Authority::create(ours.cluster(), now_ms());
    let year_ago = now_ms() - ADMIN_CERTIFICATE_TTL_MS - 60_000;
    let me: NodeId = id_of(&status, "n1").parse().expect("an id");
    let unknown = node_of(b"nobody");
    let (at_tls, at_the_gate) = (Code::Unavailable, Code::Unauthenticated);
    let table = [
        ("another cluster's admin", Intruder::admin(&other, now_ms()), at_tls, "refuses our certificate"),
        ("another cluster's node", Intruder::node(&other, me, now_ms()), at_tls, "refuses our certificate"),
        ("a forged admin", Intruder::admin(&forged, now_ms()), at_tls, "refuses our certificate"),
        ("an admin of last year", Intruder::admin(&ours, year_ago), at_tls, "refuses our certificate: expired"),
        ("an admin of next year", Intruder::admin(&ours, now_ms() + ADMIN_CERTIFICATE_TTL_MS), at_tls, "refuses our certificate"),
        ("a node nobody knows", Intruder::node(&ours, unknown, now_ms()), at_the_gate, "is not a node of this cluster"),
        ("a known node with another key", Intruder::node(&ours, me, now_ms()), at_the_gate, "is known by another key"),
        ("no certificate", Intruder::stranger(), at_the_gate, "only who shows a certificate of this cluster"),
    ];
    for (who, intruder, code, words) in table {
        println!("{who}");
        assert_refused(intruder.asks(&first.address), code, &[words]);
    }
    Intruder::admin(&ours, now_ms()).asks(&first.address).expect("a good certificate is let in");
    assert_eq!(first.picture(), before);
}

#[test]
fn a_worker_may_only_speak_for_itself() {
    let first = leader();
    let worker = Daemon::join("worker", &first.token("worker"), &[&first.address]);
    let status = ready(&first, 2);
    first.set("a", "1").expect("a leader writes");
    let before = (first.picture(), first.member().term);
    let thief = Intruder::posing_as(&worker);
    let keyring = codec::encode(&Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 9, next: None });
    let write = || v1::WriteRequest {
        client: 1,
        sequence: 1,
        op: Some(v1::write_request::Op::KvSet(v1::KvSet { key: "a".into(), value: "2".into() })),
    };
    let read = || v1::ReadRequest { stale: true, query: Some(v1::read_request::Query::KvGet(v1::KvGet { key: "a".into() })) };
    let forward =
        |principal: &str| v1::ForwardRequest { principal: principal.into(), request: Some(v1::forward_request::Request::Write(write())) };
    let report = |node: &str, address: &str| v1::ReportRequest {
        node: node.into(),
        address: address.into(),
        cpus: 1,
        memory: 1,
        ..Default::default()
    };
    let (me, other) = (id_of(&status, "worker"), id_of(&status, "n1"));
    for target in [&first, &worker] {
        common::block_on(async |spawner| {
            let channel = thief.channel(&spawner, &target.address);
            let (mut disco, mut peer) = (channel.disco(), channel.peer());
            // A worker knows the managers only: there even its own certificate is a stranger's.
            let (code, words) = match target.address == first.address {
                true => (Code::PermissionDenied, "is a worker; only"),
                false => (Code::Unauthenticated, "is not a node of this cluster"),
            };
            let refused = |outcome: Result<(), Status>| assert_refused(outcome, code, &[&me, words]);
            refused(disco.write(write()).await.map(drop));
            refused(disco.read(read()).await.map(drop));
            refused(disco.watch(read()).await.map(drop));
            refused(disco.issue_admin(v1::IssueAdminRequest::default()).await.map(drop));
            refused(peer.enlist(v1::EnlistRequest { member: 77, keyring: keyring.clone() }).await.map(drop));
            refused(peer.discharge(v1::DischargeRequest { member: 1 }).await.map(drop));
            for principal in ["admin", "joiner", "node:0000000000000001"] {
                refused(peer.forward(forward(principal)).await.map(drop));
            }
            let votes = stream::iter([v1::RaftBatch { messages: vec![vote(1, 2, 1000)], to_member: 1 }]);
            refused(peer.raft(votes).await.map(drop));
            refused(peer.snapshot(stream::iter([v1::SnapshotChunk { to_member: 1, ..Default::default() }])).await.map(drop));
        });
    }
    common::block_on(async |spawner| {
        let mut peer = thief.channel(&spawner, &first.address).peer();
        assert_refused(peer.report(report(&other, "127.0.0.1:1")).await, Code::PermissionDenied, &["may not report for node", &other]);
        for address in ["", "\u{1b}[2J:1", "nowhere", &"x".repeat(100_000)] {
            assert_refused(peer.report(report(&me, address)).await, Code::InvalidArgument, &["address"]);
        }
        let stolen = v1::RenewRequest { csr: agent::drivers::pki::new_csr(&agent::drivers::pki::new_key()).expect("a good key") };
        assert_refused(peer.renew(stolen).await, Code::InvalidArgument, &["another key than the caller's"]);
    });
    assert_eq!((first.picture(), first.member().term), before);
    assert_eq!(first.value("a").expect("a leader reads").as_deref(), Some("1"));
}

#[test]
fn a_manager_cannot_speak_as_another_nor_send_more_than_is_allowed() {
    let first = leader();
    let second = Daemon::join("m2", &first.token("manager"), &[&first.address]);
    let third = Daemon::join("m3", &first.token("manager"), &[&first.address]);
    let status = first.until("three voters", |status| status.voters.len() == 3);
    let before = (first.picture(), first.member().term);
    let member = |name: &str| status.nodes.iter().find(|node| node.name == name).expect("it joined").member;
    let thief = Intruder::posing_as(&third);
    // Messages that would depose the leader or rewrite its log, in the name of each of the others.
    let forged = |from: u64| [vote(1, from, 1000), heartbeat(1, from, 1000), append(1, from, 1000)];
    let batch = |messages: Vec<Vec<u8>>| v1::RaftBatch { messages, to_member: 1 };
    common::block_on(async |spawner| {
        let channel = thief.channel(&spawner, &first.address);
        for from in [member("n1"), member("m2"), 0, 99, u64::MAX] {
            channel.peer().raft(stream::iter([batch(forged(from).to_vec())])).await.expect("taken, and thrown away");
        }
        let junk: Vec<Vec<u8>> = (0..100).map(|n| random_bytes::<200>()[..2 * n].to_vec()).collect();
        channel.peer().raft(stream::iter([batch(junk)])).await.expect("taken, and thrown away");
        let long = batch(vec![vec![0; RAFT_MESSAGE_BYTES_MAX + 1]]);
        assert_refused(channel.peer().raft(stream::iter([long])).await, Code::ResourceExhausted, &["a Raft message may have"]);
        assert_refused(channel.peer().raft(stream::iter([batch(vec![vec![0; 200 * 1024]; 3])])).await, Code::OutOfRange, &["message"]);
        let head = |total: u64| v1::SnapshotChunk { message: vote(1, member("m3"), 1), total, to_member: 1, data: vec![] };
        let piece = |bytes: usize| v1::SnapshotChunk { data: vec![7; bytes], ..Default::default() };
        let snapshot = async |chunks: Vec<v1::SnapshotChunk>| channel.peer().snapshot(stream::iter(chunks)).await;
        assert_refused(snapshot(vec![head(SNAPSHOT_BYTES_MAX as u64 + 1)]).await, Code::ResourceExhausted, &["a snapshot may have"]);
        assert_refused(snapshot(vec![head(u64::MAX)]).await, Code::ResourceExhausted, &["a snapshot may have"]);
        assert_refused(snapshot(vec![head(10), piece(11)]).await, Code::InvalidArgument, &["longer than the 10 bytes announced"]);
        assert_refused(snapshot(vec![head(10), piece(9)]).await, Code::InvalidArgument, &["9 of 10 bytes came"]);
        assert_refused(snapshot(vec![]).await, Code::InvalidArgument, &["first chunk"]);
        snapshot(vec![head(10), piece(10)]).await.expect("taken, and thrown away");
        let enlist = v1::EnlistRequest { member: 5, keyring: random_bytes::<64>().to_vec() };
        assert_refused(channel.peer().enlist(enlist).await, Code::InvalidArgument, &["keyring"]);
    });
    first.until_it_says("is not member");
    first.set("still", "writes").expect("it leads on");
    assert_eq!(first.member().term, before.1, "nobody was deposed");
    assert_eq!(first.status().expect("it leads").voters, status.voters);
    assert!(!first.log().contains("panicked"));
    drop(second);
}

#[test]
fn a_removed_node_is_refused_everywhere_within_5_s_also_on_open_streams() {
    let first = leader();
    let worker = Daemon::join("worker", &first.token("worker"), &[&first.address]);
    let mut removed = Daemon::join("removed", &first.token("manager"), &[&first.address]);
    let status = first.until("a voter, a learner and a worker", |status| {
        status.nodes.iter().all(|node| node.state == "ready") && status.nodes.len() == 3 && status.learners.len() == 1
    });
    let id = id_of(&status, "removed");
    let thief = Intruder::posing_as(&removed);
    common::block_on(async |spawner| {
        let channels = [&first, &worker].map(|node| thief.channel(&spawner, &node.address));
        for channel in &channels {
            manager_is_known_at(channel).await;
        }
        let watch = v1::ReadRequest { stale: true, query: Some(v1::read_request::Query::Status(v1::StatusQuery {})) };
        let mut watching = channels[0].disco().watch(watch).await.expect("a manager may watch").into_inner();
        watching.message().await.expect("a manager may watch").expect("the first view");
        // A stream that has said something once and is silent since.
        let open = channels.each_ref().map(|channel| {
            let (say, said) = smol::channel::bounded(1);
            say.try_send(v1::RaftBatch { messages: vec![], to_member: 1 }).expect("there is room");
            let mut peer = channel.peer();
            (say, spawner.0.spawn(async move { peer.raft(said).await }))
        });
        let op = v1::write_request::Op::NodeRemove(v1::NodeRemove { node: "removed".into() });
        first.write(op).expect("a leader removes");
        let begun = Instant::now();
        first.until("it is out of the list", |status| status.nodes.len() == 2);
        let out = Instant::now();
        for (say, stream) in open {
            // It may be caught on its way out, no manager any more and still a node.
            let ended = or(stream, late()).await.expect_err("its sender was removed");
            assert!(ended.code() != Code::DeadlineExceeded && ended.message().contains(&id), "{ended}");
            drop(say);
        }
        let end = async {
            loop {
                watching.message().await?;
            }
        };
        let ended: Result<(), Status> = or(end, late()).await;
        let ended = ended.expect_err("it never ends well");
        assert!(ended.code() != Code::DeadlineExceeded && ended.message().contains(&id), "{ended}");
        for channel in channels {
            let refused = async {
                while channel
                    .peer()
                    .raft(stream::empty())
                    .await
                    .err()
                    .is_none_or(|status| !status.message().contains("was removed from the cluster"))
                {
                    async_io::Timer::after(Duration::from_millis(50)).await;
                }
                Ok(())
            };
            or(refused, late()).await.expect("refused by name");
        }
        assert!(out.elapsed() < REVOKED_WITHIN, "refused {:?} after it was out, {:?} after the order", out.elapsed(), begun.elapsed());
    });
    assert_eq!(removed.ended().code(), Some(2), "it stops by itself");
    assert!(removed.log().contains("this node was removed from the cluster"), "{}", removed.log());
    removed.start();
    assert_eq!(removed.ended().code(), Some(2), "and again when it is started again");
    let said = removed.log();
    assert!(said.matches("error: this node was removed from the cluster").count() == 2, "{said}");
    assert_eq!(first.status().expect("it leads").nodes.len(), 2);
}

/// A seat without a keyring is refused as such only to those who may give out seats.
async fn manager_is_known_at(channel: &proto::Channel) {
    let known = async {
        while channel
            .peer()
            .enlist(v1::EnlistRequest { member: 9, keyring: vec![] })
            .await
            .err()
            .is_none_or(|status| !status.message().contains("keyring"))
        {
            async_io::Timer::after(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    or(known, late()).await.expect("the manager is known");
}

async fn late<T>() -> Result<T, Status> {
    async_io::Timer::after(REVOKED_WITHIN + common::BOUND).await;
    Err(Status::deadline_exceeded("the stream goes on"))
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// raft-rs' `eraftpb.Message`: msg_type 1, to 2, from 3, term 4, log_term 5, index 6, commit 8.
fn message(kind: u64, to: u64, from: u64, term: u64) -> Vec<u8> {
    // Its version first, as everything that travels has.
    let mut bytes = vec![1];
    for (field, value) in [(1, kind), (2, to), (3, from), (4, term), (5, term), (6, 1 << 40), (8, 1 << 40)] {
        varint(field << 3, &mut bytes);
        varint(value, &mut bytes);
    }
    bytes
}

fn vote(to: u64, from: u64, term: u64) -> Vec<u8> {
    message(5, to, from, term)
}

fn append(to: u64, from: u64, term: u64) -> Vec<u8> {
    message(3, to, from, term)
}

fn heartbeat(to: u64, from: u64, term: u64) -> Vec<u8> {
    message(8, to, from, term)
}
