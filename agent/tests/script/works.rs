//! What works.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use agent::drivers::script::{Arg, Modules, ScriptHost};
use serde_json::json;

use crate::desk::{Desk, body, bootstrap, is_dead, memory, options, returns, seen, wait_until};

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
    let source = body("try { ENV.COLOUR = 'blue'; } catch (e) { return [ENV.COLOUR, Object.keys(ENV), e.name]; }");
    let mut options = options(memory(&[("client.js", &source)]));
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
    let source = r#"
        let calls = 0;
        export async function init() { return new Cluster({ name: "c", provider: await LocalProvider.init({ name: "l" }) }); }
        export function bootstrap(cluster) { return [cluster.name, ++calls]; }
    "#;
    let mut options = options(memory(&[("client.js", source)]));
    // Long enough for the calls that come at once, also on a busy machine.
    options.limits.idle = Duration::from_millis(1000);
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

#[test]
fn a_waiting_executor_gives_its_code_pages_back() {
    let desk = Desk::default();
    smol::block_on(async {
        let mut host = ScriptHost::start(options(memory(&[("client.js", "export const bootstrap = () => 42;")]))).await.expect("starts");
        host.load("client.js", &desk).await.expect("loads");
        let pid = host.pid().expect("it runs");
        let mapped_kb = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("a line of proc_pid_status(5)");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        let awake = mapped_kb();
        wait_until(|| mapped_kb() < awake / 2);
        assert_eq!(host.call("bootstrap", Vec::new(), &desk).await.expect("and takes them again"), json!(42));
        assert_eq!(host.pid(), Some(pid), "the same process");
    });
}
