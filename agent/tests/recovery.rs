//! A lost majority: what is refused and how, and going on without it.

mod common;

use agent::drivers::pki;
use common::{BOUND, Daemon, until};
use proto::{Channel, ChannelLimits, v1, v1::write_request::Op};
use tonic::{Code, Status};

fn recover(node: &Daemon, lost: &[String]) -> Result<v1::RecoverReply, Status> {
    let path = node.data().join("control.sock");
    common::block_on(async |spawner| {
        let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
        Ok(disco.recover(v1::RecoverRequest { lost: lost.to_vec() }).await?.into_inner())
    })
}

fn stale_status(node: &Daemon) -> v1::Status {
    use v1::{read_reply::Result as Reply, read_request::Query};
    match node.read(true, Query::Status(v1::StatusQuery {})).expect("it answers for itself").result {
        Some(Reply::Status(status)) => status,
        other => panic!("asked for the status, got {other:?}"),
    }
}

fn own_value(node: &Daemon, key: &str) -> Option<Vec<u8>> {
    use v1::{read_reply::Result as Reply, read_request::Query};
    match node.read(true, Query::KvGet(v1::KvGet { key: key.into() })).expect("it answers for itself").result {
        Some(Reply::KvValue(found)) => found.value,
        other => panic!("asked for a key, got {other:?}"),
    }
}

#[test]
fn of_two_nodes_the_one_that_only_learned_goes_on_without_the_one_that_voted() {
    let mut voter = Daemon::originate();
    voter.until("it leads", |status| status.leader.is_some());
    let learner = Daemon::join("n2", &voter.token("manager"), &[&voter.address]);
    let status = voter.until("a voter and a learner", |status| status.voters.len() == 1 && status.learners.len() == 1);
    voter.set("k", "v").expect("it leads");
    // In its own copy: any other answer would be the voter's, whose majority needs no learner.
    until("the learner has it", BOUND, || (own_value(&learner, "k").as_deref() == Some(b"v")).then_some(()));
    let lost = id_of(&status, "n1");
    voter.kill();

    // It never asks for a vote, and yet it does not wait for its leader for ever.
    let refused = until("a write is refused by name", BOUND, || {
        learner.set("k", "w").err().filter(|status| status.message().contains("no majority of the 1 managers: waiting for n1 (127."))
    });
    assert_eq!(refused.code(), Code::Unavailable);
    let view = until("it sees whom it misses", BOUND, || recover(&learner, &[]).ok().filter(|view| view.missing.len() == 1));
    assert_eq!(view.missing[0].id, lost);
    recover(&learner, &[lost]).expect("the only voter is lost");
    learner.until("it leads alone", |status| status.leader.is_some() && status.voters.len() == 1 && status.nodes.len() == 1);
    assert_eq!(learner.value("k").expect("it leads").as_deref(), Some("v"));
}

fn id_of(status: &v1::Status, name: &str) -> String {
    status.nodes.iter().find(|n| n.name == name).expect("it is in the cluster").id.clone()
}

#[test]
fn a_survivor_goes_on_without_a_lost_majority_and_who_comes_back_is_refused() {
    let mut nodes = vec![Daemon::originate()];
    nodes[0].until("it leads", |status| status.leader.is_some());
    nodes[0].write(Op::Configure(v1::ConfigureRequest { managers: Some(5), ..Default::default() })).expect("it leads");
    for name in ["n2", "n3", "n4", "n5"] {
        let node = Daemon::join(name, &nodes[0].token("manager"), &[&nodes[0].address]);
        nodes.push(node);
    }
    let worker = Daemon::join("w", &nodes[0].token("worker"), &[&nodes[0].address]);
    let whole = |status: &v1::Status| status.voters.len() == 5 && status.nodes.iter().filter(|n| n.state == "ready").count() == 6;
    let status = nodes[0].until("five voters and a worker", whole);
    let spare = nodes[0].token("manager");
    nodes[0].set("k", "v").expect("it leads");
    let refused = recover(&nodes[0], &[]).expect_err("there is a leader");
    assert!(refused.message().contains("nothing to recover from"), "{refused}");

    let mut lost = nodes.split_off(2);
    lost.iter_mut().for_each(Daemon::kill);
    let ids: Vec<String> = ["n3", "n4", "n5"].iter().map(|name| id_of(&status, name)).collect();

    // Refused, naming who is missing.
    let named = |text: &str| ["n3", "n4", "n5"].iter().all(|name| text.contains(&format!("{name} (127."))) && !text.contains("n2 (");
    until("a write is refused by name", BOUND, || nodes[0].set("unknown", "w").err().filter(|status| named(status.message())));
    let told = nodes[0].set("unknown", "w").expect_err("no majority");
    assert_eq!(told.code(), Code::Unavailable);
    assert!(told.message().contains("no majority of the 5 managers: waiting for"), "{told}");
    let problems = stale_status(&nodes[0]).problems;
    assert!(problems.iter().any(|problem| named(problem)), "{problems:?}");

    let view = until("it sees whom it misses", BOUND, || recover(&nodes[0], &[]).ok().filter(|view| view.missing.len() == 3));
    assert_eq!((view.name.as_str(), view.index), ("n1", 0));
    for (wrong, words) in [
        (&ids[..2], "3 of 5 managers are left, which is a majority"),
        (&[id_of(&status, "n2")][..], "is not one of the managers that this node misses"),
        (&["ff".repeat(8)][..], "is not one of the managers that this node misses"),
    ] {
        let refused = recover(&nodes[0], wrong).expect_err("it is not so");
        assert!(refused.message().contains(words), "{refused}");
    }
    let refused = recover(&worker, &[]).expect_err("a worker has no state");
    assert!(refused.message().contains("ask a manager"), "{refused}");

    let done = recover(&nodes[0], &ids).expect("the majority is lost");
    assert!(done.index > view.last_index, "{done:?}");
    let back = |status: &v1::Status| {
        status.leader.is_some() && status.nodes.len() == 3 && status.nodes.iter().all(|n| n.state == "ready") && status.learners.len() == 1
    };
    let status = nodes[0].until("it leads, n2 learns again and the worker is there", back);
    assert_eq!(nodes[0].value("k").expect("it leads").as_deref(), Some("v"));
    assert!(status.events.iter().any(|e| e.name == "cluster.recovered" && e.text.contains("lost: n3, n4, n5")), "{:?}", status.events);

    lost[0].start();
    assert_eq!(lost[0].ended().code(), Some(2), "{}", lost[0].log());
    assert!(lost[0].log().contains("this node was removed from the cluster"), "{}", lost[0].log());
    let join = |name: &str, token: &str| Daemon::join(name, token, &[&nodes[0].address]);
    let _fresh = [join("n6", &spare), join("n7", &nodes[0].token("manager"))];
    nodes[0].until("new nodes become managers", |status| status.voters.len() == 3);
    nodes[1].set("k", "after").expect("a follower forwards");

    // It is the same after a restart.
    nodes[0].kill();
    nodes[0].start();
    nodes[0].until("a leader", |status| status.leader.is_some());
    assert_eq!(nodes[0].value("k").expect("it is answered").as_deref(), Some("after"));
    assert_eq!(pki::KeyFiles::new(&nodes[0].data()).keyring().expect("it is whole").map(|k| k.epoch), Some(1));
}
