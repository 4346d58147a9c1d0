//! Lines and what they mean.

use super::*;
use agent::model::instance::InstanceDesired;
use agent::model::node::Role;

fn read(line: &str) -> Result<Invocation, Failure> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn each_line_means_its_command() {
    let table = [
        ("bootstrap --yes", Command::Bootstrap { yes: true }),
        ("status", Command::Status { watch: false, stale: false }),
        ("status --watch --stale", Command::Status { watch: true, stale: true }),
        ("scale 3", Command::Scale(3)),
        ("node ls", Command::NodeLs { stale: false }),
        ("node inspect n1", Command::NodeInspect { node: "n1".into(), stale: false }),
        ("node rm n1", Command::NodeRm { node: "n1".into(), yes: false }),
        ("instance stop i-2", Command::InstanceSet { id: "i-2".into(), desired: InstanceDesired::Stopped, yes: false }),
        ("instance start i-2", Command::InstanceSet { id: "i-2".into(), desired: InstanceDesired::Running, yes: false }),
        ("instance terminate i-2", Command::InstanceSet { id: "i-2".into(), desired: InstanceDesired::Terminated, yes: false }),
        ("token create --role worker", Command::TokenCreate { role: Role::Worker, ttl_ms: 3_600_000, uses: 1 }),
        ("token create --role=manager --ttl 7d --uses 3", Command::TokenCreate { role: Role::Manager, ttl_ms: 604_800_000, uses: 3 }),
        ("kv get a/b --stale", Command::KvGet { key: "a/b".into(), raw: false, stale: true }),
        ("kv set a -- --dashed", Command::KvSet { key: "a".into(), value: Some("--dashed".into()) }),
        ("kv set a -", Command::KvSet { key: "a".into(), value: None }),
        ("kv ls", Command::KvLs { prefix: String::new(), stale: false }),
        ("events -f", Command::Events { follow: true, stale: false }),
        ("plan", Command::Plan),
        ("apply", Command::Apply { yes: false, rollback: false, wait: true }),
        ("apply --yes --rollback --no-wait", Command::Apply { yes: true, rollback: true, wait: false }),
        ("service ls", Command::ServiceLs { stale: false }),
        ("service inspect web", Command::ServiceInspect { name: "web".into(), stale: false }),
        ("service scale web 5", Command::ServiceScale { name: "web".into(), replicas: 5, wait: true }),
        ("service restart web --no-wait", Command::ServiceRestart { name: "web".into(), wait: false }),
        ("service rollback web", Command::ServiceRollback { name: "web".into(), wait: true }),
        ("service rm web", Command::ServiceRm { name: "web".into(), yes: false }),
        ("logs web", Command::Logs { service: "web".into(), task: None, follow: false, since_ms: None, tail: None }),
        (
            "logs -f web --since 5m --task web.3 --tail 10",
            Command::Logs { service: "web".into(), task: Some("web.3".into()), follow: true, since_ms: Some(300_000), tail: Some(10) },
        ),
        ("eval cluster.name", Command::Eval("cluster.name".into())),
        ("repl", Command::Repl),
        ("node drain n1", Command::NodeDrain { node: "n1".into(), off: false, wait: true }),
        ("init --image", Command::Init { image: true, provider: "local".into() }),
        ("ca issue /home/b/lab", Command::CaIssue { folder: "/home/b/lab".into() }),
        ("ca rotate --force --yes", Command::CaRotate { force: true, wait_ms: 60_000, yes: true }),
        ("ca rotate --wait 5s", Command::CaRotate { force: false, wait_ms: 5_000, yes: false }),
        ("token rotate t1", Command::TokenRotate("t1".into())),
        ("node promote n1", Command::NodePrefer { node: "n1".into(), role: Role::Manager }),
        ("node demote n1", Command::NodePrefer { node: "n1".into(), role: Role::Worker }),
        ("node drain n1 --off", Command::NodeDrain { node: "n1".into(), off: true, wait: true }),
        ("destroy", Command::Destroy { yes: false }),
        ("completions zsh", Command::Completions(Shell::Zsh)),
        ("--version", Command::Version),
        ("", Command::Help(vec![])),
        ("node", Command::Help(vec!["node".into()])),
        ("node ls --help", Command::Help(vec!["node".into(), "ls".into()])),
        ("help kv", Command::Help(vec!["kv".into()])),
    ];
    for (line, command) in table {
        assert_eq!(read(line).map(|i| i.command), Ok(command), "{line}");
    }
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in ["--dir d --json status", "status --json --dir d", "status --dir=d --json"] {
        assert_eq!(read(line).unwrap().global, Global { dir: Some("d".into()), json: true, ..Global::default() }, "{line}");
    }
}

#[test]
fn what_has_no_place_is_named_with_the_nearest_that_has() {
    let table = [
        ("stauts", "there is no command `stauts`", "did you mean `disco status`?"),
        ("node list", "there is no command `node list`", "did you mean `disco node ls`?"),
        ("frobnicate", "there is no command `frobnicate`", "see `disco --help`"),
        ("status --wach", "`disco status` has no flag `--wach`", "did you mean `--watch`?"),
        ("scale", "`disco scale` needs N", "usage: disco scale N"),
        ("scale 3 4", "`4` has no place in `disco scale`", "usage: disco scale N"),
        ("scale many", "`many` is not a number of nodes", "give a whole number from 1 to 64"),
        ("service scale web many", "`many` is not a number of tasks", "give a whole number from 0 to 1024"),
        ("service scale web", "`disco service scale` needs N", "usage: disco service scale SERVICE N [--no-wait]"),
        ("logs web --since 5", "`5` is not a duration", "write it as 250ms, 30s, 5m, 1h or 7d"),
        ("logs web --since soon", "`soon` is not a duration", "write it as 250ms, 30s, 5m, 1h or 7d"),
        ("logs web --tail 0", "`0` is not a number of lines", "give a whole number from 1 on"),
        ("services", "there is no command `services`", "did you mean `disco service ls`?"),
        ("token create --role king", "`--role` cannot be `king`", "it is one of: manager, worker"),
        ("token create", "`disco token create` needs --role", "it is one of: manager, worker"),
        ("token create --role worker --ttl soon", "`soon` is not a duration", "write it as 250ms, 30s, 5m, 1h or 7d"),
    ];
    for (line, what, hint) in table {
        let failure = read(line).expect_err(line);
        assert_eq!(failure, Failure::broke(what).hint(hint), "{line}");
    }
}
