//! A service from its declaration to its tasks.

use crate::world::{World, spec};
use agent::model::{
    io::Input,
    query::{Answer, Op, Principal},
    service::Roll,
    task::{Exit, TaskEvent, TaskState},
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
