//! Real daemons from nothing: one that makes a cluster, then others that join it.

mod common;

use common::Daemon;
use proto::v1;

#[test]
fn one_node_originates_leads_and_keeps_its_state_over_a_restart() {
    let mut node = Daemon::originate();
    let before = node.until("it leads", |status| status.leader.is_some() && status.nodes.iter().all(|node| node.state == "ready"));
    assert_eq!((before.cluster.as_str(), before.nodes.len()), ("test", 1));
    node.set("greeting", "hello").expect("a leader writes");
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));

    let second = node.command().output().expect("discod starts");
    assert_eq!(second.status.code(), Some(2), "a second daemon on the same data dir is refused");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.starts_with("error: ") && words.contains(&node.pid().to_string()), "{words}");

    assert_eq!(node.stop().code(), Some(0), "SIGTERM is no failure; log:\n{}", node.log());
    node.start();
    let after = node.until("it leads again", |status| status.leader.is_some());
    assert_eq!((after.cluster_id, after.leader), (before.cluster_id.clone(), before.leader.clone()));
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));

    node.kill();
    node.start();
    node.until("it leads after kill -9", |status| status.leader == before.leader);
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));
}

#[test]
fn nodes_join_by_token_and_become_managers() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let others: Vec<Daemon> = ["n2", "n3"].iter().map(|name| Daemon::join(name, &first.token("manager"), &[&first.address])).collect();
    let managers = |status: &v1::Status| status.nodes.iter().filter(|node| node.role == "manager" && node.state == "ready").count();
    let status = first.until("three ready managers", |status| managers(status) == 3);
    assert_eq!(status.voters.len(), 3);

    first.set("k", "v").expect("a quorum writes");
    for node in &others {
        assert_eq!(node.value("k").expect("a follower reads or forwards").as_deref(), Some("v"));
        node.set("from", &node.address).expect("a follower forwards");
    }
    assert_eq!(first.value("from").expect("the leader reads"), Some(others[1].address.clone()));
}
