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
                "cluster.start_instance" => Ok(json!({ "id": "i-1", "address": "127.64.0.1:5080", "private_address": "127.64.0.1:5080", "state": "running" })),
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
        assert_eq!(desk.operations(), ["cluster.healthy", "cluster.start_instance", "cluster.attach_ip", "cluster.ssh_install", "cluster.scale"]);
        let (_, scale) = desk.asked.borrow().last().cloned().expect("asked");
        assert_eq!(scale, json!({ "cluster": cluster, "nodes": 3 }));
        assert_eq!(desk.lines(), ["log: the first node is at 127.64.0.1"]);
        host.load("cluster.js", &desk).await.expect("the other script loads too");
        host.call("init", Vec::new(), &desk).await.expect("init");
    });
}
