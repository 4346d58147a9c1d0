//! Real daemons whose roles change: by hand, by loss, by coming and going.

mod common;

use common::Daemon;
use proto::v1::{self, write_request::Op};
use tonic::Code;

fn managers(status: &v1::Status) -> Vec<&str> {
    let mut names: Vec<&str> = status.nodes.iter().filter(|n| n.role == "manager").map(|n| n.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn prefer(node: &str, role: &str) -> Op {
    Op::NodePrefer(v1::NodePrefer { node: node.into(), role: role.into() })
}

#[test]
fn promotion_and_demotion_by_hand_are_swaps_or_are_refused() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let refused = first.write(prefer("n1", "worker")).expect_err("there is nobody else");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("no node can take the seat of n1"), "{}", refused.message());

    let join = |name: &str, role: &str| Daemon::join(name, &first.token(role), &[&first.address]);
    let mut others = vec![join("n2", "manager"), join("n3", "manager")];
    first.until("three managers", |status| status.voters.len() == 3);
    others.push(join("n4", "manager"));
    others.push(join("n5", "worker"));
    first.until("five ready nodes", |status| status.nodes.iter().filter(|n| n.state == "ready").count() == 5);

    first.write(prefer("n4", "manager")).expect("somebody gives way");
    first.until("n4 votes", |status| status.voters.len() == 3 && managers(status).contains(&"n4"));
    first.write(prefer("n4", "worker")).expect("somebody takes over");
    first.until("n4 votes no more", |status| managers(status) == ["n1", "n2", "n3"] && status.learners.is_empty());
    let keyring = others[2].data().join("keyring");
    common::until("the demoted node has no keyring", common::BOUND, || (!keyring.exists()).then_some(()));

    let never = first.write(prefer("n5", "manager")).expect_err("it joined as a worker");
    assert!(never.message().contains("worker's token"), "{}", never.message());

    // The leader goes too: it hands on first.
    first.write(prefer("n4", "manager")).expect("somebody gives way again");
    let leader = first.status().expect("it answers").leader.expect("it leads");
    first.write(prefer(&leader, "worker")).expect("who gave way takes over");
    let demoted = |status: &v1::Status| status.nodes.iter().any(|n| n.id == leader && n.role == "worker" && !n.leader);
    others[0].until("another leads and the old one is a worker", |status| demoted(status) && status.voters.len() == 3);
    others[0].set("k", "v").expect("the cluster writes");
}
