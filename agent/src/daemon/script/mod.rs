//! Runs the cluster's script: one call at a time, in an executor that stays a few seconds and then goes away.
//!
//! There are two such lanes, because a hook may wait for minutes and people do not: the cluster's own calls, and those
//! that somebody asked for. A lane that begins a call ends the other's executor if it only idles: a small machine.
//!
//! The pump says what to call and does not wait. When this node leads no more, the modules change, or it stops, the
//! call in flight is given up and the executor killed: nobody waits for its answer then, and its writes would be
//! refused.

mod json;
mod ops;

use crate::{
    drivers::{
        api::door::Door,
        pki,
        script::{Limits, Modules, ScriptError, ScriptHost, ScriptOptions},
    },
    model::{
        ids::NodeId,
        io::Input,
        script::{Hook, ModuleSet, ScriptCall, ScriptReport},
    },
};
use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use ops::Ops;
use std::{collections::BTreeMap, env};

/// What no script needs to know of this process's variables: what lets nodes in, and whom systemd hears.
const KEPT_TO_OURSELVES: [&str; 2] = ["DISCO_TOKEN", "NOTIFY_SOCKET"];

/// Why a call ended whose executor had to go.
const SHED: &str = "the node is short of memory, so its script was ended";

enum Word {
    Call {
        id: u64,
        call: ScriptCall,
    },
    End,
    /// End the executor even if that costs the call in flight.
    Shed,
    /// End the executor if it has nothing to do.
    Rest,
}

/// Where the pump leaves its words.
#[derive(Clone)]
pub struct Script {
    own: Sender<Word>,
    asked: Sender<Word>,
}

impl Script {
    /// Ends in `Scripted { id }`, unless `end` comes first.
    pub fn call(&self, id: u64, call: ScriptCall) {
        let (lane, other) = if is_asked(&call) { (&self.asked, &self.own) } else { (&self.own, &self.asked) };
        // A closed channel means that the daemon is stopping.
        let _ = other.try_send(Word::Rest);
        let _ = lane.try_send(Word::Call { id, call });
    }

    /// Gives up the calls in flight and ends the executors.
    pub fn end(&self) {
        for lane in [&self.own, &self.asked] {
            let _ = lane.try_send(Word::End);
        }
    }

    /// Ends the executors because their memory is needed; calls in flight fail.
    pub fn shed(&self) {
        for lane in [&self.own, &self.asked] {
            if lane.is_empty() {
                let _ = lane.try_send(Word::Shed);
            }
        }
    }
}

/// Whether a person waits for it.
fn is_asked(call: &ScriptCall) -> bool {
    is_plan(call) || matches!(call.hook, Hook::Eval { .. })
}

fn is_plan(call: &ScriptCall) -> bool {
    call.hook == Hook::Configure && call.modules.version == 0
}

/// Who and where the script runs.
#[derive(Clone)]
pub struct Setting {
    pub node: NodeId,
    /// Name of the cluster.
    pub cluster: String,
    /// Programs of `run` at once.
    pub commands_max: usize,
    /// Whether this node can make machines and end them.
    pub has_provider: bool,
}

/// One lane's other end.
struct Runner {
    words: Receiver<Word>,
    door: Door,
    setting: Setting,
    /// Of this process, for its request ids.
    client: u64,
    sequence: u64,
    held: Option<Held>,
}

/// The host of the modules in force. It outlives its executor: it remembers what was registered.
struct Held {
    version: u64,
    host: ScriptHost,
}

/// Where to leave words, and the future that carries them out for as long as the daemon runs.
pub fn open<T>(door: Door, setting: Setting) -> (Script, impl Future<Output = T>) {
    let lane = || {
        let (sender, words) = async_channel::unbounded();
        let client = u64::from_be_bytes(pki::random_bytes());
        (sender, Runner { words, door: door.clone(), setting: setting.clone(), client, sequence: 0, held: None })
    };
    let ((own, cluster), (asked, people)) = (lane(), lane());
    (Script { own, asked }, or(cluster.run(), people.run()))
}

impl Runner {
    /// Carries out one word after the other; never ends.
    async fn run<T>(mut self) -> T {
        loop {
            match self.next_word().await {
                Some(Word::Call { id, call }) => self.call(id, &call).await,
                Some(Word::End | Word::Shed | Word::Rest) => self.stop(),
                // The pump is gone; so are we, soon.
                None => std::future::pending().await,
            }
        }
    }

    /// Meanwhile an executor that idles out is buried.
    async fn next_word(&mut self) -> Option<Word> {
        loop {
            let word = async { Some(self.words.recv().await.ok()) };
            match self.held.as_mut().map(|held| &mut held.host).filter(|host| host.pid().is_some()) {
                None => return self.words.recv().await.ok(),
                Some(host) => {
                    let gone = async {
                        host.gone().await;
                        None
                    };
                    if let Some(word) = or(word, gone).await {
                        return word;
                    }
                }
            }
        }
    }

    fn stop(&mut self) {
        if let Some(held) = &mut self.held {
            held.host.stop();
        }
    }

    async fn call(&mut self, id: u64, call: &ScriptCall) {
        let ops = Ops::new(self.door.clone(), &self.setting, call, self.client, self.sequence);
        let (door, words) = (self.door.clone(), self.words.clone());
        let interrupted = async {
            loop {
                match words.recv().await {
                    Ok(Word::End) => return None,
                    Ok(Word::Shed) => return Some(Err(SHED.to_owned())),
                    Ok(Word::Rest) => {}
                    Ok(Word::Call { id, .. }) => {
                        door.report(Input::Scripted { id, outcome: Err("another call of the script is not over yet".into()) });
                    }
                    Err(_) => std::future::pending().await,
                }
            }
        };
        let outcome = or(async { Some(self.carry_out(call, &ops).await) }, interrupted).await;
        self.sequence = ops.last_sequence();
        if matches!(&outcome, Some(Err(why)) if why == SHED) {
            self.stop();
        }
        match outcome {
            Some(outcome) => self.door.report(Input::Scripted { id, outcome }),
            None => self.stop(),
        }
    }

    async fn carry_out(&mut self, call: &ScriptCall, ops: &Ops) -> Result<ScriptReport, String> {
        if is_plan(call) {
            // One executor at a time is enough here as well.
            self.stop();
            let mut host = self.host_of(&call.modules);
            return self.once(&mut host, call, ops).await.map_err(|error| error.in_words()).and_then(|outcome| outcome);
        }
        let mut held = match self.held.take() {
            Some(held) if held.version == call.modules.version => held,
            _ => Held { version: call.modules.version, host: self.host_of(&call.modules) },
        };
        let mut outcome = self.once(&mut held.host, call, ops).await;
        if let Err(ScriptError::Killed { .. }) = outcome {
            // Not the script's fault. Twice is: it may be what makes the kernel kill.
            log::warn!("the script executor was killed by somebody else; the call is repeated");
            outcome = self.once(&mut held.host, call, ops).await;
        }
        self.held = Some(held);
        outcome.map_err(|error| error.in_words())?
    }

    async fn once(&self, host: &mut ScriptHost, call: &ScriptCall, ops: &Ops) -> Result<Result<ScriptReport, String>, ScriptError> {
        let mut report = ScriptReport::default();
        match &call.hook {
            Hook::Configure => {
                let (name, declared) = host.configure(ops).await?;
                if name != self.setting.cluster {
                    let why = format!("cluster.js: init() returned the cluster `{name}`, but this one is `{}`", self.setting.cluster);
                    return Ok(Err(why));
                }
                report.registrations = declared.to_be_called();
                report.declared = Some(declared.declaration);
            }
            Hook::Leader => host.hook("leader", ops.this_node().await, ops).await?,
            Hook::Follower => host.hook("follower", ops.this_node().await, ops).await?,
            Hook::Registered { number, argument } => {
                let argument = serde_json::from_str(argument).unwrap_or_default();
                host.registered(*number, argument, ops).await?;
            }
            Hook::Eval { expression } => report.value = host.evaluate(expression, &self.setting.cluster, ops).await?,
        }
        report.stopped = ops.take_stopped();
        Ok(Ok(report))
    }

    fn host_of(&self, modules: &ModuleSet) -> ScriptHost {
        let variables = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let environment: BTreeMap<String, String> = variables.filter(|(name, _)| !KEPT_TO_OURSELVES.contains(&name.as_str())).collect();
        ScriptHost::for_cluster(ScriptOptions {
            environment: Some(environment),
            limits: Limits { commands_max: self.setting.commands_max, ..Limits::default() },
            ..ScriptOptions::new(Modules::Memory(modules.files.clone()))
        })
    }
}
