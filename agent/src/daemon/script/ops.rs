//! What a running script asks of its node: reads at once, writes fenced by the term that the script runs in.

use super::{Setting, json};
use crate::{
    daemon::telemetry,
    drivers::{
        api::door::Door,
        script::{HostOps, read_service},
    },
    model::{
        ids::{NodeId, RequestId},
        node::NodeState,
        query::{Answer, Op, Principal, Query, Request, StatusView, View},
        script::{Hook, ScriptCall},
    },
};
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    time::Duration,
};

/// Between two looks whether the cluster has grown.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often a request is repeated that found the node's queue full.
const BUSY_MAX: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// One call's desk.
pub struct Ops {
    door: Door,
    node: NodeId,
    term: u64,
    has_provider: bool,
    /// It may look, but change nothing.
    recording: bool,
    client: u64,
    sequence: Cell<u64>,
    stopped: RefCell<Vec<u32>>,
}

impl Ops {
    /// Request ids go on after `sequence`.
    pub fn new(door: Door, setting: &Setting, call: &ScriptCall, client: u64, sequence: u64) -> Ops {
        Ops {
            door,
            node: setting.node,
            term: call.term,
            has_provider: setting.has_provider,
            recording: call.hook == Hook::Configure,
            client,
            sequence: Cell::new(sequence),
            stopped: RefCell::default(),
        }
    }

    pub fn last_sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// Numbers of the `every` that were stopped meanwhile.
    pub fn take_stopped(&self) -> Vec<u32> {
        self.stopped.take()
    }

    /// The node that the script runs on, as scripts see it; null if the state does not know it.
    pub async fn this_node(&self) -> Value {
        let Ok(status) = self.status().await else { return Value::Null };
        status.nodes.iter().find(|node| node.id == self.node).map_or(Value::Null, |node| json::node(node, &status))
    }

    async fn answer(&self, op: &str, args: &Value) -> Result<Value, String> {
        let word = |name: &str| args[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| args[name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        match op {
            "cluster.healthy" => self.status().await.map(|status| status.problems.is_empty().into()),
            "cluster.nodes" => self.status().await.map(|status| status.nodes.iter().map(|node| json::node(node, &status)).collect()),
            "cluster.leader" => {
                let status = self.status().await?;
                let leader = status.nodes.iter().find(|node| Some(node.id) == status.leader);
                Ok(leader.map_or(Value::Null, |node| json::node(node, &status)))
            }
            "cluster.services" => {
                let status = self.status().await?;
                Ok(status.services.iter().map(|service| json::service(service, &status)).collect())
            }
            "service.status" => {
                let (status, name) = (self.status().await?, word("name"));
                let service = status.services.iter().find(|service| service.record.name == name);
                service.map(|service| json::service(service, &status)).ok_or_else(|| format!("there is no service `{name}`"))
            }
            "key.get" => match self.read(Query::KvGet(word("key"))).await? {
                View::Kv { value: Some(bytes), .. } => {
                    String::from_utf8(bytes).map(Value::from).map_err(|_| format!("the value of key `{}` is no text", word("key")))
                }
                _ => Ok(Value::Null),
            },
            "every.stop" => {
                self.stopped.borrow_mut().push(number("number"));
                Ok(Value::Null)
            }
            "ask" => Err("ask() works only in client.js: there is nobody to ask on a node".into()),
            _ if self.recording => Err(format!("{op} changes the cluster, so it does not work in configure()")),
            // It would be waited for in vain.
            "cluster.scale" if !self.has_provider => {
                Err("cluster.scale() does not work here: this node has no provider, so it makes no machines; `disco scale` does it".into())
            }
            "cluster.scale" => self.scale(number("nodes")).await,
            "key.set" => self.write(Op::KvSet { key: word("key"), value: word("value").into_bytes() }).await,
            "key.delete" => self.write(Op::KvDelete(word("key"))).await,
            "service.set" => {
                let name = word("name");
                let spec = Box::new(read_service(&name, &args["spec"])?);
                self.write(Op::ServiceSet { name, spec }).await
            }
            "service.scale" => self.write(Op::ServiceScale { name: word("name"), replicas: number("replicas") }).await,
            "service.restart" => self.write(Op::ServiceRestart(word("name"))).await,
            "service.rollback" => self.write(Op::ServiceRollback(word("name"))).await,
            "service.remove" => self.write(Op::ServiceRemove(word("name"))).await,
            other => Err(format!("{other} does not work in cluster.js")),
        }
    }

    /// Resolves when so many nodes are there; the hook's own bound ends it otherwise.
    async fn scale(&self, nodes: u32) -> Result<Value, String> {
        self.write(Op::Scale(nodes)).await?;
        loop {
            let status = self.status().await?;
            let ready = status.nodes.iter().filter(|node| node.state == NodeState::Ready).count();
            if ready == nodes as usize {
                return Ok(Value::Null);
            }
            async_io::Timer::after(LOOK_AGAIN).await;
        }
    }

    async fn status(&self) -> Result<StatusView, String> {
        match self.read(Query::Status).await? {
            View::Status(status) => Ok(*status),
            _ => Err("the node answered something else".into()),
        }
    }

    /// As the leader knows it; on a node that leads no more, as it was last told.
    async fn read(&self, query: Query) -> Result<View, String> {
        match self.ask(Request::Read { stale: false, query: query.clone() }).await {
            Answer::Read { view, .. } => Ok(view),
            Answer::Elsewhere { .. } | Answer::Unavailable { .. } => match self.ask(Request::Read { stale: true, query }).await {
                Answer::Read { view, .. } => Ok(view),
                other => Err(refusal(other)),
            },
            other => Err(refusal(other)),
        }
    }

    async fn write(&self, op: Op) -> Result<Value, String> {
        self.sequence.set(self.sequence.get() + 1);
        let id = RequestId { client: self.client, sequence: self.sequence.get() };
        match self.ask(Request::Write { id, op }).await {
            Answer::Written { .. } => Ok(Value::Null),
            other => Err(refusal(other)),
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        let principal = Principal::Script { term: self.term };
        for _ in 0..BUSY_MAX {
            match self.door.ask(principal.clone(), request.clone()).await {
                Answer::Busy => async_io::Timer::after(BUSY_PAUSE).await,
                answer => return answer,
            };
        }
        Answer::Busy
    }
}

impl HostOps for Ops {
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        Box::pin(async move { self.answer(op, &args).await })
    }

    fn console(&self, level: &str, text: &str) {
        let level = match level {
            "error" => log::Level::Error,
            "warn" => log::Level::Warn,
            "debug" => log::Level::Debug,
            _ => log::Level::Info,
        };
        for line in text.lines() {
            log::log!(target: telemetry::SCRIPT, level, "{line}");
        }
    }
}

fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused { why, .. } | Answer::Unavailable { why } => why,
        Answer::Elsewhere { .. } => "this node leads no more".into(),
        Answer::Busy => "the node is busy; nothing was changed".into(),
        _ => "the node answered something else".into(),
    }
}
