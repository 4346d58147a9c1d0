//! The only way into the replicated state: one command of the log at a time.
//!
//! Everything here is a function of the state and the entry. A command that may not be carried out changes nothing
//! and says why; the answer is remembered per request, so that a retry gets the same one.

use super::{State, events::bounded};
use crate::model::{
    command::{Command, Proposal},
    ids::{MemberId, NodeId},
    limits::{NODES_MAX, REFUSAL_TEXT_BYTES_MAX},
    node::{NodeState, Role, is_address},
    settings::{Settings, SettingsChange},
};

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Existed(bool),
    TokenCreated {
        id: String,
    },
    Joined {
        node: NodeId,
        stamp_ms: u64,
    },
    /// Nothing was changed.
    Refused {
        code: &'static str,
        why: String,
    },
}

impl Outcome {
    /// Answers are remembered, and what is refused may be quoted in them: they are bounded here.
    pub(super) fn refused(code: &'static str, why: String) -> Outcome {
        Outcome::Refused { code, why: bounded(&why, REFUSAL_TEXT_BYTES_MAX) }
    }
}

impl State {
    /// Carries out the entry at `index`, which a leader of `term` wrote. Returns where it took effect: a retry's earlier index, not this one.
    pub fn apply(&mut self, index: u64, term: u64, proposal: Proposal) -> (u64, Outcome) {
        if let Some(id) = proposal.request
            && let Some(answered) = self.clients.answer(id)
        {
            return answered;
        }
        if let Some(id) = proposal.request.filter(|id| self.clients.may_be_forgotten(*id)) {
            let why = format!("request {} of this client is older than those remembered", id.sequence);
            return (index, Outcome::refused("stale", why));
        }
        self.stamp_ms = self.stamp_ms.max(proposal.stamp_ms);
        // The fence: what a script of an earlier leader wanted is void.
        let outcome = match proposal.fence {
            Some(fence) if fence != term => Outcome::refused("stale", format!("the script ran in term {fence}, this is term {term}")),
            _ => self.carry_out(index, proposal.command),
        };
        if let Some(id) = proposal.request {
            self.clients.remember(id, index, &outcome);
        }
        (index, outcome)
    }

    fn carry_out(&mut self, index: u64, command: Command) -> Outcome {
        self.kinds_in_use = self.kinds_in_use.max(command.kind());
        match command {
            Command::Scale(nodes) => self.scale(nodes),
            Command::Configure(change) => self.configure(&change),
            Command::KvSet { key, value } => self.kv_set(index, key, value),
            Command::KvDelete(key) => self.kv_delete(&key),
            Command::TokenCreate { id, hash, role, ttl_ms, uses } => self.token_create(id, hash, role, ttl_ms, uses),
            Command::TokenRevoke(id) => match self.tokens.remove(&id) {
                Some(_) => Outcome::Done,
                None => Outcome::refused("not_found", format!("no token `{id}`")),
            },
            Command::NodeRemove(id) => self.node_remove(id),
            Command::InstanceSet { id, desired } => self.instance_set(&id, desired),
            Command::Destroy => self.destroy(),
            Command::Join { credential, node } => self.join(&credential, *node),
            Command::NodeUpdate { node, address, cpus, memory, commands_known } => {
                self.node_update(node, address, cpus, memory, commands_known)
            }
            Command::NodeState { node, state, reason } => self.node_state(node, state, &reason),
            Command::MemberAssign(node) => self.member_assign(node),
            Command::MemberClear(node) => self.member_clear(node),
            Command::Launch { ordinal, parameters } => self.launch(index, ordinal, parameters),
            Command::InstanceSeen { operation, id, address, state, problem } => self.instance_seen(operation, id, address, state, &problem),
            Command::Leading(node) => self.leading(node),
            Command::NodePrefer { node, role } => self.node_prefer(node, role),
            Command::MinNodes { below, live } => self.min_nodes(below, live),
            Command::CaIntroduce(ca) => self.ca_introduce(ca),
            Command::CaAdvance { from, force } => self.ca_advance(from, force),
            Command::NodePapers { node, papers } => self.node_papers(node, papers),
            scripted => self.carry_out_scripted(index, scripted),
        }
    }

    /// Commands of kind 2.
    fn carry_out_scripted(&mut self, index: u64, command: Command) -> Outcome {
        match command {
            Command::ModulesPut(files) => self.modules_put(index, files),
            Command::ModulesRollback => self.modules_rollback(),
            Command::Declare { version, declaration } => self.declare(index, version, *declaration),
            Command::ScriptError(error) => self.script_error(&error),
            Command::ScriptLed(term) => self.script_led(term),
            Command::ServiceSet { name, spec } => self.service_set(name, *spec),
            Command::ServiceScale { name, replicas } => self.service_scale(&name, replicas),
            Command::ServiceRestart(name) => self.service_restart(&name),
            Command::ServiceRollback(name) => self.service_rollback(&name),
            Command::ServiceRemove(name) => self.service_remove(&name),
            Command::Rolled { service, version, roll } => self.rolled(&service, version, roll),
            Command::NodeDrain { node, drain } => self.node_drain(node, drain),
            Command::TaskPlace { service, version, node } => self.task_place(service, version, node),
            Command::TaskStop(number) => self.task_stop(number),
            Command::TaskForget(number) => self.task_forget(number),
            Command::TaskSeen { node, tasks } => self.task_seen(node, tasks),
            other => Outcome::refused("invalid", format!("this build does not know {other:?}")),
        }
    }

    fn scale(&mut self, nodes: u32) -> Outcome {
        if nodes == 0 || nodes as usize > NODES_MAX {
            return Outcome::refused("invalid", format!("a cluster keeps 1 to {NODES_MAX} nodes, not {nodes}; `disco destroy` ends it"));
        }
        if nodes > self.settings.max_nodes {
            return Outcome::refused("limit", format!("{nodes} nodes are more than max_nodes ({})", self.settings.max_nodes));
        }
        if nodes != self.desired_nodes {
            self.desired_nodes = nodes;
            self.event("cluster.scaled", "", &format!("keeps {nodes} nodes"));
        }
        Outcome::Done
    }

    fn configure(&mut self, change: &SettingsChange) -> Outcome {
        match self.with_settings(change) {
            Ok(settings) => {
                self.settings = settings;
                if let Some(launch) = &change.launch {
                    self.launch = launch.clone();
                }
                Outcome::Done
            }
            Err(why) => Outcome::refused("invalid", why),
        }
    }

    /// The settings with these changes.
    ///
    /// # Errors
    /// A value that none may have.
    pub(in crate::logic) fn with_settings(&self, change: &SettingsChange) -> Result<Settings, String> {
        let mut new = self.settings.clone();
        if let Some(managers) = change.managers {
            if ![1, 3, 5, 7].contains(&managers) {
                return Err(format!("managers is 1, 3, 5 or 7, not {managers}"));
            }
            new.managers = managers;
        }
        if let Some(max) = change.max_nodes {
            if max == 0 || max as usize > NODES_MAX {
                return Err(format!("max_nodes is 1 to {NODES_MAX}, not {max}"));
            }
            new.max_nodes = max;
        }
        if let Some(min) = change.min_nodes {
            if min as usize > NODES_MAX {
                return Err(format!("min_nodes is at most {NODES_MAX}, not {min}"));
            }
            new.min_nodes = min;
        }
        new.max_launches_per_hour = change.max_launches_per_hour.unwrap_or(new.max_launches_per_hour);
        new.below_min = change.below_min.unwrap_or(new.below_min);
        if let Some(ms) = change.replace_after_ms {
            new.replace_after_ms = (ms != 0).then_some(ms);
        }
        Ok(new)
    }

    fn destroy(&mut self) -> Outcome {
        if !self.destroying {
            self.destroying = true;
            self.event("cluster.destroyed", "", "no more launches or repairs");
        }
        Outcome::Done
    }

    fn node_update(&mut self, id: NodeId, address: String, cpus: u32, memory: u64, commands_known: u32) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        if !is_address(&address) {
            return Outcome::refused("invalid", "a node's address is host:port in plain letters".into());
        }
        node.address = address;
        node.cpus = cpus;
        node.memory = memory;
        node.commands_known = commands_known;
        Outcome::Done
    }

    fn node_state(&mut self, id: NodeId, state: NodeState, reason: &str) -> Outcome {
        let stamp = self.stamp_ms;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        // The leader saw that it is there. Whether it is drained a person may have changed since: what stands here counts.
        let state = match state {
            NodeState::Ready | NodeState::Draining if node.drained => NodeState::Draining,
            NodeState::Ready | NodeState::Draining => NodeState::Ready,
            NodeState::Joining | NodeState::Lost => state,
        };
        let before = node.state;
        if before == state {
            return Outcome::Done;
        }
        node.state = state;
        node.since_ms = stamp;
        node.reason = super::events::bounded(reason, 256);
        let name = node.name.clone();
        match (before, state) {
            (NodeState::Joining, NodeState::Ready) => self.event("node.joined", &name, reason),
            (_, NodeState::Ready) => self.event("node.back", &name, reason),
            (_, NodeState::Lost) => self.event("node.lost", &name, reason),
            (_, NodeState::Draining) => self.event("node.draining", &name, reason),
            (_, NodeState::Joining) => {}
        }
        self.judge_services();
        Outcome::Done
    }

    fn node_drain(&mut self, id: NodeId, drain: bool) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        node.drained = drain;
        match (node.state, drain) {
            (NodeState::Ready, true) => self.node_state(id, NodeState::Draining, "its tasks move to other nodes"),
            (NodeState::Draining, false) => self.node_state(id, NodeState::Ready, "takes tasks again"),
            // One that is not there is told when it is.
            _ => Outcome::Done,
        }
    }

    fn node_prefer(&mut self, id: NodeId, role: Role) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        // Its token would never have made it one; a person may.
        if role == Role::Manager {
            node.admitted = Role::Manager;
        }
        if node.preference.replace(role) != Some(role) {
            let name = node.name.clone();
            self.event("node.preferred", &name, &format!("is to be a {}", role.as_str()));
        }
        Outcome::Done
    }

    fn min_nodes(&mut self, below: bool, live: u32) -> Outcome {
        if std::mem::replace(&mut self.below_min, below) == below {
            return Outcome::Done;
        }
        let min = self.settings.min_nodes;
        match below {
            true => {
                self.event("cluster.below_min", "", &format!("{live} of {min} nodes live; services: {}", self.settings.below_min.as_str()))
            }
            false => self.event("cluster.at_min", "", &format!("{live} nodes live, {min} are the minimum")),
        }
        Outcome::Done
    }

    fn member_assign(&mut self, id: NodeId) -> Outcome {
        let next = self.next_member;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        // The seat is remembered until it is cleared: assigning twice would forget one that may still be in use.
        if node.member.is_some() {
            return Outcome::refused("taken", format!("node {id} has a seat already"));
        }
        node.member = Some(MemberId(next));
        self.next_member += 1;
        Outcome::Done
    }

    fn member_clear(&mut self, id: NodeId) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        node.member = None;
        node.seated = false;
        Outcome::Done
    }

    fn leading(&mut self, id: NodeId) -> Outcome {
        let Some(node) = self.nodes.get(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        let name = node.name.clone();
        self.event("leader", &name, "leads now");
        Outcome::Done
    }
}
