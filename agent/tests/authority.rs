//! Real daemons whose certificate authority is replaced while they work.

mod common;

use agent::{
    drivers::pki::{KeyFiles, ca_digest},
    model::authority::Certificate,
};
use common::{BOUND, Daemon, until};
use proto::v1::{self, write_request::Op};
use tonic::Code;

fn trusted(node: &Daemon) -> Vec<Certificate> {
    KeyFiles::new(&node.data()).held().expect("it has them").1.trusted
}

fn certificates(node: &Daemon) -> usize {
    KeyFiles::new(&node.data()).held().expect("it has them").0.len()
}

fn ready(count: usize) -> impl Fn(&v1::Status) -> bool {
    move |status| status.nodes.iter().filter(|n| n.state == "ready").count() == count && status.leader.is_some()
}

fn advance(from: &str) -> Op {
    Op::CaAdvance(v1::CaAdvance { from: from.into(), force: false })
}

/// Three managers and a worker.
fn cluster() -> Vec<Daemon> {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let join = |name: &str, role: &str| Daemon::join(name, &first.token(role), &[&first.address]);
    let others = [join("n2", "manager"), join("n3", "manager"), join("n4", "worker")];
    let nodes: Vec<Daemon> = std::iter::once(first).chain(others).collect();
    nodes[0].until("three managers and a worker", |status| ready(4)(status) && status.voters.len() == 3);
    nodes
}

#[test]
fn a_new_authority_takes_over_while_nodes_write_restart_and_join() {
    let mut nodes = cluster();
    let old = trusted(&nodes[0]);
    let admin = nodes[0].admin();
    nodes[0].write(Op::CaRotate(v1::CaRotate {})).expect("all managers are there");
    nodes[0].write(Op::CaRotate(v1::CaRotate {})).expect("asked again, nothing more happens");
    let waits = |status: &v1::Status| status.ca.as_ref().map(|ca| (ca.stage.clone(), ca.waits_for.len()));
    nodes[0].until("all believe it", |status| waits(status) == Some(("introduced".into(), 0)));
    let new = trusted(&nodes[3]).pop().expect("there are two");
    assert!(nodes.iter().all(|node| trusted(node) == [old[0].clone(), new.clone()]));
    assert_ne!(new, old[0]);

    // A node that is away is waited for, and who joins meanwhile learns it too.
    nodes[3].kill();
    let token = nodes[1].token("manager");
    nodes[0].write(advance("introduced")).expect("all believed it");
    nodes.push(Daemon::join("n5", &token, &[&nodes[1].address]));
    nodes[0].until("the five but one have certificates", |status| {
        status.ca.as_ref().is_some_and(|ca| ca.stage == "certifying" && ca.waits_for == ["n4"])
    });
    let refused = nodes[0].write(advance("certifying")).expect_err("one is away");
    assert_eq!((refused.code(), refused.message().contains("n4")), (Code::FailedPrecondition, true), "{}", refused.message());
    nodes[1].kill();
    nodes[1].start();
    nodes[3].start();
    nodes[0].until("all have certificates", |status| ready(5)(status) && waits(status) == Some(("certifying".into(), 0)));
    assert!(nodes.iter().all(|node| certificates(node) == 2));
    nodes[2].set("k", "v").expect("nothing was interrupted");

    nodes[0].write(advance("certifying")).expect("all are ready");
    nodes[0].until("all show them", |status| waits(status) == Some(("showing".into(), 0)));
    nodes[0].write(advance("showing")).expect("all are ready");
    until("only the new one is believed", BOUND, || nodes.iter().all(|node| trusted(node) == [new.clone()]).then_some(()));
    until("and shown", BOUND, || nodes.iter().all(|node| certificates(node) == 1).then_some(()));
    let keyring = KeyFiles::new(&nodes[1].data()).keyring().expect("the disk works").expect("it is a manager");
    assert!(keyring.next.is_none(), "the new keys are the keyring");

    // Each starts from its own files, a new token names the new authority, and the old administrator is nobody.
    for node in &mut nodes {
        node.kill();
    }
    for node in &mut nodes {
        node.start();
    }
    nodes[0].until("all are back", ready(5));
    let token = nodes[0].token("worker");
    let digest: String = ca_digest(&new.0).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(token.starts_with(&format!("DISCO1-{digest}-")), "{token}");
    nodes.push(Daemon::join("n6", &token, &[&nodes[2].address]));
    nodes[0].until("it joins", ready(6));
    let refused = common::block_on(async |spawner| {
        nodes[0].channel(spawner, Some(&admin)).disco().read(v1::ReadRequest::default()).await.expect_err("signed by nobody")
    });
    assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
    assert_eq!(nodes[2].value("k").expect("it is there"), Some("v".into()));
}

#[test]
fn a_rotation_survives_the_leader_and_waits_for_absent_managers() {
    let mut nodes = cluster();
    nodes[2].kill();
    nodes[0].until("one is lost", |status| status.nodes.iter().any(|n| n.state == "lost"));
    let refused = nodes[0].write(Op::CaRotate(v1::CaRotate {})).expect_err("a manager is away");
    assert!(refused.message().contains("manager n3 is lost"), "{}", refused.message());
    nodes[2].start();
    nodes[0].until("all are back", ready(4));
    let caught_up = |nodes: &[Daemon]| (nodes[2].member().applied >= nodes[0].member().applied).then_some(());
    until("it has caught up", BOUND, || caught_up(&nodes));
    nodes[0].write(Op::CaRotate(v1::CaRotate {})).expect("all managers are there");
    let leader = nodes[0].status().expect("it answers").leader.expect("it leads");
    let place = |nodes: &[Daemon], id: &str| {
        let status = nodes[0].status().expect("it answers");
        let address = status.nodes.iter().find(|n| n.id == id).expect("it is listed").address.clone();
        nodes.iter().position(|node| node.address == address).expect("it is one of these")
    };
    let led = place(&nodes, &leader);
    nodes[led].kill();
    let other = (led + 1) % 3;
    nodes[other].until("another leads", |status| status.leader.as_ref().is_some_and(|now| *now != leader));
    nodes[led].start();
    for stage in ["introduced", "certifying", "showing"] {
        let wanted = |status: &v1::Status| status.ca.as_ref().is_some_and(|ca| ca.stage == stage && ca.waits_for.is_empty());
        nodes[other].until(stage, wanted);
        nodes[other].write(advance(stage)).expect("all are ready");
    }
    until("only the new one is believed", BOUND, || nodes.iter().all(|node| trusted(node).len() == 1).then_some(()));
    nodes[other].until("all is well", |status| ready(4)(status) && status.problems.is_empty());
    nodes[led].set("k", "v").expect("it works on");
}
