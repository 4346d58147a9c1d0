//! Who gets through which door of a real daemon, and what the others are told.

mod common;

use common::{Daemon, block_on};
use proto::v1;
use tonic::{Code, Status};

type Shown = (Vec<u8>, Vec<u8>);

/// Asks over the port, showing a certificate or none.
fn read(node: &Daemon, shown: Option<&Shown>) -> Result<v1::ReadReply, Status> {
    let query = Some(v1::read_request::Query::Status(v1::StatusQuery {}));
    block_on(async |spawner| {
        let mut disco = node.channel(spawner, shown).disco();
        Ok(disco.read(v1::ReadRequest { stale: false, query }).await?.into_inner())
    })
}

/// Passes a write on, as managers do.
fn forward(node: &Daemon, shown: &Shown) -> Result<v1::ForwardReply, Status> {
    let op = Some(v1::write_request::Op::Scale(v1::ScaleRequest { nodes: 9 }));
    let request = Some(v1::forward_request::Request::Write(v1::WriteRequest { client: 1, sequence: 1, op }));
    block_on(async |spawner| {
        let mut peer = node.channel(spawner, Some(shown)).peer();
        Ok(peer.forward(v1::ForwardRequest { principal: "admin".into(), request }).await?.into_inner())
    })
}

fn code(status: &Status) -> &str {
    status.metadata().get("disco-code").map_or("", |code| code.to_str().expect("codes are ASCII"))
}

#[test]
fn administrators_come_in_and_strangers_workers_and_removed_nodes_do_not() {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    let admin = node.admin();
    read(&node, Some(&admin)).expect("an administrator reads over the port");

    let refused = read(&node, None).expect_err("no certificate");
    assert_eq!((refused.code(), code(&refused)), (Code::Unauthenticated, "unauthenticated"), "{refused}");

    let elsewhere = Daemon::originate();
    elsewhere.until("it leads", |status| status.leader.is_some());
    let refused = read(&node, Some(&elsewhere.admin())).expect_err("an administrator of another cluster");
    assert_eq!(refused.code(), Code::Unavailable, "TLS refuses it: {refused}");

    let worker = Daemon::join("w1", &node.token("worker"), &[&node.address]);
    let joined = |status: &v1::Status| status.nodes.iter().any(|node| node.name == "w1" && node.state == "ready");
    node.until("the worker is ready", joined);
    let shown = worker.node_certificate();
    let refused = read(&node, Some(&shown)).expect_err("a worker");
    assert_eq!((refused.code(), code(&refused)), (Code::PermissionDenied, "denied"));
    assert!(refused.message().contains("only administrators and managers may"), "{refused}");
    let refused = forward(&node, &shown).expect_err("a worker passes nothing on");
    assert_eq!(code(&refused), "denied", "{refused}");
    assert_eq!(node.status().expect("it leads").desired_nodes, 1, "nothing was changed");

    // Its owner is no administrator of the cluster either: the worker says who leads and passes nothing on.
    let refused = worker.set("from", "worker").expect_err("a worker speaks for nobody");
    assert_eq!((refused.code(), code(&refused)), (Code::Unavailable, "not_a_manager"), "{refused}");
    assert!(refused.message().contains(&node.address), "{refused}");

    let op = v1::write_request::Op::NodeRemove(v1::NodeRemove { node: "w1".into() });
    node.write(op).expect("an administrator removes a worker");
    let refused = forward(&node, &shown).expect_err("it was removed");
    assert_eq!((refused.code(), code(&refused)), (Code::FailedPrecondition, "removed"), "{refused}");
    let mut worker = worker;
    assert_eq!(worker.ended().code(), Some(2), "a removed node stops");
    assert!(worker.log().contains("removed from the cluster"), "{}", worker.log());
}

#[test]
fn a_token_that_is_no_good_ends_the_joiner_with_the_reason() {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    let good = node.token("manager");
    let other = Daemon::originate();
    other.until("it leads", |status| status.leader.is_some());

    let used = node.token("worker");
    let first = Daemon::join("first", &used, &[&node.address]);
    node.until("it is in", |status| status.nodes.iter().any(|node| node.name == "first" && node.state == "ready"));
    let revoked = node.token("worker");
    let id = {
        let query = v1::read_request::Query::Tokens(v1::TokenList {});
        let Some(v1::read_reply::Result::Tokens(list)) = node.read(false, query).expect("it leads").result else {
            panic!("asked for tokens")
        };
        list.tokens.into_iter().max_by_key(|token| token.created_ms).expect("there are some").id
    };
    node.write(v1::write_request::Op::TokenRevoke(v1::TokenRevoke { id })).expect("it is there");

    let wrong_secret = format!("{}x", good);
    for (name, token, seed, words) in [
        ("used", &used, &node.address, "was used already"),
        ("revoked", &revoked, &node.address, "revoked"),
        ("mistyped", &wrong_secret, &node.address, "not of this cluster"),
        ("elsewhere", &good, &other.address, "another CA"),
    ] {
        let mut joiner = Daemon::join(name, token, &[seed]);
        assert_eq!(joiner.ended().code(), Some(2), "{name}");
        let log = joiner.log();
        assert!(log.contains("error: cannot join the cluster") && log.contains(words) && log.contains("hint: "), "{name}: {log}");
        assert!(!log.contains(token.as_str()), "a token is not printed");
    }
    let names = |status: v1::Status| status.nodes.into_iter().map(|node| node.name).collect::<Vec<_>>();
    assert_eq!(names(node.status().expect("it leads")).len(), 2, "nobody else came in");
    assert_eq!(names(other.status().expect("it leads")).len(), 1);
    drop(first);
}

#[test]
fn a_data_dir_with_an_identity_but_without_its_store_is_an_error() {
    let mut node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    node.stop();
    std::fs::remove_file(node.data().join("store.redb")).expect("it is there");
    node.start();
    assert_eq!(node.ended().code(), Some(2));
    assert!(node.log().contains("is missing, but this node has an identity"), "{}", node.log());
}
