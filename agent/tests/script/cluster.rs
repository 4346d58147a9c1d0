//! cluster.js, as a node calls it: what configure() leaves behind, what works when, and what is called later.

use std::time::Duration;

use agent::{
    drivers::script::{Limits, ScriptError, ScriptHost, ScriptOptions},
    model::{
        script::RegistrationKind,
        service::{Replicas, ServiceSpec},
        settings::SettingsChange,
    },
};
use serde_json::{Value, json};

use crate::desk::{Desk, is_dead, memory, options, wait_until};

const INIT: &str = "export function init() { return new Cluster({ name: 'c', provider: new Provider.Local({ name: 'l' }) }); }\n";

fn host(source: &str) -> ScriptHost {
    ScriptHost::for_cluster(options(memory(&[("cluster.js", &format!("{INIT}{source}"))])))
}

/// What a person sees when configure() is just these statements, which begin in line 3.
fn configure_fails(statements: &str) -> String {
    let source = format!("export async function configure(cluster) {{\n  {statements}\n}}");
    smol::block_on(host(&source).configure(&Desk::default())).expect_err(statements).in_words()
}

#[test]
fn configure_collects_and_changes_nothing() {
    let source = r#"
        every("1m", () => {});
        export function configure(cluster) {
          cluster.service("web", { command: ["/bin/web"], replicas: 3 });
          cluster.service("web", { replicas: 3.0, command: ["/bin/web"] });
          cluster.key("mode").set("old");
          cluster.key("mode").set("fast");
          cluster.on("node.lost", (event) => console.log(event.subject));
          cluster.on("ca.replaced", (event) => console.log(event.subject));
          cluster.key("mode").on("change", () => {});
          const stopped = every(500, () => {});
          stopped.stop();
        }
    "#;
    let desk = Desk::default();
    let (name, declared) = smol::block_on(host(source).configure(&desk)).expect("it is well");
    assert_eq!(name, "c");
    let web = ServiceSpec { command: vec!["/bin/web".into()], replicas: Replicas::Count(3), ..ServiceSpec::default() };
    assert_eq!(declared.declaration.services.into_iter().collect::<Vec<_>>(), [("web".to_owned(), web)]);
    assert_eq!(declared.declaration.keys.into_iter().collect::<Vec<_>>(), [("mode".to_owned(), "fast".to_owned())]);
    assert_eq!(declared.declaration.settings, SettingsChange::default());
    let expected = [
        Some(RegistrationKind::Every { interval_ms: 60_000 }),
        Some(RegistrationKind::On { event: "node.lost".into() }),
        Some(RegistrationKind::On { event: "ca.replaced".into() }),
        Some(RegistrationKind::Key { name: "mode".into() }),
        None,
    ];
    assert_eq!(declared.registrations, expected);
    assert_eq!(desk.operations(), [] as [&str; 0], "nobody was asked anything");
}

#[test]
fn configure_may_look_at_the_cluster_and_need_not_exist() {
    let source = r#"export async function configure(cluster) {
        if (await cluster.key("mode").get() === "value" && (await cluster.nodes()).length === 1) await cluster.key("seen").set("yes");
        if (await cluster.key("seen").get() !== "yes") throw new Error("what was just declared is not read");
    }"#;
    let desk = Desk::default();
    let (_, declared) = smol::block_on(host(source).configure(&desk)).expect("it is well");
    assert_eq!(declared.declaration.keys["seen"], "yes");
    assert_eq!(desk.operations(), ["key.get", "cluster.nodes"]);
    let (_, declared) = smol::block_on(host("").configure(&Desk::default())).expect("there is nothing to do");
    assert!(declared.declaration.services.is_empty() && declared.registrations.is_empty());
}

#[test]
fn options_of_the_cluster_are_declared_with_it() {
    let source = "export const init = () => new Cluster({ name: 'c', provider: new Provider.Local({ name: 'l' }), managers: 5, replace_after: null });";
    let mut host = ScriptHost::for_cluster(options(memory(&[("cluster.js", source)])));
    let (_, declared) = smol::block_on(host.configure(&Desk::default())).expect("it is well");
    assert_eq!(declared.declaration.settings, SettingsChange { managers: Some(5), replace_after_ms: Some(0), ..SettingsChange::default() });
}

#[test]
fn mistakes_in_configure_are_named_with_their_line() {
    let table = [
        (
            "cluster.service('web', { comand: ['x'] });",
            "cluster.js:3:18: in configure(): TypeError: service `web`: the spec has no field `comand` (it knows command, cwd,",
        ),
        (
            "cluster.service('web', { command: ['x'], memory: 'lots' });",
            "cluster.js:3:18: in configure(): TypeError: service `web`: `memory` must be a size like",
        ),
        ("cluster.service('web', { image: 'nginx' });", "service `web`: `image` is not available yet in this version"),
        (
            "cluster.service('web', { command: ['x'], health: { script: () => true } });",
            "`health.script` is not available yet in this version",
        ),
        ("cluster.service('web', { command: ['x'], env: { A: () => 1 } });", "TypeError: `A` of a service cannot be a function"),
        ("cluster.service('web', 'x');", "TypeError: a service's spec must be an object like { command: [\"…\"] }, not \"x\""),
        (
            "cluster.service('a', { command: ['x'] }); cluster.service('a', { command: ['y'] });",
            "cluster.js:3:60: in configure(): Error: service `a` is declared twice, and not the same way",
        ),
        (
            "await cluster.scale(3);",
            "cluster.js:3:22: in configure(): Error: cluster.scale() changes the cluster at once, so it does not work in configure() or before it: call it in leader(), or in what every() and on() call",
        ),
        ("await cluster.key('k').delete();", "Error: the key's delete() changes the cluster at once"),
        ("await cluster.service('a').restart();", "Error: the service's restart() changes the cluster at once"),
        ("await cluster.destroy();", "cluster.js:3:24: in configure(): Error: cluster.destroy() works only in client.js"),
        ("await cluster.start_instance();", "Error: cluster.start_instance() works only in client.js"),
        (
            "cluster.on('node.died', () => {});",
            "TypeError: the event of cluster.on() must be one of \"leader\", \"follower\", \"node.joined\"",
        ),
        ("new Cluster({ name: 'c', provider: new Provider.Local({ name: 'l' }), replace_after: 0 });", "null means never"),
        ("cluster.on('leader');", "TypeError: cluster.on() needs a function, not undefined"),
        ("cluster.key('k').on('set', () => {});", "TypeError: the event of a key's on() must be one of \"change\", not \"set\""),
        ("every('10ms', () => {});", "cluster.js:3:8: in configure(): RangeError: every()'s interval is at least 100 ms, not 10"),
        ("every('soon', () => {});", "TypeError: every()'s interval must be a duration like \"30s\""),
        ("for (let i = 0; i < 65; i++) every('1s', () => {});", "RangeError: every(): a script registers at most 64 functions"),
        ("cluster.service('w b', { command: ['x'] });", "TypeError: a service's name has 1 to 64 letters, digits, `-` and `_`, not `w b`"),
        ("cluster.key('a\\nb');", "RangeError: a key has 1 to 256 printable bytes, not `a\\nb`"),
        ("cluster.key('a').set('x'.repeat(70000));", "RangeError: key `a`: a value has at most 65536 bytes, this one 70000"),
        ("cluster.link('a', 'b');", "Error: cluster.link() is not available yet in this version"),
        ("cluster.secret('a');", "Error: cluster.secret() is not available yet in this version"),
        ("throw new Error('no');", "cluster.js:3:9: in configure(): Error: no"),
        ("helper();", "cluster.js:3:3: in configure(): ReferenceError: helper is not defined"),
    ];
    for (statements, expected) in table {
        let error = configure_fails(statements);
        assert!(error.contains(expected), "{statements}\n--- gave\n{error}\n--- not\n{expected}");
    }
    let without = ScriptHost::for_cluster(options(memory(&[("cluster.js", "export const x = 1;")])));
    let mut without = without;
    let error = smol::block_on(without.configure(&Desk::default())).expect_err("no init").in_words();
    assert_eq!(error, "cluster.js: init() failed: there is no exported function init()");
}

#[test]
fn cluster_services_belong_in_cluster_js() {
    let source = "export async function bootstrap() {\n  new Cluster({ name: 'x', provider: new Provider.Local({ name: 'l' }) }).service('web', { command: ['x'] });\n}";
    let error = crate::desk::seen(source).0.expect_err("it is client.js");
    assert!(
        error.contains(
            "Error: cluster.service() belongs in cluster.js, which `disco apply` sends to the nodes\n    at bootstrap (client.js:2:"
        ),
        "{error}"
    );
}

#[test]
fn later_everything_is_done_at_once() {
    let source = r#"
        const handle = every("1h", () => handle.stop());
        export async function leader(cluster, node) {
          console.log(`${node} leads`);
          await cluster.scale(3);
          const web = cluster.service("web", { command: ["/bin/web"] });
          await web.scale(2);
          await cluster.service("db").restart();
          cluster.key("k").set("v");
        }
    "#;
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = host(source);
        host.configure(&desk).await.expect("it is well");
        host.hook("leader", json!({ "id": "0a", "name": "n1" }), &desk).await.expect("it is well");
        host.hook("follower", Value::Null, &desk).await.expect("there is none, and none is needed");
        host.registered(0, Value::Null, &desk).await.expect("it is well");
    });
    assert_eq!(desk.operations(), ["cluster.scale", "service.set", "service.scale", "service.restart", "key.set", "every.stop"]);
    assert_eq!(desk.lines(), ["log: n1 leads"]);
    assert_eq!(desk.asked.borrow()[1].1["spec"], json!({ "command": ["/bin/web"] }));
    assert_eq!(desk.asked.borrow()[5].1["number"], json!(0));
}

#[test]
fn mistakes_later_are_named_too() {
    let table = [
        (
            "every('1s', () => {});",
            "cluster.js:3:8: in leader(): Error: every() works while cluster.js loads, in init() and in configure(), not later",
        ),
        ("cluster.on('leader', () => {});", "Error: cluster.on() works while cluster.js loads"),
        (
            "cluster.service('web', { command: [] });",
            "cluster.js:3:18: in leader(): TypeError: service `web`: `command` has 1 to 128 parts",
        ),
        ("await cluster.ssh_install();", "Error: cluster.ssh_install() works only in client.js"),
        (
            "await cluster.service('web').scale('many');",
            "TypeError: scale()'s number of copies must be a whole number from 0 to 1024, not \"many\"",
        ),
    ];
    for (statements, expected) in table {
        let mut host = host(&format!("export async function leader(cluster) {{\n  {statements}\n}}"));
        let error = smol::block_on(host.hook("leader", Value::Null, &Desk::default())).expect_err(statements).in_words();
        assert!(error.contains(expected), "{statements}\n--- gave\n{error}\n--- not\n{expected}");
    }
}

#[test]
fn what_was_registered_is_found_again_after_the_executor_went_away() {
    let source = r#"
        console.log("loads");
        export function configure(cluster) {
          console.log("configures");
          every("1s", async () => { await cluster.key("tick").set("t"); });
          cluster.key("mode").on("change", (value) => console.log("mode", value));
          cluster.on("node.lost", (event) => console.log("lost", event.subject));
        }
    "#;
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = host(source);
        host.configure(&desk).await.expect("it is well");
        host.registered(1, json!("fast"), &desk).await.expect("it is well");
        let pid = host.pid().expect("it runs");
        host.stop();
        wait_until(|| is_dead(pid));
        host.registered(1, Value::Null, &desk).await.expect("it is well");
        host.registered(2, json!({ "subject": "n2" }), &desk).await.expect("it is well");
        host.registered(0, Value::Null, &desk).await.expect("it is well");
    });
    let lines = ["log: loads", "log: configures", "log: mode fast", "log: mode null", "log: lost n2"];
    assert_eq!(desk.lines(), lines, "what it says while it registers again was read before");
    assert_eq!(desk.operations(), ["key.set"]);
}

#[test]
fn a_script_that_registers_something_else_the_second_time_is_told() {
    // The host answers "value" to the first question only.
    let source = "export async function configure(cluster) {\n  if ((await cluster.leader()) === null) every('1s', () => {});\n  cluster.on('leader', () => {});\n}";
    let (first, second) = (Desk::default(), Desk { leader: Some("n1"), ..Desk::default() });
    smol::block_on(async {
        let mut host = host(source);
        host.configure(&first).await.expect("it is well");
        host.stop();
        let error = host.registered(1, Value::Null, &second).await.expect_err("1 is something else now").in_words();
        assert!(
            error.starts_with("cluster.js: configure() failed: it registers other functions than the last time (every, on)"),
            "{error}"
        );
        host.registered(1, Value::Null, &first).await.expect("as it was");
    });
}

#[test]
fn a_failing_function_is_named_by_what_registered_it() {
    let source = "export function configure(cluster) {\n  every('90s', () => { throw new Error('tick'); });\n  cluster.key('mode').on('change', async () => { await delay(1); null.x; });\n}";
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = host(source);
        host.configure(&desk).await.expect("it is well");
        let pid = host.pid();
        let mut fails = async |number| host.registered(number, Value::Null, &desk).await.expect_err("it throws").in_words();
        assert_eq!(fails(0).await, "cluster.js:3:30: in every(90 s): Error: tick");
        let error = fails(1).await;
        assert!(
            error.starts_with("cluster.js:4:") && error.contains(": in key(\"mode\").on(\"change\"): TypeError: cannot convert"),
            "{error}"
        );
        assert_eq!(host.pid(), pid, "an exception costs no process");
    });
}

#[test]
fn expressions_are_evaluated_and_printed() {
    let source = "export const twice = (n) => 2 * n;\nexport const list = [1];\nexport { twice as class };";
    let table = [
        ("1 + 1", Ok("2")),
        ("'a\"b'", Ok("\"a\\\"b\"")),
        ("undefined", Ok("undefined")),
        ("", Ok("undefined")),
        ("null", Ok("null")),
        ("10n ** 20n", Ok("100000000000000000000n")),
        ("({ a: [1, 'x'], b: { c: null } })", Ok("{\n  \"a\": [\n    1,\n    \"x\"\n  ],\n  \"b\": {\n    \"c\": null\n  }\n}")),
        ("twice(21)", Ok("42")),
        ("twice", Ok("[function twice]")),
        ("cluster", Ok("Cluster \"c\"")),
        ("new Error('x')", Ok("Error: x")),
        ("await cluster.key('k').get()", Ok("\"value\"")),
        ("cluster.key('k').get()", Ok("\"value\"")),
        ("(await cluster.nodes()).map(String)", Ok("[\n  \"one\"\n]")),
        ("let x = 1; x + 1;", Ok("undefined")),
        ("let x = 1; return x + 1;", Ok("2")),
        ("if (list.length) return 'one'", Ok("\"one\"")),
        ("1 // a comment", Ok("1")),
        ("const loop = {}; loop.loop = loop; return loop;", Ok("[cycle]")),
        ("nonsense", Err("cluster.js: eval failed: ReferenceError: nonsense is not defined")),
        ("1 +", Err("cluster.js: eval failed: SyntaxError: ")),
        ("null.x", Err("TypeError: cannot convert 'null' or 'undefined' to object")),
        ("throw new RangeError('far')", Err("RangeError: far")),
        ("every('1s', () => {})", Err("Error: every() works while cluster.js loads")),
    ];
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = host(source);
        for (expression, expected) in table {
            match (host.evaluate(expression, "c", &desk).await, expected) {
                (Ok(printed), Ok("[cycle]")) => assert!(printed.contains("loop"), "{printed}"),
                (Ok(printed), Ok(expected)) => assert_eq!(printed, expected, "{expression}"),
                (Err(e), Err(part)) => assert!(e.in_words().contains(part), "{expression}: {}", e.in_words()),
                (got, expected) => panic!("{expression}: {got:?}, not {expected:?}"),
            }
        }
        let long = host.evaluate("'x'.repeat(900000)", "c", &desk).await.expect("it is cut");
        assert!(long.len() < 200_000, "{}", long.len());
        let mut bare = ScriptHost::for_cluster(options(memory(&[])));
        assert_eq!(bare.evaluate("cluster", "plain", &desk).await.expect("no script is needed"), "Cluster \"plain\"");
        assert_eq!(bare.evaluate("await cluster.key('k').get()", "plain", &desk).await.expect("as well"), "\"value\"");
    });
}

#[test]
fn a_hook_that_waits_for_ever_is_stopped_and_the_next_one_runs() {
    let limits = Limits { hook: Duration::from_millis(700), configure: Duration::from_millis(900), ..Limits::default() };
    let source = r#"
        export async function configure(cluster) { if ((await cluster.leader())?.name === "slow") await delay(600000); }
        export async function leader(cluster, node) { if (node === null) await cluster.healthy(); else await delay(600000); }
    "#;
    let modules = memory(&[("cluster.js", &format!("{INIT}{source}"))]);
    let mut host = ScriptHost::for_cluster(ScriptOptions { limits, ..options(modules) });
    let (desk, slow) = (Desk::default(), Desk { leader: Some("slow"), ..Desk::default() });
    smol::block_on(async {
        let too_long = |error: ScriptError| error.in_words();
        let error = too_long(host.configure(&slow).await.expect_err("it waits"));
        assert_eq!(error, "cluster.js: configure() did not finish within 900 ms and was stopped");
        host.configure(&desk).await.expect("it is well");
        let error = too_long(host.hook("leader", json!({}), &desk).await.expect_err("it waits"));
        assert_eq!(error, "cluster.js: leader() did not finish within 700 ms and was stopped");
        host.hook("leader", Value::Null, &desk).await.expect("the next one runs");
    });
}
