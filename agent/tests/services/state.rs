//! What the replicated state lets happen to services, tasks and scripts, command by command.

use crate::cluster::{Cluster, spec};
use agent::logic::state::{Outcome, State};
use agent::model::{
    command::{Command, Proposal},
    ids::NodeId,
    limits::{MODULE_SETS_KEPT, SCRIPT_MODULES_MAX, SCRIPT_SOURCE_BYTES_MAX, SERVICES_MAX},
    script::Declaration,
    service::{Replicas, ServiceSpec},
    task::{TaskNumber, TaskSeen, TaskState},
};
use std::collections::BTreeMap;

fn code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Refused { code, .. } => code,
        _ => "ok",
    }
}

fn modules(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("cluster.js".to_string(), text.to_string())])
}

fn declare(cluster: &mut Cluster, services: &[(&str, ServiceSpec)]) -> Outcome {
    let services = services.iter().map(|(name, spec)| (name.to_string(), spec.clone())).collect();
    let version = cluster.state.script.version;
    cluster.apply(Command::Declare { version, declaration: Box::new(Declaration { services, ..Declaration::default() }) })
}

#[test]
fn a_fenced_command_of_another_term_is_void() {
    let mut cluster = Cluster::new(1);
    let mut write = |fence, term| {
        cluster.index += 1;
        let command = Command::KvSet { key: "k".into(), value: vec![1] };
        cluster.state.apply(cluster.index, term, Proposal { stamp_ms: 1, term, request: None, command, fence }).1
    };
    assert_eq!(code(&write(Some(4), 5)), "stale");
    assert_eq!(code(&write(Some(5), 5)), "ok");
    assert_eq!(code(&write(None, 5)), "ok");
}

#[test]
fn changes_by_hand_last_until_the_next_apply_even_of_the_same_modules() {
    let mut cluster = Cluster::new(1);
    cluster.apply(Command::ModulesPut(modules("one")));
    assert_eq!(declare(&mut cluster, &[("web", spec("a", 2))]), Outcome::Done);
    cluster.apply(Command::ServiceScale { name: "web".into(), replicas: 5 });
    declare(&mut cluster, &[("web", spec("a", 2))]);
    assert_eq!(cluster.state.desired(cluster.service("web")), 5, "the same output changes nothing");

    let sets = cluster.state.script.sets.len();
    cluster.apply(Command::ModulesPut(modules("one")));
    assert_eq!(cluster.state.script.sets.len(), sets, "the same modules are no step to go back to");
    declare(&mut cluster, &[("web", spec("a", 2))]);
    assert_eq!(cluster.state.desired(cluster.service("web")), 2);
    assert_eq!(cluster.service("web").version, 1);

    declare(&mut cluster, &[("db", spec("b", 1))]);
    assert_eq!(cluster.state.services.keys().collect::<Vec<_>>(), ["db"], "what is no longer declared goes");
}

#[test]
fn a_declaration_of_other_modules_or_with_one_bad_service_changes_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.apply(Command::ModulesPut(modules("one")));
    let old = cluster.state.script.version;
    cluster.apply(Command::ModulesPut(modules("two")));
    let stale = cluster.apply(Command::Declare { version: old, declaration: Box::default() });
    assert_eq!(code(&stale), "stale");

    let before = cluster.state.clone();
    let mut long = spec("a", 1);
    long.env.insert("X".into(), "x".repeat(20_000));
    for (name, bad) in [("web", ServiceSpec::default()), ("no spaces", spec("a", 1)), ("web", spec("a", 5_000)), ("web", long)] {
        let outcome = declare(&mut cluster, &[("good", spec("a", 1)), (name, bad)]);
        let Outcome::Refused { code: "invalid", why } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains(name), "{why}");
    }
    let keys = BTreeMap::from([("k".to_string(), "x".repeat(70_000))]);
    let version = cluster.state.script.version;
    let outcome = cluster.apply(Command::Declare { version, declaration: Box::new(Declaration { keys, ..Declaration::default() }) });
    assert_eq!(code(&outcome), "invalid");
    assert_eq!(cluster.state.services, before.services);
    assert_eq!((&cluster.state.kv, &cluster.state.script), (&before.kv, &before.script));
}

#[test]
fn modules_are_bounded_kept_five_times_and_gone_back_through() {
    let mut cluster = Cluster::new(1);
    assert_eq!(code(&cluster.apply(Command::ModulesPut(BTreeMap::new()))), "invalid");
    let many = (0..=SCRIPT_MODULES_MAX).map(|n| (format!("m{n}.js"), String::new())).chain(modules(""));
    assert_eq!(code(&cluster.apply(Command::ModulesPut(many.collect()))), "limit");
    assert_eq!(code(&cluster.apply(Command::ModulesPut(modules(&"x".repeat(SCRIPT_SOURCE_BYTES_MAX))))), "limit");
    assert_eq!(code(&cluster.apply(Command::ModulesRollback)), "not_found");
    for n in 0..8 {
        cluster.apply(Command::ModulesPut(modules(&n.to_string())));
    }
    assert_eq!(cluster.state.script.sets.len(), MODULE_SETS_KEPT);
    let text = |cluster: &Cluster| cluster.state.script.current().expect("one is in force").files["cluster.js"].clone();
    for expected in ["6", "5", "4", "3"] {
        assert_eq!(cluster.apply(Command::ModulesRollback), Outcome::Done);
        assert_eq!(text(&cluster), expected);
    }
    assert_eq!(code(&cluster.apply(Command::ModulesRollback)), "not_found");
}

#[test]
fn services_are_bounded_and_commands_name_what_is_not_there() {
    let mut cluster = Cluster::new(1);
    for n in 0..SERVICES_MAX {
        cluster.set(&format!("s{n}"), spec("a", 0));
    }
    assert_eq!(code(&cluster.apply(Command::ServiceSet { name: "more".into(), spec: Box::new(spec("a", 1)) })), "limit");
    cluster.set("s0", ServiceSpec { replicas: Replicas::EveryNode, ..spec("a", 0) });
    let cases = [
        (Command::ServiceScale { name: "none".into(), replicas: 1 }, "not_found"),
        (Command::ServiceScale { name: "s0".into(), replicas: 1 }, "invalid"),
        (Command::ServiceScale { name: "s1".into(), replicas: 100_000 }, "limit"),
        (Command::ServiceRestart("none".into()), "not_found"),
        (Command::ServiceRollback("s1".into()), "not_found"),
        (Command::ServiceRemove("none".into()), "not_found"),
        (Command::TaskPlace { service: "s1".into(), version: 9, node: NodeId(1) }, "stale"),
        (Command::TaskPlace { service: "s1".into(), version: 1, node: NodeId(9) }, "not_found"),
        (Command::TaskStop(TaskNumber(9)), "not_found"),
        (Command::TaskForget(TaskNumber(9)), "not_found"),
        (Command::NodeDrain { node: NodeId(9), drain: true }, "not_found"),
    ];
    for (command, expected) in cases {
        assert_eq!(code(&cluster.apply(command.clone())), expected, "{command:?}");
    }
}

#[test]
fn a_node_speaks_of_its_own_tasks_only_and_ends_are_events() {
    let mut cluster = Cluster::new(2);
    cluster.set("web", spec("a", 1));
    cluster.rest();
    let number = TaskNumber(1);
    let seen =
        |state, restarts| TaskSeen { number, state, exit: None, error: "exit code 7".into(), ports: BTreeMap::new(), restarts, pid: 0 };
    cluster.apply(Command::TaskSeen { node: NodeId(2), tasks: vec![seen(TaskState::Failed, 0)] });
    assert_eq!(cluster.state.tasks[&number].seen.state, TaskState::Running);
    assert_eq!(code(&cluster.apply(Command::TaskForget(number))), "stale", "it runs");
    cluster.apply(Command::TaskSeen { node: NodeId(1), tasks: vec![seen(TaskState::Starting, 1)] });
    cluster.nodes_obey();
    let of = |e: &&agent::model::event::Event| e.name.starts_with("task.") || e.name.starts_with("service.");
    let events: Vec<String> = cluster.state.events.iter().filter(of).map(|e| format!("{} {}", e.name, e.subject)).collect();
    let expected = [
        "service.updated web",
        "task.started web.1",
        "service.healthy web",
        "service.updated web",
        "task.exited web.1",
        "service.degraded web",
        "task.started web.1",
        "service.healthy web",
    ];
    assert_eq!(events, expected);
}

/// Fields of the state when there were no services.
const BEFORE_SERVICES: u64 = 22;

/// The state's first fields, as the build before services wrote them.
#[test]
fn a_snapshot_from_before_services_is_read_and_one_with_them_comes_back_the_same() {
    let mut cluster = Cluster::new(2);
    let whole = cluster.state.encode();
    // A version byte, then an array whose later items came with services and after; an old snapshot ends before them.
    let mut items = minicbor::Decoder::new(&whole[1..]);
    let count = items.array().expect("it is an array").expect("of a known length");
    assert!(count > BEFORE_SERVICES, "{count} items");
    let first = 1 + items.position();
    (0..BEFORE_SERVICES).for_each(|_| items.skip().expect("an item"));
    let mut old = vec![1, 0x80 | BEFORE_SERVICES as u8];
    old.extend_from_slice(&whole[first..1 + items.position()]);
    assert_eq!(State::decode(&old).as_ref(), Ok(&cluster.state));

    cluster.apply(Command::ModulesPut(modules("one")));
    declare(&mut cluster, &[("web", spec("a", 2))]);
    cluster.rest();
    let decoded = State::decode(&cluster.state.encode()).expect("it was just written");
    assert_eq!((decoded.digest(), &decoded), (cluster.state.digest(), &cluster.state));
}
