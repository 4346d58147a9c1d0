//! One file a command. Each opens what it needs, asks, prints.

pub mod apply;
pub mod bootstrap;
pub mod ca;
pub mod destroy;
pub mod eval;
pub mod events;
pub mod init;
pub mod instance;
pub mod kv;
pub mod logs;
pub mod node;
pub mod plan;
pub mod recover;
pub mod repl;
pub mod rollout;
pub mod scale;
pub mod service;
pub mod status;
pub mod token;
pub mod watcher;

use crate::args::{Command, Global, Invocation, completions, help};
use crate::client::Client;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::modules::Modules;
use crate::out::Out;
use proto::Spawner;

/// What every command that asks the cluster has at hand.
pub struct Desk {
    pub out: Out,
    pub context: Context,
    pub client: Client,
}

impl Desk {
    /// # Errors
    /// There is no such folder, or no cluster in it.
    pub fn open(global: &Global, out: Out, spawner: &Spawner) -> Result<Desk, Failure> {
        let context = Context::new(global)?;
        let client = Client::open(&context, spawner)?;
        Ok(Desk { out, context, client })
    }

    /// Keeps what the cluster told of itself: where its managers are, and our certificate before it runs out.
    /// Best effort: an answer is worth more than the note about it.
    pub async fn remember(&mut self, status: &proto::v1::Status) {
        if self.context.socket.is_some() {
            return;
        }
        let addresses = addresses(status);
        if addresses.is_empty() {
            return;
        }
        self.client.know(&addresses);
        let stopped: Vec<String> = status.instances.iter().filter(|i| i.desired == "stopped").map(|i| i.id.clone()).collect();
        let written = self.context.write_addresses(&self.client.addresses()).and_then(|()| self.context.write_wanted_stopped(&stopped));
        if let Err(failure) = written {
            self.out.say(format!("warning: {}", failure.in_one_line()));
        }
        if let Err(failure) = crate::identity::renew_if_due(&self.context, &mut self.client).await {
            self.out.say(format!("warning: {}", failure.in_one_line()));
        }
    }

    /// Writes down which modules this folder gave the cluster last. Best effort, as above.
    pub fn note_pushed(&self, modules: &Modules) {
        if self.context.socket.is_none()
            && let Err(failure) = self.context.write_pushed(&modules.digest())
        {
            self.out.say(format!("warning: {}", failure.in_one_line()));
        }
    }

    /// Prints what a change came to: for programs its log index, for people `words`.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn changed(&self, reply: &proto::v1::WriteReply, words: impl AsRef<str>) -> Result<Exit, Failure> {
        if !self.out.json {
            self.out.say(words);
        }
        at(self.out, reply).map(|()| Exit::Done)
    }
}

/// For programs: where in the log a change was applied.
///
/// # Errors
/// Stdout cannot be written.
pub fn at(out: Out, reply: &proto::v1::WriteReply) -> Result<(), Failure> {
    if out.json { out.document(&serde_json::json!({ "index": reply.index })) } else { Ok(()) }
}

/// Where to ask next time: nodes that live before those that do not, managers before workers.
pub fn addresses(status: &proto::v1::Status) -> Vec<String> {
    let mut nodes: Vec<_> = status.nodes.iter().filter(|n| n.state != "left" && !n.address.is_empty()).collect();
    nodes.sort_by_key(|n| (n.state == "lost", n.role != "manager", !n.leader));
    nodes.into_iter().map(|n| n.address.clone()).collect()
}

pub async fn run(invocation: Invocation, spawner: &Spawner) -> Result<Exit, Failure> {
    let Invocation { global, command } = invocation;
    let out = Out::new(global.json);
    let desk = || Desk::open(&global, out, spawner);
    match command {
        Command::Help(words) => out.data(help::text(&words)).map(|()| Exit::Done),
        Command::Version => out.data(format!("disco {}\n", agent::VERSION)).map(|()| Exit::Done),
        Command::Completions(shell) => out.data(completions::script(shell)).map(|()| Exit::Done),
        Command::Init { image: true, .. } => init::image(&global, out),
        Command::Init { image: false, provider } => init::run(&global, out, &provider),
        Command::Bootstrap { yes } => bootstrap::run(&global, out, spawner, yes).await,
        Command::Destroy { yes } => destroy::run(&global, out, spawner, yes).await,
        Command::Status { watch, stale } => status::run(desk()?, watch, stale).await,
        Command::Scale(nodes) => scale::run(&global, out, spawner, nodes).await,
        Command::NodeLs { stale } => node::list(desk()?, stale).await,
        Command::NodeInspect { node, stale } => node::inspect(desk()?, &node, stale).await,
        // Exit 2 is "there are changes".
        Command::Plan => plan::before_or_after(&global, out, spawner).await.map_err(Failure::into_no),
        Command::Apply { yes, rollback: true, wait } => apply::rollback(desk()?, yes, wait).await,
        Command::Apply { yes, rollback: false, wait } => apply::run(desk()?, yes, wait).await,
        Command::ServiceLs { stale } => service::list(desk()?, stale).await,
        Command::ServiceInspect { name, stale } => service::inspect(desk()?, &name, stale).await,
        Command::ServiceScale { name, replicas, wait } => service::scale(desk()?, name, replicas, wait).await,
        Command::ServiceRestart { name, wait } => service::restart(desk()?, name, wait).await,
        Command::ServiceRollback { name, wait } => service::rollback(desk()?, name, wait).await,
        Command::ServiceRm { name, yes } => service::remove(desk()?, name, yes).await,
        Command::Logs { service, task, follow, since_ms, tail } => {
            logs::run(desk()?, logs::question(service, task, follow, since_ms, tail)).await
        }
        Command::Eval(expression) => eval::run(desk()?, &expression).await,
        Command::Repl => repl::run(desk()?).await,
        Command::NodeDrain { node, off, wait } => node::drain(desk()?, &node, off, wait).await,
        Command::NodePrefer { node, role } => node::prefer(desk()?, &node, role).await,
        Command::NodeRm { node, yes } => node::remove(desk()?, &node, yes).await,
        Command::InstanceLs { stale } => instance::list(&global, out, spawner, stale).await,
        Command::InstanceSet { id, desired, yes } => instance::set(desk()?, id, desired, yes).await,
        Command::TokenCreate { role, ttl_ms, uses } => token::create(desk()?, role, ttl_ms, uses).await,
        Command::TokenLs { stale } => token::list(desk()?, stale).await,
        Command::CaIssue { folder } => ca::issue(desk()?, folder).await,
        Command::CaRotate { force, wait_ms, yes } => ca::rotate(desk()?, spawner, ca::Wait::new(wait_ms, force), yes).await,
        Command::Recover { consent } => recover::run(desk()?, spawner, consent).await,
        Command::TokenRotate(id) => token::rotate(desk()?, id).await,
        Command::TokenRevoke(id) => token::revoke(desk()?, id).await,
        Command::KvGet { key, raw, stale } => kv::get(desk()?, key, raw, stale).await,
        Command::KvSet { key, value } => kv::set(desk()?, key, value).await,
        Command::KvDel(key) => kv::delete(desk()?, key).await,
        Command::KvLs { prefix, stale } => kv::list(desk()?, prefix, stale).await,
        Command::KvWatch(key) => kv::watch(desk()?, key).await,
        Command::Events { follow, stale } => events::run(desk()?, follow, stale).await,
    }
}
