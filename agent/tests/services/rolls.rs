//! From an old version to a new one: what runs meanwhile, and what happens when the new one does not.

use crate::cluster::{Cluster, spec};
use agent::logic::state::Outcome;
use agent::model::{
    command::Command,
    ids::NodeId,
    service::{PortSpec, Replicas, Roll, ServiceSpec, Update},
    task::TaskState,
};

/// Three nodes that run version `old` of a service with three copies.
fn running(old: ServiceSpec) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.set("web", old);
    cluster.rest();
    assert_eq!(cluster.service("web").roll, Roll::Done);
    cluster
}

fn with(program: &str, change: impl Fn(&mut Update)) -> ServiceSpec {
    let mut spec = spec(program, 3);
    change(&mut spec.update);
    spec
}

fn count(cluster: &Cluster, program: &str) -> usize {
    cluster.tasks("web").iter().filter(|t| t.ends_with(program)).count()
}

fn stopped(cluster: &Cluster) -> &str {
    match &cluster.service("web").roll {
        Roll::Stopped(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn start_first_keeps_all_copies_and_adds_one() {
    let mut cluster = running(spec("a", 3));
    cluster.set("web", spec("b", 3));
    let mut seen = Vec::new();
    for _ in 0..20 {
        cluster.plan();
        seen.push((count(&cluster, "a"), count(&cluster, "b")));
        let up = cluster.state.tasks_of("web").filter(|t| t.wanted && t.seen.state == TaskState::Running).count();
        assert!(up >= 3, "never fewer than wanted: {seen:?}");
        cluster.nodes_obey();
    }
    seen.dedup();
    assert_eq!(seen, [(3, 1), (2, 2), (1, 3), (0, 3)]);
    assert_eq!((cluster.spread("web"), cluster.service("web").roll.clone()), (vec![1, 1, 1], Roll::Done));
    assert_eq!(cluster.service("web").specs.keys().collect::<Vec<_>>(), [&1, &2], "the one before is kept for a rollback");
}

#[test]
fn parallel_replaces_so_many_at_a_time_and_stop_first_stops_first() {
    let mut cluster = running(spec("a", 3));
    cluster.set("web", with("b", |u| u.parallel = 2));
    cluster.plan();
    assert_eq!((count(&cluster, "a"), count(&cluster, "b")), (3, 2));

    let first = cluster.state.tasks_of("web").find(|t| t.version == 2).expect("two were placed").number;
    cluster.see(first, TaskState::Running, 0, "");
    for _ in 0..5 {
        cluster.plan();
        assert!(count(&cluster, "b") <= 3, "not more than wanted");
    }

    let mut cluster = running(spec("a", 3));
    cluster.set("web", with("b", |u| u.start_first = false));
    cluster.plan();
    assert_eq!((count(&cluster, "a"), count(&cluster, "b")), (2, 0));
    cluster.rest();
    assert_eq!((count(&cluster, "a"), count(&cluster, "b")), (0, 3));
}

#[test]
fn a_fixed_port_is_freed_before_the_new_copy_takes_it() {
    let on_port = |program: &str| ServiceSpec { ports: vec![PortSpec { port: 80, public: Some(80), udp: false }], ..spec(program, 3) };
    let mut cluster = running(on_port("a"));
    cluster.set("web", on_port("b"));
    for _ in 0..30 {
        cluster.plan();
        for node in [1, 2, 3] {
            let holders = cluster.state.tasks.values().filter(|t| t.node == NodeId(node) && !t.seen.state.ended()).count();
            assert!(holders <= 1, "two tasks want the port of n{node}");
        }
        cluster.nodes_obey();
    }
    assert_eq!((cluster.spread("web"), count(&cluster, "b")), (vec![1, 1, 1], 3));
}

#[test]
fn a_port_of_a_removed_service_is_free_once_its_tasks_have_ended() {
    let on_port = |program: &str| ServiceSpec { ports: vec![PortSpec { port: 80, public: Some(80), udp: false }], ..spec(program, 3) };
    let mut cluster = running(on_port("a"));
    assert_eq!(cluster.apply(Command::ServiceRemove("web".into())), Outcome::Done);
    cluster.set("www", on_port("b"));
    cluster.plan();
    assert_eq!(cluster.spread("www"), vec![0, 0, 0], "{:?}", cluster.problems());
    assert!(cluster.problems()[0].contains("tasks of a removed service are still ending"), "{:?}", cluster.problems());
    cluster.rest();
    assert_eq!(cluster.spread("www"), vec![1, 1, 1]);
}

#[test]
fn copies_that_do_not_run_make_room_for_the_update_that_repairs_them() {
    let needs = |program: &str| ServiceSpec { memory: Some(600 << 20), ..spec(program, 3) };
    let mut cluster = Cluster::new(3);
    cluster.set("web", needs("broken"));
    for _ in 0..5 {
        cluster.plan();
        cluster.nodes_obey();
    }
    cluster.set("web", needs("b"));
    cluster.rest();
    assert_eq!((cluster.spread("web"), count(&cluster, "b")), (vec![1, 1, 1], 3));
}

#[test]
fn a_version_that_does_not_stay_up_stops_the_roll_and_the_old_one_is_kept() {
    let mut cluster = running(spec("a", 3));
    cluster.set("web", spec("broken", 3));
    cluster.rest();
    assert!(stopped(&cluster).contains("did not stay up: exit code 1"), "{}", stopped(&cluster));
    assert_eq!((count(&cluster, "a"), count(&cluster, "broken")), (3, 0));
    assert!(cluster.problems().iter().any(|p| p.contains("the update to version 2 stopped")));

    cluster.lose(1);
    cluster.pass(6_000);
    cluster.rest();
    assert_eq!((count(&cluster, "a"), cluster.spread("web")[0]), (3, 0), "what is lost meanwhile comes back as it was");

    cluster.set("web", spec("c", 3));
    cluster.rest();
    assert_eq!((count(&cluster, "c"), &cluster.service("web").roll), (3, &Roll::Done));
    cluster.apply(Command::ServiceRollback("web".into()));
    cluster.rest();
    assert_eq!(count(&cluster, "a"), 3, "back to the last version that ran, not to the broken one");
}

#[test]
fn stop_first_brings_the_old_version_back_where_the_new_one_fails() {
    let mut cluster = running(spec("a", 3));
    cluster.set("web", with("broken", |u| u.start_first = false));
    cluster.rest();
    assert_eq!((count(&cluster, "a"), count(&cluster, "broken")), (3, 0));
    stopped(&cluster);
}

#[test]
fn rollback_by_itself_if_the_update_says_so() {
    let mut cluster = running(spec("a", 3));
    let numbers: Vec<u64> = cluster.state.tasks.keys().map(|n| n.0).collect();
    cluster.set("web", with("broken", |u| u.rollback = true));
    cluster.rest();
    let service = cluster.service("web");
    assert_eq!((service.version, &service.roll, service.spec().command[0].as_str()), (3, &Roll::Done, "a"));
    assert_eq!(cluster.state.tasks.keys().map(|n| n.0).collect::<Vec<_>>(), numbers, "the old tasks were never touched");
}

#[test]
fn a_first_version_that_fails_goes_on_trying() {
    let mut cluster = Cluster::new(3);
    cluster.set("web", spec("broken", 3));
    cluster.rest();
    stopped(&cluster);
    assert_eq!(count(&cluster, "broken"), 3);
    let numbers: Vec<_> = cluster.state.tasks.keys().copied().collect();
    numbers.iter().for_each(|number| cluster.see(*number, TaskState::Running, 3, ""));
    cluster.plan();
    assert_eq!(cluster.service("web").roll, Roll::Done, "what it waited for came");
}

/// An update with ten seconds' time and no room for its copies.
fn waiting_for_room() -> Cluster {
    let mut cluster = running(ServiceSpec { memory: Some(600 << 20), ..spec("a", 3) });
    let mut new = spec("b", 3);
    (new.memory, new.update.deadline_ms) = (Some(600 << 20), 10_000);
    cluster.set("web", new);
    cluster.rest();
    cluster
}

#[test]
fn a_roll_that_takes_too_long_has_failed() {
    let mut cluster = waiting_for_room();
    assert_eq!(cluster.service("web").roll, Roll::Going, "there is no room to start first");
    cluster.pass(10_001);
    cluster.rest();
    assert_eq!(stopped(&cluster), "it was not done after 10 s: no node has 600 MiB free (most is 424 MiB, on n3)");
    assert_eq!(count(&cluster, "a"), 3);
}

#[test]
fn a_leader_whose_clock_is_ahead_ends_no_roll() {
    let mut cluster = waiting_for_room();
    cluster.changes_leader(3_600_000);
    cluster.rest();
    assert_eq!(cluster.service("web").roll, Roll::Going);
    cluster.pass(10_001);
    cluster.rest();
    assert!(stopped(&cluster).starts_with("it was not done after 10 s"));
}

#[test]
fn what_a_process_need_not_notice_restarts_nothing() {
    let mut cluster = running(spec("a", 3));
    let numbers: Vec<_> = cluster.state.tasks.keys().copied().collect();
    let mut new = with("a", |u| u.parallel = 2);
    new.stop_timeout_ms = 1;
    cluster.set("web", new);
    cluster.rest();
    assert_eq!((cluster.service("web").version, &cluster.service("web").roll), (2, &Roll::Done));
    assert_eq!(cluster.state.tasks.keys().copied().collect::<Vec<_>>(), numbers);

    cluster.apply(Command::ServiceRestart("web".into()));
    cluster.rest();
    assert!(cluster.state.tasks.keys().all(|n| !numbers.contains(n)), "a restart is for all of them");
    assert_eq!(count(&cluster, "a"), 3);
}

#[test]
fn an_update_on_every_node_goes_node_by_node() {
    let every = |program: &str| ServiceSpec { replicas: Replicas::EveryNode, ..spec(program, 0) };
    let mut cluster = running(every("a"));
    cluster.set("web", every("b"));
    cluster.plan();
    assert_eq!((count(&cluster, "a"), count(&cluster, "b")), (3, 1));
    cluster.rest();
    assert_eq!((cluster.spread("web"), count(&cluster, "b")), (vec![1, 1, 1], 3));
    cluster.set("web", every("broken"));
    cluster.rest();
    assert_eq!(count(&cluster, "b"), 3);
    stopped(&cluster);
}

#[test]
fn a_removed_service_stops_and_leaves_nothing() {
    let mut cluster = running(spec("a", 3));
    assert_eq!(cluster.apply(Command::ServiceRemove("web".into())), Outcome::Done);
    assert!(cluster.state.orders_of(NodeId(1)).iter().all(|o| !o.wanted));
    cluster.rest();
    assert!(cluster.state.tasks.is_empty() && cluster.state.services.is_empty());
}
