//! A service from its declaration to its tasks.

use crate::world::{World, spec};
use agent::model::{
    ids::NodeId,
    io::Input,
    query::{Answer, Op, Peer, Principal, Way},
    service::Roll,
    task::{Exit, Orders, TaskEvent, TaskState},
};

#[test]
fn a_declared_service_gets_its_tasks_and_they_are_restarted() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    assert_eq!(world.programs(), ["a", "a"]);
    world.pass(2_000);
    let view = world.service("web");
    assert_eq!((view.desired, view.record.roll.clone()), (2, Roll::Done));
    assert!(view.tasks.iter().all(|t| t.seen.state == TaskState::Running), "{view:?}");

    let number = *world.running.keys().next().expect("two run");
    world.running.remove(&number);
    world.input(Input::Task { number, event: TaskEvent::Ended(Exit::Signal(9)) });
    assert_eq!(world.programs().len(), 1);
    world.pass(1_000);
    assert_eq!(world.programs().len(), 2, "after its back-off");
    world.pass(2_000);
    assert!(world.service("web").record.healthy);
    assert_eq!(world.started, 3);
}

#[test]
fn an_agent_that_comes_back_finds_its_tasks_and_starts_none_twice() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    world.pass(2_000);
    let mut world = world.restart();
    world.pass(3_000);
    assert_eq!((world.programs().len(), world.started), (2, 0));
    assert!(world.service("web").tasks.iter().all(|t| t.seen.state == TaskState::Running && t.seen.restarts == 0));
}

#[test]
fn a_new_version_replaces_the_old_and_a_broken_one_does_not() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    world.pass(2_000);
    world.set("web", spec("b", 2));
    assert_eq!(world.programs(), ["a", "a", "b"], "the new one starts first");
    world.pass(5_000);
    assert_eq!(world.programs(), ["b", "b"]);
    assert_eq!(world.service("web").record.roll, Roll::Done);

    world.broken = Some(("c", 3));
    world.set("web", spec("c", 2));
    world.pass(20_000);
    assert_eq!(world.programs(), ["b", "b"]);
    let view = world.service("web");
    assert!(matches!(&view.record.roll, Roll::Stopped(why) if why.contains("exit code 3")), "{:?}", view.record.roll);
    assert_eq!(view.tasks.len(), 2, "the failed one is forgotten");

    let answer = world.ask(Principal::Admin, Op::ServiceRollback("web".into()));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    let before = world.started;
    world.pass(5_000);
    assert_eq!((world.programs(), world.started), (vec!["b", "b"], before), "what runs already runs on");
    assert_eq!(world.service("web").record.roll, Roll::Done);
}

#[test]
fn a_script_of_an_earlier_term_changes_nothing() {
    let mut world = World::new();
    let term = world.term();
    let op = Op::ServiceSet { name: "web".into(), spec: Box::new(spec("a", 1)) };
    let answer = world.ask(Principal::Script { term: term - 1 }, op.clone());
    assert!(matches!(answer, Answer::Refused { code: "stale", .. }), "{answer:?}");
    let answer = world.ask(Principal::Admin, op);
    assert!(matches!(answer, Answer::Refused { code: "denied", .. }), "people declare services in cluster.js: {answer:?}");
    assert!(world.replica.state().services.is_empty());
}

#[test]
fn an_agent_that_finds_no_manager_goes_by_its_last_assignment_after_a_while() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    world.set("old", spec("b", 1));
    world.pass(2_000);
    let assignment = world.assignment.clone().expect("it was told what to run");
    assert_eq!(assignment.tasks.len(), 3);
    // A worker on the same machine: it has no seat, and nobody answers.
    let mut lonely = world.without_cluster();
    let number = *lonely.running.keys().next().expect("three run");
    lonely.running.remove(&number);
    lonely.input(Input::Task { number, event: TaskEvent::Ended(Exit::Signal(9)) });
    lonely.pass(29_000);
    assert_eq!((lonely.running.len(), lonely.started), (2, 0), "what runs runs on, and nothing is started yet");
    lonely.pass(2_000);
    assert_eq!((lonely.running.len(), lonely.started), (3, 1), "nobody said that it is not to run");

    // A leader's first word beats what was remembered, even if its log is shorter (after a recovery).
    let orders = Orders { index: 1, tasks: assignment.tasks.into_iter().filter(|order| order.service == "web").collect() };
    let peer = Peer { node: NodeId(2), address: "127.0.0.1:2".into(), public_key: vec![2; 32] };
    let leader = Some((NodeId(2), "127.0.0.1:2".into()));
    lonely.input(Input::ReportAnswered { leader, managers: vec![peer], removed: vec![], orders, authorities: Default::default() });
    assert_eq!(lonely.programs(), ["a", "a"]);
    assert_eq!(lonely.assignment.as_ref().map(|orders| orders.tasks.len()), Some(2), "and is remembered");
}

#[test]
fn a_worker_that_is_sent_on_still_knows_the_managers_and_asks_each_as_itself() {
    let mut worker = World::new().without_cluster();
    let answered = |leader: u64, managers: &[u64], removed: &[u64]| {
        let address = |node: u64| format!("127.0.0.{node}:5080");
        let peer = |node: &u64| Peer { node: NodeId(*node), address: address(*node), public_key: vec![*node as u8; 32] };
        Input::ReportAnswered {
            leader: Some((NodeId(leader), address(leader))),
            managers: managers.iter().map(peer).collect(),
            removed: removed.iter().copied().map(NodeId).collect(),
            orders: Orders::default(),
            authorities: Default::default(),
        }
    };
    let ids = |ways: &[Way]| ways.iter().map(|way| way.node.map_or(0, |node| node.0)).collect::<Vec<_>>();
    worker.pass(1_100);
    assert_eq!(ids(&worker.tried), [0], "nobody is known yet but a seed");
    worker.input(answered(11, &[11, 12, 13], &[]));
    worker.pass(1_100);
    assert_eq!(ids(&worker.tried), [11, 12, 13, 0]);
    // A node that knows who leads, and nothing else, says so; and the one it means does not answer.
    worker.input(answered(12, &[], &[]));
    worker.pass(1_100);
    assert_eq!(ids(&worker.tried), [12, 11, 13, 0], "the others may lead by now");
    worker.input(answered(13, &[12, 13, 14], &[11, 14]));
    worker.pass(1_100);
    assert_eq!(ids(&worker.tried), [13, 12, 0], "who was removed is asked no more");
}
