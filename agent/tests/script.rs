//! Scripts as people write them, good and bad, against the real executor process: what does the person see, and
//! does the next script run fine?

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    pin::Pin,
    time::{Duration, Instant},
};

use agent::drivers::script::{Arg, HostOps, Limits, Modules, ScriptError, ScriptHost, ScriptOptions};
use serde_json::{Value, json};

/// A host that answers everything at once and remembers what it was asked.
#[derive(Default)]
struct Desk {
    asked: RefCell<Vec<(String, Value)>>,
    console: RefCell<Vec<String>>,
}

impl HostOps for Desk {
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        self.asked.borrow_mut().push((op.to_owned(), args));
        Box::pin(async move {
            match op {
                "cluster.healthy" => Ok(json!(false)),
                "cluster.start_instance" => {
                    Ok(json!({ "id": "i-1", "address": "127.64.0.1:5080", "private_address": "127.64.0.1:5080", "state": "running" }))
                }
                "cluster.attach_ip" => Ok(json!("127.64.0.1")),
                "cluster.nodes" => Ok(json!([{ "id": "n1", "name": "one" }])),
                "cluster.never" => futures_lite::future::pending().await,
                "ask" => Ok(json!(true)),
                "key.get" => Ok(json!("value")),
                "cluster.destroy" => Err("the cluster is locked".to_owned()),
                _ => Ok(Value::Null),
            }
        })
    }

    fn console(&self, level: &str, text: &str) {
        self.console.borrow_mut().push(format!("{level}: {text}"));
    }
}

impl Desk {
    fn operations(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|(op, _)| op.clone()).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.console.borrow().clone()
    }
}

fn options(modules: Modules) -> ScriptOptions {
    ScriptOptions { exe: PathBuf::from(env!("CARGO_BIN_EXE_discod")), ..ScriptOptions::new(modules) }
}

fn memory(files: &[(&str, &str)]) -> Modules {
    Modules::Memory(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

fn impatient(files: &[(&str, &str)]) -> ScriptOptions {
    let mut options = options(memory(files));
    options.limits = Limits { busy: Duration::from_millis(700), ..Limits::default() };
    options
}

/// Loads client.js and calls `bootstrap()`.
async fn bootstrap(options: ScriptOptions, desk: &Desk) -> Result<Value, ScriptError> {
    let mut host = ScriptHost::start(options).await?;
    host.load("client.js", desk).await?;
    host.call("bootstrap", Vec::new(), desk).await
}

/// What a person sees of a client.js that is just this.
fn seen(source: &str) -> (Result<Value, String>, Desk) {
    let desk = Desk::default();
    let result = smol::block_on(bootstrap(impatient(&[("client.js", source)]), &desk));
    (result.map_err(|e| e.to_string()), desk)
}

fn body(statements: &str) -> String {
    format!("export async function bootstrap() {{\n  {statements}\n}}\n")
}

#[track_caller]
fn returns(statements: &str) -> Value {
    seen(&body(statements)).0.expect("it runs")
}

#[track_caller]
fn fails(source: &str) -> String {
    let error = seen(source).0.expect_err("it must fail");
    assert_eq!(returns("return 6 * 7"), json!(42), "the next script runs fine");
    error
}

// ---- what works

#[test]
fn the_example_bootstraps_with_the_steps_it_names() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/examples/local");
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options(Modules::Folder(folder))).await.expect("starts");
        let exports = host.load("client.js", &desk).await.expect("loads");
        assert!(exports.has("init") && exports.has("bootstrap") && !exports.has("configure"));
        let cluster = host.call("init", Vec::new(), &desk).await.expect("init");
        assert_eq!(cluster, json!({ "name": "example", "provider": { "kind": "local", "name": "local" } }));
        host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("bootstrap");
        assert_eq!(
            desk.operations(),
            ["cluster.healthy", "cluster.start_instance", "cluster.attach_ip", "cluster.ssh_install", "cluster.scale"]
        );
        let (_, scale) = desk.asked.borrow().last().cloned().expect("asked");
        assert_eq!(scale, json!({ "cluster": cluster, "nodes": 3 }));
        assert_eq!(desk.lines(), ["log: the first node is at 127.64.0.1"]);
        host.load("cluster.js", &desk).await.expect("the other script loads too");
        host.call("init", Vec::new(), &desk).await.expect("init");
    });
}

#[test]
fn both_import_styles_and_the_globals_are_the_same_objects() {
    let source = r#"
        import { Cluster as C, LocalProvider as L, Provider as P } from "disco";
        import { Provider } from "@disco/provider";
        import { FileStorage } from "@disco/storage";
        import { Cluster } from "@disco/cluster";
        import * as lib from "./lib/names.js";

        class HomeCluster extends Cluster {
          constructor() { super({ name: lib.name, provider: new Provider.Local({ name: "home" }), managers: 3, replace_after: "2m" }); }
          greeting() { return `this is ${this.name}`; }
        }
        export async function init() { return new HomeCluster(); }
        export async function bootstrap(cluster) {
          const same = [C === Cluster, C === globalThis.Cluster, P === Provider, L === LocalProvider, cluster instanceof HomeCluster, typeof FileStorage.S3];
          return [...same, cluster.greeting(), String((await cluster.nodes())[0]), await cluster.key("k").get()];
        }
    "#;
    let files = [("client.js", source), ("lib/names.js", "export { name } from '../base.js';"), ("base.js", "export const name = 'home';")];
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options(memory(&files))).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        let cluster = host.call("init", Vec::new(), &desk).await.expect("init");
        assert_eq!(
            cluster,
            json!({ "name": "home", "provider": { "kind": "local", "name": "home" }, "managers": 3, "replace_after": 120_000 })
        );
        let value = host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("bootstrap");
        assert_eq!(value, json!([true, true, true, true, true, "function", "this is home", "one", "value"]));
    });
}

#[test]
fn timers_come_in_order_and_delay_says_how_long_it_was() {
    let value = returns(
        r#"const order = [];
           setTimeout(() => order.push("30"), 30);
           setTimeout((...words) => order.push(...words), 10, "10", "arguments");
           clearTimeout(setTimeout(() => order.push("cancelled"), 5));
           setTimeout(() => order.push("0"));
           Promise.resolve().then(() => order.push("reaction"));
           order.push("now");
           const seconds = await delay(60);
           return [order, seconds >= 0.06 && seconds < 5];"#,
    );
    assert_eq!(value, json!([["now", "reaction", "0", "10", "arguments", "30"], true]));
}

#[test]
fn console_prints_words_objects_and_errors() {
    let (result, desk) = seen(&body(
        r#"console.log("a", 1, [1, 2], { b: true }); console.warn(new Error("careful")); console.error("no"); console.info("i"); console.debug("d");"#,
    ));
    result.expect("it runs");
    let lines = desk.lines();
    assert!(lines[0].starts_with("log: a 1 [ 1, 2 ]") && lines[0].contains("b: true"), "{lines:?}");
    assert_eq!(lines[1], "warn: Error: careful\n    at bootstrap (client.js:2:58)");
    assert_eq!(lines[2..], ["error: no", "info: i", "debug: d"]);
}

#[test]
fn env_is_the_environment_and_read_only() {
    let mut options =
        impatient(&[("client.js", &body("try { ENV.COLOUR = 'blue'; } catch (e) { return [ENV.COLOUR, Object.keys(ENV), e.name]; }"))]);
    options.environment = Some(BTreeMap::from([("COLOUR".to_owned(), "red".to_owned())]));
    assert_eq!(smol::block_on(bootstrap(options, &Desk::default())).expect("runs"), json!(["red", ["COLOUR"], "TypeError"]));
}

#[test]
fn a_call_that_is_not_awaited_is_still_done() {
    let (result, desk) = seen("export async function bootstrap() { ask('sure?'); }");
    result.expect("it runs");
    assert_eq!(desk.operations(), ["ask"]);
}

#[test]
fn a_cluster_object_survives_the_idle_exit_of_its_executor() {
    let mut options = impatient(&[(
        "client.js",
        "let calls = 0; export async function init() { return new Cluster({ name: 'c', provider: await LocalProvider.init({ name: 'l' }) }); } export function bootstrap(c) { return [c.name, ++calls]; }",
    )]);
    options.limits.idle = Duration::from_millis(150);
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        host.call("init", Vec::new(), &desk).await.expect("init");
        assert_eq!(host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("runs"), json!(["c", 1]));
        assert_eq!(host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("runs"), json!(["c", 2]));
        let pid = host.pid().expect("it runs");
        host.gone().await;
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "gone and buried");
        // Started again: the module is evaluated afresh, so its variables are.
        assert_eq!(host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("runs"), json!(["c", 1]));
        // Idled out, and nobody noticed before the next call.
        wait_until(|| host.pid().is_none_or(is_dead));
        assert_eq!(host.call("bootstrap", vec![Arg::Handle], &desk).await.expect("runs"), json!(["c", 1]));
    });
}

// ---- what the person did wrong

#[test]
fn mistakes_are_named_with_file_and_line() {
    let table = [
        ("const a = 1;\nlet b = = 2;\n", "client.js failed: SyntaxError: client.js:2:9: unexpected token '='"),
        ("export function bootstrap() {\n", "client.js failed: SyntaxError: client.js:1"),
        (
            "import { x } from '../secret.js';",
            "client.js failed: TypeError: client.js cannot import \"../secret.js\": it is outside the script's folder",
        ),
        ("import fs from 'fs';", "client.js failed: TypeError: client.js cannot import \"fs\": a module is \"disco\""),
        ("import { x } from './none.js';", "client.js failed: TypeError: there is no module none.js"),
        ("import { Clutser } from 'disco';", "client.js failed: SyntaxError"),
        ("nonsense();", "client.js failed: ReferenceError: nonsense is not defined\n    at client.js"),
        ("const a = 1;\nthrow new Error('top');", "client.js failed: Error: top\n    at client.js:2:7"),
        ("export function bootstrap() {\n  `abc", "client.js failed: SyntaxError: client.js:2: unterminated template literal"),
        (
            "export function bootstrap() {\n  JSON.parse('{');\n}",
            "SyntaxError: EOF while parsing an object at line 1 column 1\n    at bootstrap (client.js:2:",
        ),
        ("export const a = 1;", "client.js: bootstrap() failed: there is no exported function bootstrap()"),
        (
            "function inner() {\n  throw new RangeError('too far');\n}\nexport function bootstrap() {\n  inner();\n}",
            "client.js: bootstrap() failed: RangeError: too far\n    at inner (client.js:2:9)\n    at bootstrap (client.js:5:8)",
        ),
        (
            "export async function bootstrap() {\n  await delay(1);\n  null.x;\n}",
            "client.js: bootstrap() failed: TypeError: cannot convert 'null' or 'undefined' to object\n    at bootstrap (client.js:3:",
        ),
        ("export async function bootstrap() {\n  await ask('?');\n  throw 'a word';\n}", "client.js: bootstrap() failed: a word"),
        (
            "export async function bootstrap() {\n  new Cluster({ nmae: 'x' });\n}",
            "client.js: bootstrap() failed: TypeError: `new Cluster` has no option `nmae` (it knows name, provider, managers,",
        ),
        (
            "export async function bootstrap() {\n  new Cluster({ name: 'x', provider: {} });\n}",
            "`provider` of the cluster must be a provider, like `await LocalProvider.init({ name: \"…\" })`, not [object Object]\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  const c = new Cluster({ name: 'x', provider: new Provider.Local({ name: 'l' }) });\n  await c.destroy();\n}",
            "client.js: bootstrap() failed: Error: the cluster is locked\n    at bootstrap (client.js:3:18)",
        ),
        (
            "export async function bootstrap() {\n  const c = new Cluster({ name: 'x', provider: new Provider.Local({ name: 'l' }), managers: 2 });\n}",
            "TypeError: `managers` must be one of 1, 3, 5, 7, not 2\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  await AwsProvider.init({ name: 'a', region: 'eu-central-1' });\n}",
            "Error: the aws provider is not available yet in this version\n    at bootstrap (client.js:2:",
        ),
        (
            "export function bootstrap() {\n  new Provider.Hosts({});\n}",
            "Error: the hosts provider is not available yet in this version\n    at bootstrap (client.js:2:",
        ),
        (
            "export function bootstrap() {\n  new FileStorage.S3({ bucket: 'b' });\n}",
            "Error: S3 storage is not available yet in this version\n    at bootstrap (client.js:2:",
        ),
        (
            "export function bootstrap() {\n  every('1s', () => {});\n}",
            "Error: every() works only in cluster.js\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  Promise.reject(new Error('lost'));\n  await delay(10);\n}",
            "client.js: bootstrap() failed: a promise was rejected and nothing handles it (is an `await` missing?): Error: lost\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  setTimeout(() => { throw new Error('late'); }, 1);\n  await delay(50);\n}",
            "client.js: bootstrap() failed: Error: late\n    at client.js:2:",
        ),
        (
            "export async function bootstrap() { await new Promise(() => {}); }",
            "client.js: bootstrap() failed: it waits for a promise that nothing can resolve any more: no timer and no request is pending",
        ),
        ("await new Promise(() => {});", "client.js failed: it waits for a promise that nothing can resolve any more"),
        (
            "function f() { f(); }\nexport function bootstrap() { f(); }",
            "client.js: bootstrap() failed: RuntimeLimitError: reached the maximum number of recursive calls on this execution\n    at f (client.js:1:",
        ),
        (
            "export function bootstrap() { let a = []; for (let i = 0; i < 100; i++) a = [a]; return a; }",
            "client.js: bootstrap() failed: a value is nested deeper than 64 levels",
        ),
        ("export function bootstrap() { return 'x'.repeat(1.5 * 1024 * 1024); }", "client.js: bootstrap() failed: the result is too large"),
        (
            "export async function bootstrap() {\n  await ask('x'.repeat(1.5 * 1024 * 1024));\n}",
            "client.js: bootstrap() failed: Error: ask(): 1572",
        ),
    ];
    for (source, expected) in table {
        let error = seen(source).0.expect_err(source);
        assert!(error.contains(expected), "{source}\n--- gave\n{error}\n--- not\n{expected}");
    }
    assert_eq!(returns("return 1"), json!(1));
}

#[test]
fn init_must_return_a_cluster() {
    let desk = Desk::default();
    let run = async {
        let mut host =
            ScriptHost::start(options(memory(&[("client.js", "export async function init() { return { name: 'x' }; }")]))).await?;
        host.load("client.js", &desk).await?;
        host.call("init", Vec::new(), &desk).await
    };
    let error = smol::block_on(run).expect_err("no cluster").to_string();
    assert!(error.starts_with("client.js: init() failed: init() must return a Cluster, not {"), "{error}");
}

#[test]
fn files_of_a_folder_are_bounded_and_stay_inside_it() {
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("secret.js"), "export const secret = 1;").expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::os::unix::fs::symlink(outside.path().join("secret.js"), folder.path().join("link.js")).expect("linked");
    std::os::unix::fs::symlink(outside.path(), folder.path().join("dir")).expect("linked");
    write("inside.js", "export const x = 'inside';");
    std::os::unix::fs::symlink("inside.js", folder.path().join("alias.js")).expect("linked");
    std::fs::create_dir(folder.path().join("sub.js")).expect("made");
    write("large.js", &format!("export const x = 1; //{}", "x".repeat(300 * 1024)));
    write("binary.js", "");
    std::fs::write(folder.path().join("binary.js"), [0xff, 0xfe]).expect("written");
    let table = [
        ("import { x } from './alias.js'; export const bootstrap = () => x;", Ok("inside")),
        ("import { secret } from './link.js';", Err("cannot read link.js: it is a link that leaves the script's folder")),
        ("import { secret } from './dir/secret.js';", Err("cannot read dir/secret.js: it is a link that leaves the script's folder")),
        ("import './none.js';", Err("cannot read none.js: there is no such file")),
        ("import './sub.js';", Err("cannot read sub.js: it is not a file")),
        ("import './binary.js';", Err("cannot read binary.js: it is not UTF-8 text")),
        ("import './large.js';", Err("cannot load large.js: a script's modules are at most 256 KiB together")),
        ("export async function bootstrap() { return (await import('./inside.js')).x }", Ok("inside")),
        ("export async function bootstrap() { return (await run('ls', ['alias.js'])).stdout }", Ok("alias.js\n")),
    ];
    for (source, expected) in table {
        write("client.js", source);
        let result = smol::block_on(bootstrap(options(Modules::Folder(folder.path().to_owned())), &Desk::default()));
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, json!(expected)),
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e}"),
            (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
        }
    }
}

// ---- what hurts

#[test]
fn endless_loops_of_every_kind_are_stopped() {
    let table = [
        "for (;;) {}",
        "function g() { for (let i = 0; i < 1000; i++); } for (;;) g();",
        "try { for (;;) {} } catch {} finally { for (;;) {} }",
        "return /(a+)+$/.test('a'.repeat(40) + 'b');",
        "for (;;) await null;",
        "const f = () => Promise.resolve().then(f); await f();",
        "for (;;) console.log('spam');",
    ];
    for statements in table {
        let error = seen(&body(statements)).0.expect_err(statements);
        assert_eq!(
            error, "client.js: bootstrap() ran for 700 ms without a pause and was stopped (is there an endless loop?)",
            "{statements}"
        );
    }
    assert_eq!(fails("for (;;) {}"), "client.js ran for 700 ms without a pause and was stopped (is there an endless loop?)");
}

#[test]
fn a_loop_that_pauses_is_stopped_by_the_sum() {
    let mut options =
        impatient(&[("client.js", &body("for (;;) { const end = Date.now() + 50; while (Date.now() < end); await delay(0); }"))]);
    options.limits.total = Duration::from_millis(500);
    let error = smol::block_on(bootstrap(options, &Desk::default())).expect_err("stopped").to_string();
    assert_eq!(error, "client.js: bootstrap() ran for 500 ms in all, waiting not counted, and was stopped");
}

#[test]
fn init_has_a_deadline_and_bootstrap_has_none() {
    let source = "export async function init() { await delay(600000); } export async function bootstrap() { return await delay(800) > 0; }";
    let mut options = impatient(&[("client.js", source)]);
    options.limits.init = Duration::from_millis(400);
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        let error = host.call("init", Vec::new(), &desk).await.expect_err("too long").to_string();
        assert_eq!(error, "client.js: init() did not finish within 400 ms and was stopped");
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
        let mut options = impatient(&[("client.js", &body(statements))]);
        options.limits.busy = Duration::from_secs(30);
        let error = smol::block_on(bootstrap(options, &Desk::default())).expect_err(statements).to_string();
        assert_eq!(error, "client.js: bootstrap() used more than 64 MiB of memory and was stopped", "{statements}");
    }
    assert!(fails(&body("new ArrayBuffer(2e9)")).contains("RangeError"));
    let deep = fails(&body("eval('('.repeat(100000) + ')'.repeat(100000))"));
    assert!(deep.contains("nested too deeply"), "{deep}");
    // And 40 MiB are fine.
    assert_eq!(returns("return 'x'.repeat(1024).repeat(40 * 1024).length"), json!(40 * 1024 * 1024));
}

#[test]
fn ten_thousand_lines_a_second_become_two_hundred_and_a_count() {
    let (result, desk) = seen(&body("for (let i = 0; i < 10000; i++) console.log(`line ${i}`);"));
    result.expect("it runs");
    let lines = desk.lines();
    let dropped: u64 = lines
        .iter()
        .filter_map(|line| line.strip_prefix("warn: … ")?.strip_suffix(" lines dropped")?.replace(',', "").parse::<u64>().ok())
        .sum();
    let shown = lines.iter().filter(|line| line.starts_with("log: line ")).count();
    assert_eq!(shown as u64 + dropped, 10_000);
    // How many seconds it took is the machine's affair.
    assert!(shown % 200 == 0 && shown <= 2000, "{shown}");
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
        let mut options = impatient(&[("client.js", source)]);
        options.limits.busy = Duration::from_secs(600);
        smol::block_on(bootstrap(options, &Desk::default())).expect("killed before");
        return;
    }
    let name = "the_executor_and_its_programs_end_with_their_parent";
    let mut parent = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args([name, "--exact", "--nocapture"])
        .env("SCRIPT_TEST_PARENT", "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let family = || {
        let executor = *children(parent.id()).first()?;
        let program = *children(executor).first()?;
        // Until it executes `sleep` it is a copy of the executor.
        std::fs::read_to_string(format!("/proc/{program}/comm")).is_ok_and(|comm| comm.trim() == "sleep").then_some([executor, program])
    };
    wait_until(|| family().is_some());
    let family = family().expect("just seen");
    parent.kill().expect("killed");
    parent.wait().expect("buried");
    wait_until(|| family.iter().all(|pid| is_dead(*pid)));
}

// ---- helpers

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::yield_now();
    }
}

/// No such process, or only its zombie.
fn is_dead(pid: u32) -> bool {
    agent::drivers::syscall::process_started(pid).is_none()
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses: state, parent.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    let pids = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok());
    pids.filter(is_child).collect()
}
