//! What only a leader does: it observes, plans, proposes what the plan says and makes its calls.
//!
//! A term begins with the entry `Leading`; until it is applied the state may lag behind what earlier leaders decided,
//! so nothing is planned before.

use super::Replica;
use crate::{
    logic::{
        plan::{self, Call, CallKey, Decision, Known, Observed, Sight},
        token,
    },
    model::{
        command::Command,
        ids::{MemberId, NodeId, OperationId},
        instance::{InstanceDesired, InstanceState},
        io::{Effect, Level, Provided, ProviderCall},
        node::NodeState,
        query::LaunchRequest,
    },
};

const PLAN_EVERY_MS: u64 = 500;
/// A plan that is due waits this long for something else to wake the node, usually its own heartbeat.
const PLAN_WAITS_MS: u64 = 200;
/// Who was heard within this time runs, whatever the provider's list lacks.
const SPOKE_LATELY_MS: u64 = 2_000;

pub(super) struct Leading {
    term: u64,
    observed: Observed,
    /// Log index of this term's `Leading`: planning begins once it is applied.
    begins_at: Option<u64>,
    /// Log index up to which this leader's own proposals reach: no new plan before it is applied.
    proposed_to: u64,
    plan_soon: bool,
    planned_at: u64,
    last_stamp: u64,
    wanted: Vec<Command>,
}

impl Leading {
    pub(super) fn may_call(&self, key: CallKey, now: u64) -> bool {
        self.observed.may_call(key, now)
    }

    /// A node's reports take this long to be answered.
    pub(super) fn took(&mut self, node: NodeId, round_trip_ms: u32) {
        self.observed.took(node, round_trip_ms);
    }
}

impl Replica {
    pub(super) fn check_leadership(&mut self) {
        let term = self.consensus.as_ref().filter(|c| c.is_leader()).map(|c| c.term());
        if self.leading.as_ref().map(|l| l.term) == term {
            return;
        }
        if self.leading.take().is_some() {
            self.fail_all("this node is no longer the leader");
            self.log(Level::Info, "no longer leads".into());
        }
        let Some(term) = term else { return };
        self.log(Level::Info, format!("leads in term {term}"));
        self.leading = Some(Leading {
            term,
            observed: Observed::new(self.now.mono),
            begins_at: None,
            proposed_to: 0,
            plan_soon: true,
            planned_at: 0,
            last_stamp: 0,
            wanted: Vec::new(),
        });
    }

    /// Plans if it is time to. True if something was proposed.
    pub(super) fn lead(&mut self) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        let Some(begins_at) = leading.begins_at else {
            let proposed = self.propose(None, None, Command::Leading(self.config.node));
            let leading = self.leading.as_mut().expect("checked above");
            leading.begins_at = proposed.ok().map(|(_, index)| index);
            return leading.begins_at.is_some();
        };
        let due = leading.plan_soon || leading.planned_at + PLAN_EVERY_MS <= self.now.mono;
        if !due || self.applied < begins_at.max(leading.proposed_to) {
            return false;
        }
        leading.plan_soon = false;
        leading.planned_at = self.now.mono;
        leading.observed.watch(&self.state, self.now.mono);
        if let Some(consensus) = &self.consensus {
            leading.observed.watch_voters(consensus.membership().voters, self.now.mono);
        }
        let wanted = std::mem::take(&mut leading.wanted);
        let mut decisions = self.with_sight(plan::decide).unwrap_or_default();
        decisions
            .extend(wanted.into_iter().chain(self.own_news()).chain(self.own_update()).chain(self.own_papers()).map(Decision::Propose));
        self.hand_over();
        let mut proposed = false;
        for decision in decisions {
            proposed |= self.execute(decision);
        }
        proposed
    }

    fn execute(&mut self, decision: Decision) -> bool {
        match decision {
            Decision::Propose(command) => {
                let Ok((_, index)) = self.propose(None, None, command) else { return false };
                if let Some(leading) = &mut self.leading {
                    leading.proposed_to = index;
                }
                true
            }
            Decision::Change(change) => {
                let Some(consensus) = &mut self.consensus else { return false };
                let taken = consensus.propose_change(&change).is_ok();
                if taken {
                    self.log(Level::Info, format!("proposes the membership change {change:?}"));
                }
                taken
            }
            Decision::Transfer(member) => {
                if let Some(consensus) = self.consensus.as_mut().filter(|c| !c.is_transferring()) {
                    consensus.transfer(member);
                    return true;
                }
                false
            }
            Decision::Call(call) => {
                self.call(call);
                false
            }
        }
    }

    pub(super) fn call(&mut self, call: Call) {
        let Some(leading) = &mut self.leading else { return };
        let address = |state: &crate::logic::state::State, node: NodeId| state.nodes.get(&node).map(|n| n.address.clone());
        let provide = match &call {
            Call::Enlist { node, member } => {
                let (Some(address), Some(keyring)) = (address(&self.state, *node), self.config.keyring.clone()) else { return };
                leading.observed.begin(call.key(), self.now.mono);
                return self.effects.push_back(Effect::Enlist { node: *node, address, member: *member, keyring });
            }
            Call::Discharge { node, member } => {
                let Some(address) = address(&self.state, *node) else { return };
                leading.observed.begin(call.key(), self.now.mono);
                return self.effects.push_back(Effect::Discharge { node: *node, address, member: *member });
            }
            Call::Launch(operation) => match self.launch_request(*operation) {
                Some(request) => ProviderCall::Launch(request),
                None => return,
            },
            Call::Describe => ProviderCall::Describe,
            Call::Start { id, .. } => ProviderCall::Start { id: id.clone() },
            Call::Stop { id, .. } => ProviderCall::Stop { id: id.clone() },
            Call::Terminate { id, .. } => ProviderCall::Terminate { id: id.clone() },
            Call::Attach { id, address } => ProviderCall::Attach { id: id.clone(), address: address.clone() },
        };
        let Some(leading) = &mut self.leading else { return };
        let id = leading.observed.begin(call.key(), self.now.mono);
        self.effects.push_back(Effect::Provide { id: self.call_id(id), call: provide });
    }

    /// Ids of one leadership must not be mistaken for those of the next.
    fn call_id(&self, id: u64) -> u64 {
        let term = self.leading.as_ref().map_or(0, |l| l.term);
        (term << 32) | (id & 0xffff_ffff)
    }

    fn launch_request(&self, operation: OperationId) -> Option<LaunchRequest> {
        let instance = self.state.instances.get(&operation)?;
        let keyring = self.config.keyring.as_ref()?;
        let ready = self.state.nodes.values().filter(|n| n.member.is_some() && n.state == NodeState::Ready && n.id != self.config.node);
        let mut seeds = vec![self.config.address.clone()];
        seeds.extend(ready.map(|n| n.address.clone()));
        Some(LaunchRequest {
            operation,
            ordinal: instance.ordinal,
            cluster_name: self.state.name.clone(),
            ca: self.state.ca.clone(),
            token: token::launch_token(keyring, &self.state.ca, operation),
            seeds,
            parameters: instance.parameters.clone(),
        })
    }

    fn known_instances(&self) -> Vec<Known> {
        let Some(leading) = &self.leading else { return Vec::new() };
        let speaks = |node: NodeId| {
            let recently = leading.observed.heard_at(node) + SPOKE_LATELY_MS > self.now.mono;
            node == self.config.node || leading.observed.has_heard(node) && recently
        };
        let alive = self.state.instances.values().filter(|i| !i.ended());
        alive
            .map(|i| Known {
                operation: i.operation,
                id: i.id.clone(),
                expected: i.node.is_some_and(speaks) || i.id.is_none() && i.desired != InstanceDesired::Terminated,
            })
            .collect()
    }

    pub(super) fn handle_provided(&mut self, id: u64, outcome: Provided) {
        let now = self.now.mono;
        let known = self.known_instances();
        let Some(leading) = self.leading.as_mut().filter(|l| l.term == id >> 32) else { return };
        let Some((key, began)) = leading.observed.end(id & 0xffff_ffff) else { return };
        leading.plan_soon = true;
        let observed = &mut leading.observed;
        match (key, outcome) {
            (_, Provided::Launched { operation, id, address }) => {
                observed.succeeded(key);
                let found = observed.find(operation);
                (found.id, found.address, found.state) = (Some(id), address, Some(InstanceState::Running));
                found.problem.clear();
            }
            (_, Provided::Described(seen)) => {
                observed.succeeded(key);
                observed.described(&seen, &known, began);
            }
            (CallKey::Terminate(operation), Provided::Done) => observed.find(operation).state = Some(InstanceState::Terminated),
            (CallKey::Start(operation), Provided::Done) => {
                // Counts as a failed start until the node is back; `heard` forgives it.
                observed.back_off(key, now);
                let found = observed.find(operation);
                found.state = Some(InstanceState::Pending);
                found.problem.clear();
            }
            (CallKey::Stop(_), Provided::Done) => observed.back_off(key, now),
            (CallKey::Attach, Provided::Done) => observed.attached(now),
            (_, Provided::Done) => observed.succeeded(key),
            (key, Provided::Failed { why, final_ }) => {
                observed.back_off(key, now);
                if let CallKey::Launch(operation) | CallKey::Start(operation) | CallKey::Stop(operation) | CallKey::Terminate(operation) =
                    key
                {
                    let found = observed.find(operation);
                    found.problem = why.clone();
                    match key {
                        CallKey::Launch(_) if final_ => found.state = Some(InstanceState::Failed),
                        // There is no such machine any more: what was wanted.
                        CallKey::Terminate(_) if final_ => found.state = Some(InstanceState::Terminated),
                        _ => {}
                    }
                }
                self.log(Level::Warn, format!("the provider failed at {key:?}: {why}"));
            }
        }
    }

    /// A node answered `Enlist` or `Discharge`, or could not be asked.
    pub(super) fn handle_seat_answer(&mut self, key: CallKey, ok: bool) {
        let now = self.now.mono;
        let Some(leading) = &mut self.leading else { return };
        if !leading.observed.end_key(key) {
            return;
        }
        leading.plan_soon = true;
        match key {
            CallKey::Enlist(member) if ok => {
                leading.observed.succeeded(key);
                leading.observed.enlisted(member);
                self.handed_over(member);
            }
            CallKey::Discharge(member) if ok => leading.observed.discharged(member),
            _ => leading.observed.back_off(key, now),
        }
    }

    /// A node holds a seat that the state does not give it (any more): take it away.
    pub(super) fn discharge_stray(&mut self, node: NodeId, member: MemberId) {
        let now = self.now.mono;
        let free = self.leading.as_ref().is_some_and(|l| l.observed.may_call(CallKey::Discharge(member), now));
        let in_group = self.consensus.as_ref().is_some_and(|c| c.membership().contains(member));
        if free && !in_group && self.state.node_of_member(member).is_none() {
            self.call(Call::Discharge { node, member });
        }
    }

    pub(super) fn heard(&mut self, node: NodeId) {
        let Some(leading) = &mut self.leading else { return };
        leading.observed.hear(node, self.now.mono);
        let Some(record) = self.state.nodes.get(&node) else { return };
        if matches!(record.state, NodeState::Joining | NodeState::Lost) {
            leading.plan_soon = true;
        } else if let Some(instance) = self.state.instance_of(node) {
            leading.observed.succeeded(CallKey::Start(instance.operation));
        }
    }

    pub(super) fn handle_unreachable(&mut self, node: NodeId) {
        let members: Vec<MemberId> = self.state.nodes.get(&node).and_then(|n| n.member).into_iter().collect();
        if let Some(consensus) = &mut self.consensus {
            for member in members {
                consensus.unreachable(member);
            }
        }
        self.contact_lost(node);
        if let Some(leading) = &mut self.leading {
            if !leading.observed.is_unreachable(node) {
                leading.plan_soon = true;
            }
            leading.observed.set_unreachable(node);
        }
    }

    /// It leads, and its state holds everything that earlier leaders decided.
    pub(super) fn leads_settled(&self) -> bool {
        self.leading.as_ref().and_then(|l| l.begins_at).is_some_and(|at| self.applied >= at)
    }

    /// A person wants this node gone: another one becomes the manager that leads.
    pub(super) fn stand_aside(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.observed.stand_aside(self.now.mono);
            leading.plan_soon = true;
        }
    }

    pub(super) fn plan_soon(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.plan_soon = true;
        }
    }

    pub(super) fn propose_soon(&mut self, command: Command) {
        if let Some(leading) = &mut self.leading {
            // A node's newer word on its tasks stands for the older one.
            let reporter = |c: &Command| if let Command::TaskSeen { node, .. } = c { Some(*node) } else { None };
            leading.wanted.retain(|c| *c != command && (reporter(c).is_none() || reporter(c) != reporter(&command)));
            leading.wanted.push(command);
            leading.plan_soon = true;
        }
    }

    /// Never behind what was stamped before, whatever this node's clock says.
    pub(super) fn next_stamp(&mut self) -> u64 {
        let floor = self.state.stamp_ms.max(self.now.wall);
        let Some(leading) = &mut self.leading else { return floor };
        leading.last_stamp = leading.last_stamp.max(floor);
        leading.last_stamp
    }

    pub(super) fn leading_deadline(&self) -> Option<u64> {
        let leading = self.leading.as_ref()?;
        // Before that is applied nothing is planned, however often it is asked for.
        if self.applied < leading.begins_at?.max(leading.proposed_to) {
            return None;
        }
        Some(leading.planned_at.max(self.now.mono.saturating_sub(PLAN_EVERY_MS)) + PLAN_EVERY_MS + PLAN_WAITS_MS)
    }

    /// Runs `f` on what this leader sees. None on a node that does not lead.
    pub(super) fn with_sight<T>(&self, f: impl Fn(&Sight) -> T) -> Option<T> {
        let (leading, consensus) = (self.leading.as_ref()?, self.consensus.as_ref()?);
        let caught_up = |member| consensus.is_caught_up(member);
        Some(f(&Sight {
            state: &self.state,
            membership: &consensus.membership(),
            observed: &leading.observed,
            me: self.config.node,
            now: self.now,
            lost_after_ms: self.config.timings.lost_after_ms,
            swap_after_ms: self.config.timings.swap_after_ms,
            has_provider: self.config.has_provider,
            caught_up: &caught_up,
        }))
    }
}
