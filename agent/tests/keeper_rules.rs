//! What a node does with its orders: a keeper in a few words, and the calls that must follow.

use agent::logic::keeper::{BACKOFF_MS_MAX, Keeper, STEADY_AFTER_MS};
use agent::model::{
    service::{Restart, RestartPolicy, ServiceSpec},
    task::{Exit, Hold, TaskCall, TaskEvent, TaskNumber, TaskOrder, TaskState},
};
use std::collections::BTreeMap;

fn order(number: u64, wanted: bool) -> TaskOrder {
    let spec = ServiceSpec { command: vec!["a".into()], ..ServiceSpec::default() };
    TaskOrder { number: TaskNumber(number), service: "web".into(), version: 1, wanted, spec, hold: None }
}

fn restarting(policy: RestartPolicy, max: Option<u32>) -> TaskOrder {
    let mut order = order(1, true);
    order.spec.restart = Restart { policy, backoff_ms: 500, max };
    order
}

fn up(adopted: bool) -> TaskEvent {
    TaskEvent::Up { pid: 9, ports: BTreeMap::from([(80, 4000)]), adopted }
}

/// A keeper that found nothing on disk and trusts its orders.
fn keeper(orders: Vec<TaskOrder>) -> Keeper {
    let mut keeper = Keeper::new();
    keeper.handle_found(vec![], 0);
    keeper.set_trusted(true);
    keeper.set_orders(orders);
    keeper
}

/// The calls as words: `start 1`, `stop 1`, `forget 1`.
fn calls(keeper: &mut Keeper, now: u64) -> Vec<String> {
    let word = |call: TaskCall| match call {
        TaskCall::Start { order, .. } => format!("start {}", order.number.0),
        TaskCall::Stop { number, .. } => format!("stop {}", number.0),
        TaskCall::Pause { number, on } => format!("{} {}", if on { "pause" } else { "resume" }, number.0),
        TaskCall::Forget { number } => format!("forget {}", number.0),
    };
    keeper.poll(now).into_iter().map(word).collect()
}

fn state(keeper: &Keeper, number: u64) -> TaskState {
    keeper.seen().into_iter().find(|seen| seen.number == TaskNumber(number)).expect("it is known").state
}

const FIRST: TaskNumber = TaskNumber(1);

#[test]
fn a_task_starts_runs_after_its_grace_stops_and_is_forgotten() {
    let mut keeper = keeper(vec![order(1, true)]);
    assert_eq!(calls(&mut keeper, 0), ["start 1"]);
    assert_eq!(calls(&mut keeper, 50), Vec::<String>::new());
    keeper.handle(FIRST, up(false), 100);
    assert_eq!((state(&keeper, 1), keeper.deadline()), (TaskState::Starting, Some(1_100)));
    calls(&mut keeper, 1_100);
    assert_eq!(state(&keeper, 1), TaskState::Running);
    assert_eq!(keeper.seen()[0].ports, BTreeMap::from([(80, 4000)]));

    keeper.set_orders([order(1, false)]);
    assert_eq!(calls(&mut keeper, 2_000), ["stop 1"]);
    assert_eq!(state(&keeper, 1), TaskState::Stopping);
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Signal(15)), 2_100);
    assert_eq!((calls(&mut keeper, 2_100).len(), state(&keeper, 1)), (0, TaskState::Exited));
    keeper.set_orders([]);
    assert_eq!(calls(&mut keeper, 2_200), ["forget 1"]);
    assert!(keeper.seen().is_empty());
}

#[test]
fn nothing_starts_before_the_disk_was_looked_at_and_a_leader_was_heard() {
    let mut keeper = Keeper::new();
    keeper.set_orders([order(1, true)]);
    keeper.set_trusted(true);
    assert!(calls(&mut keeper, 0).is_empty(), "it may run already");
    keeper.handle(FIRST, up(true), 1);
    keeper.handle_found(vec![order(1, true)], 1);
    assert_eq!(calls(&mut keeper, 2), ["resume 1"], "it does, and may have been paused");
    assert_eq!(state(&keeper, 1), TaskState::Running, "what was adopted has had its grace");

    let mut keeper = Keeper::new();
    keeper.handle(FIRST, up(true), 1);
    keeper.handle_found(vec![order(1, true)], 1);
    keeper.set_orders([order(2, true)]);
    assert!(calls(&mut keeper, 2).is_empty(), "old records start nothing and end nothing");
    keeper.set_trusted(true);
    assert_eq!(calls(&mut keeper, 3), ["resume 1", "stop 1"], "what was moved away goes first");
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Code(0)), 4);
    assert_eq!(calls(&mut keeper, 5), ["forget 1", "start 2"]);
}

#[test]
fn a_task_that_ended_while_nobody_looked_is_restarted() {
    let mut keeper = Keeper::new();
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Unknown), 0);
    keeper.handle_found(vec![order(1, true)], 0);
    keeper.set_orders([order(1, true)]);
    keeper.set_trusted(true);
    assert!(calls(&mut keeper, 0).is_empty());
    assert_eq!(keeper.deadline(), Some(500));
    assert_eq!(calls(&mut keeper, 500), ["start 1"]);
    assert_eq!(keeper.seen()[0].restarts, 1);
}

#[test]
fn the_wait_doubles_up_to_a_minute_and_begins_anew_after_a_steady_minute() {
    let mut keeper = keeper(vec![restarting(RestartPolicy::Always, None)]);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert_eq!(calls(&mut keeper, now), ["start 1"]);
        keeper.handle(FIRST, up(false), now);
        keeper.handle(FIRST, TaskEvent::Ended(Exit::Code(0)), now);
        let due = keeper.deadline().expect("it is restarted");
        waits.push(due - now);
        now = due;
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, BACKOFF_MS_MAX, BACKOFF_MS_MAX, BACKOFF_MS_MAX]);
    calls(&mut keeper, now);
    keeper.handle(FIRST, up(false), now);
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Code(1)), now + STEADY_AFTER_MS);
    assert_eq!(keeper.deadline(), Some(now + STEADY_AFTER_MS + 500));
}

#[test]
fn the_policy_says_what_follows_an_end() {
    use RestartPolicy::{Always, Never, OnFailure};
    let cases = [
        (Always, None, Exit::Code(0), TaskState::Starting),
        (Always, Some(0), Exit::Code(1), TaskState::Failed),
        (OnFailure, None, Exit::Code(0), TaskState::Exited),
        (OnFailure, None, Exit::Code(2), TaskState::Starting),
        (OnFailure, None, Exit::Unknown, TaskState::Starting),
        (OnFailure, Some(0), Exit::Signal(9), TaskState::Failed),
        (Never, None, Exit::Code(0), TaskState::Exited),
        (Never, None, Exit::Signal(11), TaskState::Failed),
    ];
    for (policy, max, exit, expected) in cases {
        let mut keeper = keeper(vec![restarting(policy, max)]);
        calls(&mut keeper, 0);
        keeper.handle(FIRST, up(false), 0);
        keeper.handle(FIRST, TaskEvent::Ended(exit), 10);
        assert_eq!(state(&keeper, 1), expected, "{policy:?} {max:?} {exit:?}");
    }
}

#[test]
fn what_cannot_be_started_is_tried_again_and_says_why() {
    let mut keeper = keeper(vec![order(1, true)]);
    calls(&mut keeper, 0);
    keeper.handle(FIRST, TaskEvent::NotStarted { why: "no such file".into() }, 10);
    assert_eq!((keeper.seen()[0].error.as_str(), state(&keeper, 1)), ("no such file", TaskState::Starting));
    assert_eq!(calls(&mut keeper, 510), ["start 1"]);
    keeper.handle(FIRST, up(false), 520);
    calls(&mut keeper, 2_000);
    assert_eq!(keeper.seen()[0].error, "", "it runs now");
}

#[test]
fn a_stop_that_overtakes_the_start_waits_for_its_answer() {
    let mut keeper = keeper(vec![order(1, true)]);
    calls(&mut keeper, 0);
    keeper.set_orders([order(1, false)]);
    assert!(calls(&mut keeper, 1).is_empty());
    keeper.handle(FIRST, up(false), 2);
    assert_eq!(calls(&mut keeper, 3), ["stop 1"]);

    keeper.set_orders([order(1, false), order(2, false)]);
    calls(&mut keeper, 4);
    assert_eq!(state(&keeper, 2), TaskState::Exited, "what never ran has ended");
}

fn held(number: u64, hold: Option<Hold>) -> TaskOrder {
    TaskOrder { hold, ..order(number, true) }
}

#[test]
fn while_too_few_nodes_are_there_tasks_stop_and_start_again_afterwards() {
    let mut keeper = keeper(vec![order(1, true)]);
    calls(&mut keeper, 0);
    keeper.handle(FIRST, up(false), 100);
    keeper.set_orders([held(1, Some(Hold::Stop)), held(2, Some(Hold::Stop))]);
    assert_eq!(calls(&mut keeper, 5_000), ["stop 1"], "and nothing new is started");
    assert_eq!((state(&keeper, 1), state(&keeper, 2)), (TaskState::Stopping, TaskState::Held));
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Signal(15)), 5_100);
    assert!(calls(&mut keeper, 70_000).is_empty());
    assert_eq!(state(&keeper, 1), TaskState::Held);
    keeper.set_orders([order(1, true), order(2, true)]);
    assert_eq!(calls(&mut keeper, 70_000).len() + calls(&mut keeper, 70_000).len(), 2, "both start at once");
    assert_eq!(keeper.seen()[0].restarts, 0, "that was no failure");

    keeper.handle(FIRST, up(false), 70_100);
    keeper.set_orders([held(1, Some(Hold::Stop)), held(2, Some(Hold::Stop))]);
    calls(&mut keeper, 71_000);
    keeper.set_orders([order(1, true), order(2, true)]);
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Signal(15)), 71_100);
    assert_eq!(calls(&mut keeper, 71_100), ["start 1"], "the minimum was reached again before it had ended");
}

#[test]
fn while_too_few_nodes_are_there_tasks_stand_still_and_go_on_afterwards() {
    let mut keeper = keeper(vec![order(1, true)]);
    calls(&mut keeper, 0);
    keeper.handle(FIRST, up(false), 100);
    keeper.set_orders([held(1, Some(Hold::Pause))]);
    assert_eq!(calls(&mut keeper, 5_000), ["pause 1"]);
    assert_eq!((calls(&mut keeper, 5_100).len(), state(&keeper, 1)), (0, TaskState::Paused));
    keeper.set_orders([order(1, true)]);
    assert_eq!(calls(&mut keeper, 6_000), ["resume 1"]);
    assert_eq!(state(&keeper, 1), TaskState::Running);

    keeper.set_orders([held(1, Some(Hold::Pause))]);
    calls(&mut keeper, 7_000);
    keeper.set_orders([order(1, false)]);
    assert_eq!(calls(&mut keeper, 8_000), ["resume 1", "stop 1"], "what stands still does not hear a signal");

    let mut keeper = self::keeper(vec![held(1, Some(Hold::Pause))]);
    keeper.handle(FIRST, up(true), 0);
    assert_eq!((calls(&mut keeper, 0).len(), state(&keeper, 1)), (0, TaskState::Held));
    keeper.set_orders([order(1, true)]);
    calls(&mut keeper, 100);
    keeper.handle(FIRST, up(false), 200);
    keeper.set_orders([held(1, Some(Hold::Pause))]);
    calls(&mut keeper, 300);
    keeper.handle(FIRST, TaskEvent::Ended(Exit::Signal(9)), 8_100);
    assert!(calls(&mut keeper, 99_000).is_empty(), "what ends while it is held starts again afterwards only");
    assert_eq!(state(&keeper, 1), TaskState::Held);
}
