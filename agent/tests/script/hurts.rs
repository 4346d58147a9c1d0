//! Scripts that would hurt: each is stopped, named, and the next one runs.

use std::time::{Duration, Instant};

use agent::drivers::script::{Arg, Limits, ScriptHost, ScriptOptions};
use serde_json::json;

use crate::desk::{Desk, body, bootstrap, children, is_dead, memory, options, returns, seen, wait_until};

/// So that a loop need not be waited for ten seconds.
fn impatient() -> Limits {
    Limits { busy: Duration::from_millis(700), ..Limits::default() }
}

/// So that memory is what runs out, on a machine that has little time for scripts too.
fn patient() -> Limits {
    Limits { busy: Duration::from_secs(600), total: Duration::from_secs(600), ..Limits::default() }
}

/// The error of a client.js within these limits; afterwards a new script runs fine.
#[track_caller]
fn seen_within(limits: Limits, source: &str) -> String {
    let options = ScriptOptions { limits, ..options(memory(&[("client.js", source)])) };
    let error = smol::block_on(bootstrap(options, &Desk::default())).expect_err(source).to_string();
    assert_eq!(returns("return 6 * 7"), json!(42), "the next script runs fine");
    error
}

#[test]
fn endless_loops_of_every_kind_are_stopped() {
    let table = [
        "for (;;) {}",
        "function g() { for (let i = 0; i < 1000; i++); } for (;;) g();",
        "try { for (;;) {} } catch {} finally { for (;;) {} }",
        "return /(a+)+$/.test('a'.repeat(40) + 'b');",
        "for (;;) await null;",
        "for (;;) console.log('spam');",
    ];
    for statements in table {
        let error = seen_within(impatient(), &body(statements));
        assert_eq!(
            error, "client.js: bootstrap() ran for 700 ms without a pause and was stopped (is there an endless loop?)",
            "{statements}"
        );
    }
    assert_eq!(
        seen_within(impatient(), "for (;;) {}"),
        "client.js ran for 700 ms without a pause and was stopped (is there an endless loop?)"
    );
}

#[test]
fn a_loop_that_pauses_is_stopped_by_the_sum() {
    let limits = Limits { total: Duration::from_millis(500), ..Limits::default() };
    let source = body("for (;;) { const end = Date.now() + 50; while (Date.now() < end); await delay(0); }");
    let error = seen_within(limits, &source);
    assert_eq!(error, "client.js: bootstrap() ran for 500 ms in all, waiting not counted, and was stopped");
}

#[test]
fn init_has_a_deadline_and_bootstrap_has_none() {
    let source =
        "export async function init() { await delay(600000); } export async function bootstrap() { return await delay(2000) > 0; }";
    let mut options = options(memory(&[("client.js", source)]));
    // Loading has the same bound.
    options.limits.init = Duration::from_millis(1500);
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        let error = host.call("init", Vec::new(), &desk).await.expect_err("too long").to_string();
        assert_eq!(error, "client.js: init() did not finish within 1500 ms and was stopped");
        assert_eq!(host.call("bootstrap", Vec::new(), &desk).await.expect("waiting is no crime"), json!(true));
    });
}

#[test]
fn too_much_memory_is_stopped_and_said() {
    let table = [
        "const s = 'x'.repeat(2 ** 31); return s.length;",
        "const s = 'x'.repeat(2 ** 29); return s.length;",
        "const a = new Array(3e7).fill(0); return a.length;",
        "let s = 'x'; for (;;) s += s;",
        "const a = []; for (;;) a.push({ a });",
        // Each promise of this chain waits for the next one, so it is a leak as well.
        "const f = () => Promise.resolve().then(f); await f();",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, 'x'.repeat(1000) + i);",
    ];
    for statements in table {
        let error = seen_within(patient(), &body(statements));
        assert_eq!(error, "client.js: bootstrap() used more than 64 MiB of memory and was stopped", "{statements}");
    }
    let buffer = seen_within(Limits::default(), &body("new ArrayBuffer(2e9)"));
    assert!(buffer.contains("RangeError"), "{buffer}");
    let deep = seen_within(Limits::default(), &body("eval('('.repeat(100000) + ')'.repeat(100000))"));
    assert!(deep.contains("nested too deeply"), "{deep}");
    // And 40 MiB are fine.
    assert_eq!(returns("return 'x'.repeat(1024).repeat(40 * 1024).length"), json!(40 * 1024 * 1024));
}

#[test]
fn ten_thousand_lines_a_second_become_two_hundred_and_a_count() {
    let began = Instant::now();
    let (result, desk) = seen(&body("for (let i = 0; i < 10000; i++) console.log(`line ${i}`);"));
    result.expect("it runs");
    let lines = desk.lines();
    let dropped: u64 = lines
        .iter()
        .filter_map(|line| line.strip_prefix("warn: … ")?.strip_suffix(" lines dropped")?.replace(',', "").parse::<u64>().ok())
        .sum();
    let shown = lines.iter().filter(|line| line.starts_with("log: line ")).count();
    assert_eq!(shown as u64 + dropped, 10_000);
    // How many seconds it took is the machine's affair: two hundred for each that began.
    let most = 200 * (began.elapsed().as_secs() as usize + 1);
    assert!((200..=most).contains(&shown), "{shown} of at most {most}");
}

#[test]
fn an_executor_killed_from_outside_is_named_and_the_next_one_runs() {
    let source = "export async function bootstrap(wait) { if (wait) await new Promise(r => setTimeout(r, 600000)); return 'done'; }";
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options(memory(&[("client.js", source)]))).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        let pid = host.pid().expect("it runs");
        let kill = async {
            agent::drivers::syscall::signal_group(pid, agent::drivers::syscall::SIGKILL).expect("killed");
            futures_lite::future::pending().await
        };
        let error = futures_lite::future::or(host.call("bootstrap", vec![Arg::Json(json!(true))], &desk), kill)
            .await
            .expect_err("killed")
            .to_string();
        assert_eq!(error, "client.js: bootstrap(): the script executor was killed by somebody else (signal 9)");
        assert_eq!(host.call("bootstrap", vec![Arg::Json(json!(false))], &desk).await.expect("a new one"), json!("done"));
        // A call that is given up half-way does not confuse the next one.
        let given_up = async {
            futures_lite::future::yield_now().await;
            Ok(json!("given up"))
        };
        let first =
            futures_lite::future::or(host.call("bootstrap", vec![Arg::Json(json!(true))], &desk), given_up).await.expect("given up");
        assert_eq!(first, json!("given up"));
        assert_eq!(host.call("bootstrap", vec![Arg::Json(json!(false))], &desk).await.expect("a new one"), json!("done"));
    });
}

#[test]
fn the_executor_and_its_programs_end_with_their_parent() {
    // This test runs itself again as the parent that will be killed.
    if std::env::var_os("SCRIPT_TEST_PARENT").is_some() {
        let source = "export async function bootstrap() { run('sleep', ['600']); console.log('started'); for (;;) {} }";
        let mut options = options(memory(&[("client.js", source)]));
        options.limits = Limits { busy: Duration::from_secs(600), total: Duration::from_secs(600), ..Limits::default() };
        smol::block_on(bootstrap(options, &Desk::default())).expect("killed before");
        return;
    }
    let name = "hurts::the_executor_and_its_programs_end_with_their_parent";
    let parent = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args([name, "--exact", "--nocapture"])
        .env("SCRIPT_TEST_PARENT", "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let mut parent = Killed(parent);
    let family = || {
        let executor = *children(parent.0.id()).first()?;
        let program = *children(executor).first()?;
        // Until it executes `sleep` it is a copy of the executor.
        std::fs::read_to_string(format!("/proc/{program}/comm")).is_ok_and(|comm| comm.trim() == "sleep").then_some([executor, program])
    };
    wait_until(|| family().is_some());
    let family = family().expect("just seen");
    parent.end();
    wait_until(|| family.iter().all(|pid| is_dead(*pid)));
}

/// Ends a process also when the test fails.
struct Killed(std::process::Child);

impl Killed {
    fn end(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}
