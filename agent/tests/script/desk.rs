//! The host's side of a script under test, and the few words all these tests use.

use std::{
    cell::RefCell,
    future::Future,
    path::PathBuf,
    pin::Pin,
    time::{Duration, Instant},
};

use agent::drivers::script::{HostOps, Modules, ScriptError, ScriptHost, ScriptOptions};
use serde_json::{Value, json};

/// A host that answers everything at once and remembers what it was asked.
#[derive(Default)]
pub struct Desk {
    pub asked: RefCell<Vec<(String, Value)>>,
    pub console: RefCell<Vec<String>>,
    /// Name of the node that leads, if one does.
    pub leader: Option<&'static str>,
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
                "cluster.leader" => Ok(self.leader.map_or(Value::Null, |name| json!({ "id": "0a", "name": name }))),
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
    pub fn operations(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|(op, _)| op.clone()).collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.console.borrow().clone()
    }
}

pub fn options(modules: Modules) -> ScriptOptions {
    ScriptOptions { exe: PathBuf::from(env!("CARGO_BIN_EXE_discod")), ..ScriptOptions::new(modules) }
}

pub fn memory(files: &[(&str, &str)]) -> Modules {
    Modules::Memory(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

/// Loads client.js and calls `bootstrap()`.
pub async fn bootstrap(options: ScriptOptions, desk: &Desk) -> Result<Value, ScriptError> {
    let mut host = ScriptHost::start(options).await?;
    host.load("client.js", desk).await?;
    host.call("bootstrap", Vec::new(), desk).await
}

/// What a person sees of a client.js that is just this.
pub fn seen(source: &str) -> (Result<Value, String>, Desk) {
    let desk = Desk::default();
    let result = smol::block_on(bootstrap(options(memory(&[("client.js", source)])), &desk));
    (result.map_err(|e| e.to_string()), desk)
}

pub fn body(statements: &str) -> String {
    format!("export async function bootstrap() {{\n  {statements}\n}}\n")
}

#[track_caller]
pub fn returns(statements: &str) -> Value {
    seen(&body(statements)).0.expect("it runs")
}

pub fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::yield_now();
    }
}

/// No such process, or only its zombie.
pub fn is_dead(pid: u32) -> bool {
    agent::drivers::syscall::process_started(pid).is_none()
}

pub fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses: state, parent.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    let pids = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok());
    pids.filter(is_child).collect()
}
