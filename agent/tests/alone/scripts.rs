//! The script's timetable on the leader, and what becomes of its answers.

use crate::world::{World, spec};
use agent::model::{
    query::{Answer, Op, PlannedChange, Principal, Request},
    script::{Declaration, Hook, Registration, RegistrationKind, ScriptReport},
    service::ServiceSpec,
    settings::SettingsChange,
};
use std::collections::BTreeMap;

fn modules(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("cluster.js".to_string(), text.to_string())])
}

fn declares(services: &[(&str, ServiceSpec)]) -> ScriptReport {
    let services = services.iter().map(|(name, spec)| (name.to_string(), spec.clone())).collect();
    ScriptReport {
        declared: Some(Declaration { services, keys: BTreeMap::from([("greeting".into(), "hello".into())]), ..Declaration::default() }),
        ..ScriptReport::default()
    }
}

fn registering(mut report: ScriptReport, kinds: &[RegistrationKind]) -> ScriptReport {
    report.registrations = kinds.iter().cloned().enumerate().map(|(number, kind)| Registration { number: number as u32, kind }).collect();
    report
}

/// Modules are in force, `configure` declared this, and `leader` went well.
fn loaded(report: ScriptReport) -> World {
    let mut world = World::new();
    push(&mut world, "one");
    world.answer(Ok(report));
    world.pass(10);
    assert_eq!(world.hook(), Some(Hook::Leader));
    world.answer(Ok(ScriptReport::default()));
    world
}

fn push(world: &mut World, text: &str) {
    let answer = world.ask(Principal::Admin, Op::ModulesPut(modules(text)));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
}

fn fired(world: &World) -> Option<(u32, String)> {
    match world.hook() {
        Some(Hook::Registered { number, argument }) => Some((number, argument)),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pushed_modules_are_configured_once_and_what_they_declare_is_carried_out() {
    let mut world = World::new();
    world.pass(5_000);
    assert_eq!(world.hook(), None, "there is no script yet");
    push(&mut world, "one");
    assert_eq!(world.hook(), Some(Hook::Configure));
    world.answer(Ok(declares(&[("web", spec("a", 2))])));
    assert_eq!(world.programs(), ["a", "a"]);
    assert_eq!(world.replica.state().kv["greeting"].value, b"hello");
    world.pass(10);
    assert_eq!(world.hook(), Some(Hook::Leader), "after what was declared is in the state");
    world.answer(Ok(ScriptReport::default()));
    world.pass(120_000);
    assert_eq!(world.hook(), None, "once per term");
}

#[test]
fn a_change_by_hand_outlives_a_new_term_and_ends_with_the_next_apply() {
    let mut world = loaded(declares(&[("web", spec("a", 2))]));
    world.ask(Principal::Admin, Op::ServiceScale { name: "web".into(), replicas: 4 });
    assert_eq!(world.programs().len(), 4);

    let mut world = world.restart();
    world.pass(3_000);
    assert_eq!(world.hook(), Some(Hook::Configure), "again in the new term");
    world.answer(Ok(declares(&[("web", spec("a", 2))])));
    world.pass(3_000);
    assert_eq!(world.programs().len(), 4);
    assert_eq!(world.service("web").record.replicas_by_hand, Some(4));

    push(&mut world, "one");
    world.answer(Ok(declares(&[("web", spec("a", 2))])));
    world.pass(3_000);
    assert_eq!(world.programs().len(), 2);
}

#[test]
fn what_is_no_longer_declared_is_removed() {
    let mut world = loaded(declares(&[("web", spec("a", 2)), ("db", spec("b", 1))]));
    assert_eq!(world.programs(), ["b", "a", "a"]);
    push(&mut world, "two");
    world.answer(Ok(declares(&[("web", spec("a", 2))])));
    world.pass(1_000);
    assert_eq!(world.programs(), ["a", "a"]);
    assert_eq!(world.replica.state().tasks.len(), 2, "the others are forgotten");
}

#[test]
fn a_script_that_throws_changes_nothing_says_why_and_is_tried_again() {
    let mut world = loaded(declares(&[("web", spec("a", 1))]));
    push(&mut world, "two");
    world.answer(Err("ReferenceError: x at cluster.js:3"));
    assert_eq!(world.replica.state().script.error, "ReferenceError: x at cluster.js:3");
    assert_eq!(world.programs(), ["a"]);
    assert_eq!(world.hook(), None);
    world.pass(1_100);
    assert_eq!(world.hook(), Some(Hook::Configure), "after its back-off");
    world.answer(Ok(declares(&[("web", ServiceSpec::default())])));
    assert!(world.replica.state().script.error.contains("`command`"), "{}", world.replica.state().script.error);
    assert_eq!(world.programs(), ["a"], "a declaration is taken whole or not at all");

    let answer = world.ask(Principal::Admin, Op::ModulesRollback);
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    assert_eq!(world.hook(), Some(Hook::Configure));
    world.answer(Ok(declares(&[("web", spec("a", 1))])));
    world.pass(10);
    assert_eq!(world.replica.state().script.error, "");
    let names: Vec<&str> = world.replica.state().events.iter().map(|e| e.name.as_str()).filter(|n| n.starts_with("script")).collect();
    assert_eq!(names, ["script.reloaded", "script.failed", "script.failed"], "the old modules are in force as they were");
}

#[test]
fn a_declaration_that_the_log_cannot_take_is_refused_and_not_run_again_and_again() {
    let mut world = World::new();
    push(&mut world, "one");
    let mut large = declares(&[("web", spec("a", 1))]);
    let keys = (0..8).map(|n| (format!("k{n}"), "x".repeat(60 * 1024)));
    large.declared.as_mut().expect("it declares").keys.extend(keys);
    world.answer(Ok(large));
    let error = world.replica.state().script.error.clone();
    assert!(error.contains("bytes, the most is 262144"), "{error}");
    world.pass(600_000);
    assert_eq!(world.hook(), None, "the same would be refused again");
    push(&mut world, "two");
    world.answer(Ok(declares(&[("web", spec("a", 1))])));
    assert_eq!((world.replica.state().script.error.as_str(), world.programs()), ("", vec!["a"]));
}

#[test]
fn timers_events_and_keys_call_what_was_registered() {
    let kinds = [
        RegistrationKind::Every { interval_ms: 1_000 },
        RegistrationKind::On { event: "task.started".into() },
        RegistrationKind::Key { name: "mode".into() },
    ];
    let mut world = loaded(registering(declares(&[]), &kinds));
    world.pass(500);
    assert_eq!(fired(&world), None);
    world.pass(600);
    assert_eq!(fired(&world), Some((0, "null".into())));
    world.pass(5_000);
    world.answer(Ok(ScriptReport::default()));
    assert_eq!(fired(&world), None, "turns that it missed while it ran are not made up for");
    world.pass(1_000);
    assert_eq!(fired(&world), Some((0, "null".into())));
    world.answer(Ok(ScriptReport::default()));

    world.ask(Principal::Admin, Op::KvSet { key: "mode".into(), value: b"a \"b\"".to_vec() });
    assert_eq!(fired(&world), Some((2, "\"a \\\"b\\\"\"".into())));
    world.answer(Ok(ScriptReport::default()));
    world.set("web", spec("a", 1));
    world.pass(0);
    let mut seen = Vec::new();
    for _ in 0..40 {
        world.pass(100);
        while let Some((number, argument)) = fired(&world) {
            seen.push((number, argument));
            world.answer(Ok(ScriptReport::default()));
        }
    }
    let started = seen.iter().find(|(number, _)| *number == 1).expect("the task was started");
    assert!(started.1.contains("\"name\":\"task.started\"") && started.1.contains("web.1"), "{}", started.1);
}

#[test]
fn a_failing_call_is_shown_until_it_goes_well() {
    let mut world = loaded(registering(declares(&[]), &[RegistrationKind::Every { interval_ms: 500 }]));
    world.pass(600);
    world.answer(Err("TypeError: no"));
    assert_eq!(world.replica.state().script.error, "TypeError: no");
    world.pass(600);
    world.answer(Ok(ScriptReport::default()));
    assert_eq!(world.replica.state().script.error, "");
}

#[test]
fn a_timer_whose_function_fails_rests_longer_each_time_and_others_do_not() {
    let every = RegistrationKind::Every { interval_ms: 100 };
    let mut world = loaded(registering(declares(&[]), &[every.clone(), every]));
    let mut calls = [0, 0];
    for _ in 0..600 {
        world.pass(100);
        while let Some((number, _)) = fired(&world) {
            calls[number as usize] += 1;
            world.answer(if number == 0 { Err("it crashed") } else { Ok(ScriptReport::default()) });
        }
    }
    assert!(calls[0] < 12, "200 ms, 400 ms … a minute: {calls:?}");
    assert!(calls[1] > 500, "{calls:?}");
}

#[test]
fn a_timer_that_was_stopped_does_not_come_again_before_the_next_configure() {
    let mut world = loaded(registering(declares(&[]), &[RegistrationKind::Every { interval_ms: 500 }]));
    world.pass(600);
    assert_eq!(fired(&world), Some((0, "null".into())));
    world.answer(Ok(ScriptReport { stopped: vec![0, 7], ..ScriptReport::default() }));
    world.pass(60_000);
    assert_eq!(world.hook(), None);
}

#[test]
fn options_of_the_script_win_over_those_set_before() {
    let mut world = World::new();
    let change = |managers| SettingsChange { managers: Some(managers), max_nodes: Some(9), ..SettingsChange::default() };
    let answer = world.ask(Principal::Admin, Op::Configure(change(3)));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    let report = |managers| {
        let mut report = declares(&[]);
        report.declared.as_mut().expect("just made").settings = SettingsChange { managers: Some(managers), ..SettingsChange::default() };
        report
    };
    let ticket = world.send(Request::Plan { modules: Some(modules("one")) });
    world.answer(Ok(report(5)));
    let Some(Answer::Planned { changes, .. }) = world.answers.remove(&ticket) else { panic!("it is answered") };
    let first = PlannedChange { sign: '~', subject: "cluster".into(), detail: "managers 3 -> 5".into() };
    assert_eq!(changes.first(), Some(&first));

    push(&mut world, "one");
    world.answer(Ok(report(5)));
    world.pass(10);
    let settings = |world: &World| world.replica.state().settings.clone();
    assert_eq!((settings(&world).managers, settings(&world).max_nodes), (5, 9), "what it does not say stays");
    push(&mut world, "two");
    world.answer(Ok(report(4)));
    assert_eq!(settings(&world).managers, 5);
    assert!(world.replica.state().script.error.contains("managers is 1, 3, 5 or 7"), "{}", world.replica.state().script.error);
}

#[test]
fn a_plan_shows_each_difference_and_changes_nothing() {
    let mut world = loaded(declares(&[("web", spec("a", 2)), ("db", spec("b", 1))]));
    let before = world.replica.state().services.clone();
    let ticket = world.send(Request::Plan { modules: Some(modules("two")) });
    assert_eq!(world.hook(), Some(Hook::Configure));
    let mut changed = spec("a2", 3);
    changed.env.insert("MODE".into(), "x".into());
    changed.memory = Some(64 << 20);
    let mut report = declares(&[("web", changed), ("cron", spec("c", 1))]);
    report.declared.as_mut().expect("just made").keys.insert("greeting".into(), "hi".into());
    world.answer(Ok(report));
    let Some(Answer::Planned { changes, error }) = world.answers.remove(&ticket) else { panic!("it is answered") };
    assert_eq!(error, "");
    let line = |sign, subject: &str, detail: &str| PlannedChange { sign, subject: subject.into(), detail: detail.into() };
    let expected = [
        line('+', "service cron", "1 of `c`"),
        line('~', "service web", "replicas 2 -> 3, command a -> a2, memory none -> 64 MiB, +env.MODE x"),
        line('-', "service db", "1 task stops"),
        line('~', "key greeting", "hello -> hi"),
    ];
    assert_eq!(changes, expected);
    assert_eq!(world.replica.state().services, before);

    let ticket = world.send(Request::Plan { modules: Some(modules("three")) });
    world.answer(Err("SyntaxError at cluster.js:1"));
    assert!(matches!(world.answers.remove(&ticket), Some(Answer::Planned { error, .. }) if error.contains("SyntaxError")));
    let ticket = world.send(Request::Plan { modules: Some(BTreeMap::new()) });
    assert!(matches!(world.answers.remove(&ticket), Some(Answer::Refused { why, .. }) if why.contains("cluster.js")));
}

#[test]
fn what_people_ask_does_not_wait_for_a_hook_that_waits() {
    let mut world = loaded(registering(declares(&[]), &[RegistrationKind::Every { interval_ms: 500 }]));
    world.pass(600);
    assert_eq!(fired(&world), Some((0, "null".into())));
    world.calls.pop_front().expect("it was called, and takes its time");
    let first = world.send(Request::Eval { expression: "1".into() });
    let second = world.send(Request::Plan { modules: Some(modules("two")) });
    assert_eq!(world.hook(), Some(Hook::Eval { expression: "1".into() }));
    assert_eq!(world.calls.len(), 1, "one after the other");
    world.answer(Ok(ScriptReport { value: "one".into(), ..ScriptReport::default() }));
    assert!(matches!(world.answers.remove(&first), Some(Answer::Evaluated { value, .. }) if value == "one"));
    assert_eq!(world.hook(), Some(Hook::Configure));
    world.answer(Ok(declares(&[])));
    assert!(matches!(world.answers.remove(&second), Some(Answer::Planned { .. })));
    world.pass(5_000);
    assert_eq!(world.hook(), None, "the hook is not over yet");
}

#[test]
fn an_expression_is_evaluated() {
    let mut world = loaded(declares(&[]));
    let ticket = world.send(Request::Eval { expression: "1+1".into() });
    assert_eq!(world.hook(), Some(Hook::Eval { expression: "1+1".into() }));
    world.answer(Ok(ScriptReport { value: "2".into(), ..ScriptReport::default() }));
    assert!(matches!(world.answers.remove(&ticket), Some(Answer::Evaluated { value, .. }) if value == "2"));
}
