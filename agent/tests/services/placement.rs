//! Where tasks go, and what a person is told when they can go nowhere.

use crate::cluster::{Cluster, spec};
use agent::model::{
    command::Command,
    ids::NodeId,
    service::{PortSpec, Replicas, ServiceSpec},
    task::TaskState,
};

const MIB: u64 = 1 << 20;

fn needing(memory: u64, copies: u32) -> ServiceSpec {
    ServiceSpec { memory: Some(memory), ..spec("a", copies) }
}

fn public(port: u16, copies: u32) -> ServiceSpec {
    ServiceSpec { ports: vec![PortSpec { port, public: Some(port), udp: false }], ..spec("a", copies) }
}

#[test]
fn copies_spread_and_nothing_moves_without_need() {
    let mut cluster = Cluster::new(3);
    cluster.set("web", spec("a", 3));
    cluster.rest();
    assert_eq!(cluster.spread("web"), [1, 1, 1]);
    cluster.set("db", spec("b", 1));
    cluster.set("cache", spec("c", 1));
    cluster.rest();
    assert_eq!((cluster.spread("cache"), cluster.spread("db")), (vec![1, 0, 0], vec![0, 1, 0]), "the least loaded is next");
    cluster.set("web", spec("a", 5));
    cluster.rest();
    assert_eq!(cluster.spread("web"), [2, 1, 2], "n3 had least to do");
    let before = cluster.tasks("web");
    cluster.add(4);
    cluster.rest();
    assert_eq!(cluster.tasks("web"), before, "a new node is no reason to move");
    cluster.set("web", spec("a", 3));
    cluster.rest();
    assert_eq!(cluster.spread("web"), [1, 1, 1, 0], "the newest on the fullest nodes went");
}

#[test]
fn what_does_not_fit_says_why() {
    let mut labelled = spec("a", 1);
    labelled.labels.insert("disk".into(), "ssd".into());
    let mut wide = spec("a", 1);
    wide.cpus_milli = Some(2_500);
    let cases = [
        (needing(2048 * MIB, 1), "no node has 2 GiB free (most is 1 GiB, on n3)"),
        (needing(600 * MIB, 4), "no node has 600 MiB free (most is 424 MiB, on n3)"),
        (labelled, "no node has the labels disk=ssd"),
        (wide, "no node has 2.5 cpus free (most is 2, on n3)"),
        (public(80, 4), "port 80 is taken on each node that would do"),
    ];
    for (spec, why) in cases {
        let mut cluster = Cluster::new(3);
        cluster.set("web", spec.clone());
        cluster.rest();
        assert_eq!(cluster.unplaced().get("web").map(Vec::as_slice), Some(&[why.to_string()][..]), "{spec:?}");
        assert!(cluster.problems().iter().any(|p| p.contains(why)), "{:?}", cluster.problems());
    }
    let mut cluster = Cluster::new(1);
    cluster.apply(Command::NodeDrain { node: NodeId(1), drain: true });
    cluster.set("web", spec("a", 1));
    cluster.plan();
    assert_eq!(cluster.unplaced()["web"], ["no node takes tasks"]);
}

#[test]
fn labels_and_avoided_services_choose_the_node() {
    let mut cluster = Cluster::new(3);
    cluster.label(2, "disk", "ssd");
    let mut labelled = spec("a", 2);
    labelled.labels.insert("disk".into(), "ssd".into());
    cluster.set("db", labelled);
    let shy = ServiceSpec { avoid: vec!["db".into()], ..spec("b", 3) };
    cluster.rest();
    cluster.set("shy", shy.clone());
    cluster.rest();
    assert_eq!((cluster.spread("db"), cluster.spread("shy")), (vec![0, 2, 0], vec![2, 0, 1]));

    let mut alone = Cluster::new(1);
    alone.set("db", spec("a", 1));
    alone.rest();
    alone.set("shy", shy);
    alone.rest();
    assert_eq!(alone.spread("shy"), [3], "avoided if another will do, not at any price");
}

#[test]
fn every_node_means_each_that_may() {
    let every = ServiceSpec { replicas: Replicas::EveryNode, ..public(80, 0) };
    let mut cluster = Cluster::new(3);
    cluster.set("proxy", every);
    cluster.rest();
    assert_eq!(cluster.spread("proxy"), [1, 1, 1]);
    cluster.add(4);
    cluster.apply(Command::NodeDrain { node: NodeId(2), drain: true });
    cluster.rest();
    assert_eq!(cluster.spread("proxy"), [1, 0, 1, 1]);
    assert_eq!(cluster.state.desired(cluster.service("proxy")), 3);
    cluster.apply(Command::NodeDrain { node: NodeId(2), drain: false });
    cluster.rest();
    assert_eq!(cluster.spread("proxy"), [1, 1, 1, 1]);
}

#[test]
fn a_drained_nodes_tasks_move_start_first() {
    let mut cluster = Cluster::new(3);
    cluster.set("web", spec("a", 3));
    cluster.rest();
    cluster.apply(Command::NodeDrain { node: NodeId(2), drain: true });
    cluster.plan();
    assert_eq!(cluster.spread("web"), [2, 1, 1], "its replacement comes first");
    cluster.rest();
    assert_eq!(cluster.spread("web"), [2, 0, 1]);
}

#[test]
fn a_drained_node_is_emptied_although_a_copy_elsewhere_or_on_it_keeps_ending() {
    let mut cluster = Cluster::new(3);
    cluster.set("web", spec("a", 3));
    cluster.rest();
    let ends = cluster.state.tasks.values().find(|t| t.node == NodeId(1)).expect("one is there").number;
    cluster.apply(Command::NodeDrain { node: NodeId(2), drain: true });
    for _ in 0..20 {
        cluster.nodes_obey();
        cluster.see(ends, TaskState::Starting, 3, "exit code 1");
        cluster.plan();
    }
    assert_eq!(cluster.spread("web")[1], 0, "{:?}", cluster.tasks("web"));
    assert!(cluster.state.tasks[&ends].wanted, "what keeps ending is tried on where it is");

    cluster.apply(Command::NodeDrain { node: NodeId(1), drain: true });
    cluster.plan();
    assert!(!cluster.state.tasks[&ends].wanted, "and is not waited for on a node that must be emptied");
    cluster.rest();
    assert_eq!(cluster.spread("web"), [0, 0, 3]);

    let mut broken = Cluster::new(3);
    broken.set("web", spec("broken", 2));
    broken.rest();
    let node = broken.state.tasks.values().next().expect("one is there").node;
    broken.apply(Command::NodeDrain { node, drain: true });
    broken.rest();
    assert!(broken.state.tasks.values().all(|t| t.node != node), "a service that never ran keeps no node either");
}

#[test]
fn a_last_healthy_copy_stays_while_its_replacement_fails() {
    let mut cluster = Cluster::new(2);
    cluster.set("web", spec("a", 1));
    cluster.rest();
    let old = cluster.state.tasks.values().next().expect("one is there").clone();
    cluster.apply(Command::NodeDrain { node: old.node, drain: true });
    for _ in 0..20 {
        let others: Vec<_> = cluster.state.tasks.keys().copied().filter(|n| *n != old.number).collect();
        others.into_iter().for_each(|number| cluster.see(number, TaskState::Starting, 3, "exit code 1"));
        cluster.plan();
    }
    assert!(cluster.state.tasks[&old.number].wanted && cluster.state.tasks.len() == 2);
}

#[test]
fn a_copy_that_has_done_its_work_is_not_run_again_by_a_drain_or_a_loss() {
    let mut cluster = Cluster::new(3);
    cluster.set("job", spec("a", 3));
    cluster.rest();
    let numbers: Vec<_> = cluster.state.tasks.keys().copied().collect();
    numbers.iter().for_each(|number| cluster.see(*number, TaskState::Exited, 0, ""));
    cluster.apply(Command::NodeDrain { node: NodeId(1), drain: true });
    cluster.lose(2);
    cluster.pass(60_000);
    assert_eq!(cluster.plan(), []);
    cluster.set("job", spec("b", 3));
    cluster.rest();
    assert_eq!(cluster.spread("job")[..1], [0], "a new version is new work");
    assert_eq!(cluster.tasks("job"), ["3:b", "3:b", "3:b"]);
}

#[test]
fn a_lost_nodes_tasks_move_after_five_seconds_and_are_stopped_there_when_it_is_back() {
    let mut cluster = Cluster::new(3);
    cluster.set("web", spec("a", 3));
    cluster.rest();
    cluster.lose(3);
    cluster.pass(4_900);
    assert!(cluster.plan().is_empty(), "a repaired agent keeps its tasks");
    cluster.pass(100);
    cluster.rest();
    assert_eq!(cluster.spread("web"), [2, 1, 0]);
    let orders = cluster.state.orders_of(NodeId(3));
    assert!(orders.len() == 1 && !orders[0].wanted, "it is to stop what was moved");
    let names: Vec<&str> = cluster.state.events.iter().map(|e| e.name.as_str()).filter(|n| n.starts_with("service.")).collect();
    assert_eq!(names[names.len() - 2..], ["service.degraded", "service.healthy"]);

    cluster.apply(Command::NodeRemove(NodeId(3)));
    cluster.rest();
    assert_eq!(cluster.state.tasks.len(), 3, "the tasks of a node that is gone for good are forgotten");
}
