//! Scripts that are wrong or would hurt: what the person sees, that nothing changes, and that the node answers on.

use crate::{
    common::{BOUND, Daemon, until},
    rig::{eval, executors, leader, load, plan, push, script, status_kb, until_key, until_runs},
};
use proto::v1;
use std::time::{Duration, Instant};

/// Long enough for the executor's own bounds (10 s without a pause).
const PATIENCE: Duration = Duration::from_secs(45);

fn until_error(node: &Daemon, words: &str) -> v1::Status {
    until(&format!("an error with `{words}`; the log: {}", node.log()), PATIENCE, || {
        node.status().ok().filter(|status| status.script_error.contains(words))
    })
}

#[test]
fn a_script_that_throws_is_shown_with_its_line_and_changes_nothing() {
    let node = leader();
    load(&node, &script("export function configure(cluster) { cluster.service('web', { command: ['sleep', '1000'] }); }"));
    let before = until_runs(&node, "web", 1);
    let table = [
        (
            "export function configure(cluster) {\n  cluster.key('new').set('x');\n  nonsense();\n}",
            "cluster.js:4:3: in configure(): ReferenceError: nonsense is not defined",
        ),
        (
            "export function configure(cluster) { cluster.service('web', { comand: ['x'] }); }",
            "in configure(): TypeError: service `web`: the spec has no field `comand`",
        ),
        ("const x = = 1;", "SyntaxError: cluster.js:2:11: unexpected token '='"),
        ("import './lib.js';", "there is no module lib.js"),
        ("export function configure(cluster) { cluster.service('w b', { command: ['x'] }); }", "a service's name has 1 to 64 letters"),
    ];
    for (rest, words) in table {
        let source = script(rest);
        let planned = plan(&node, &source);
        push(&node, &source);
        let status = until_error(&node, words);
        assert!(planned.error.contains(words), "{}", planned.error);
        let event = status.events.iter().rev().find(|event| event.name == "script.failed").expect("people are told");
        assert!(words.starts_with(&event.text) || event.text.contains(words), "{}", event.text);
        assert_eq!(node.value("new").expect("it leads"), None);
        assert_eq!(until_runs(&node, "web", 1).tasks[0].pid, before.tasks[0].pid);
        assert!(status.script_applied < status.script_version);
    }
    node.write(v1::write_request::Op::ModulesPut(v1::ModulesPut {
        files: [("cluster.js".to_owned(), script("").replace("\"test\"", "\"other\""))].into(),
    }))
    .expect("it leads");
    until_error(&node, "cluster.js: init() returned the cluster `other`, but this one is `test`");
}

#[test]
fn a_script_that_would_hurt_is_stopped_and_named_while_the_node_answers() {
    let node = leader();
    load(&node, &script(""));
    let before = status_kb(node.pid(), "VmRSS");
    let table = [
        (
            "every('100ms', () => { for (;;); });",
            "cluster.js: every(100 ms) ran for 10 s without a pause and was stopped (is there an endless loop?)",
        ),
        (
            "every('100ms', () => { const a = []; for (;;) a.push('x'.repeat(1e6)); });",
            "cluster.js: every(100 ms) used more than 64 MiB of memory and was stopped",
        ),
        ("every('100ms', async () => { await fetch('http://127.0.0.1:1/'); });", "in every(100 ms): Error: "),
        ("const f = () => f() + f(); every('100ms', f);", "maximum number of recursive calls"),
    ];
    for (rest, words) in table {
        push(&node, &script(rest));
        let deadline = Instant::now() + PATIENCE;
        let mut slowest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let status = node.status().expect("it answers all the time");
            slowest = slowest.max(asked.elapsed());
            if status.script_error.contains(words) {
                break;
            }
            assert!(Instant::now() < deadline, "not in time: {words}; last: {}", status.script_error);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?}: {rest}");
    }
    load(&node, &script(""));
    let after = status_kb(node.pid(), "VmRSS");
    assert!(after < before + 3 * 1024, "RSS went from {before} to {after} KiB");
}

#[test]
fn a_flood_of_words_and_writes_is_bounded() {
    let node = leader();
    let source = script(
        r#"
        export async function leader(cluster) {
          try { for (let i = 0; i < 10000; i++) cluster.key(`k${i}`).set("x"); } catch (e) { await cluster.key("said").set(e.message).catch((e) => console.log(e.message)); }
        }
        every("100ms", () => { for (let i = 0; i < 10000; i++) console.log("spam", i); });
        "#,
    );
    load(&node, &source);
    node.until_it_says("256 others still wait for their result");
    node.until_it_says("lines swallowed: too many at once");
    // The executor cuts to 200 lines a second, the log of this node to 20; what was saved up in a pause comes at once.
    let shown = || node.log().matches("spam").count();
    let (lines, began) = (shown(), Instant::now());
    until("it goes on", PATIENCE, || (shown() >= lines + 80).then_some(()));
    assert!(began.elapsed() > Duration::from_secs(2), "80 lines in {:?}", began.elapsed());
    assert!(node.set("k", "v").is_ok(), "it goes on");
}

#[test]
fn a_crashing_timer_rests_and_an_expression_is_evaluated_meanwhile() {
    let node = leader();
    // `run` is the way to kill oneself: the executor's parent is what `kill` would hit, so its group is.
    let source = script("every('100ms', async () => { await run('sh', ['-c', 'kill -ABRT $PPID']); await delay(10000); });");
    load(&node, &source);
    until_error(&node, "the script executor broke down");
    let crashes = || node.log().matches("broke down").count();
    let began = Instant::now();
    until("it crashed a few times", PATIENCE, || (crashes() >= 4).then_some(()));
    assert!(began.elapsed() > Duration::from_millis(1_000), "back-off: {:?}", began.elapsed());
    let reply = eval(&node, "6 * 7");
    assert_eq!((reply.value.as_str(), reply.error.as_str()), ("42", ""));
    load(&node, &script("export function configure(cluster) { cluster.key('well').set('yes'); }"));
    until_key(&node, "well", "yes");
    until("nothing is left", BOUND, || executors(&node).is_empty().then_some(()));
}
