//! What this leader has seen since it leads: who spoke when, what the provider said, which calls are under way.
//!
//! Lost with leadership, on purpose: the next leader looks for itself.

use crate::{
    logic::state::State,
    model::{
        ids::{MemberId, NodeId, OperationId},
        instance::{InstanceSeen, InstanceState},
        node::NodeState,
        service::Roll,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// A call not answered for this long is taken for lost.
const CALL_FORGOTTEN_AFTER_MS: u64 = 180_000;
const BACKOFF_MAX_MS: u64 = 30_000;
/// An instance absent from this many answers in a row, over this time, is gone (EC2's describes lag behind its launches).
const ABSENT_IS_GONE: u32 = 3;
const ABSENT_IS_GONE_AFTER_MS: u64 = 10_000;
/// A leader stands aside this long after it was asked to: longer than whoever asked waits before asking again.
const ASIDE_FOR_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKey {
    Launch(OperationId),
    Describe,
    Start(OperationId),
    Stop(OperationId),
    Terminate(OperationId),
    Attach,
    Enlist(MemberId),
    Discharge(MemberId),
}

/// What the provider last said of an instance, beyond what the state records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub id: Option<String>,
    pub address: String,
    pub state: Option<InstanceState>,
    pub problem: String,
    absent: u32,
    absent_since: u64,
}

/// An instance as the state knows it, when the provider is asked.
#[derive(Clone, Debug)]
pub struct Known {
    pub operation: OperationId,
    pub id: Option<String>,
    /// Its absence from an answer proves nothing: its node speaks, or its launch is still to be answered.
    pub expected: bool,
}

#[derive(Clone, Debug, Default)]
struct Tries {
    failed: u32,
    not_before: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Monotonic time at which this leader began.
    pub since: u64,
    heard: BTreeMap<NodeId, u64>,
    unreachable: BTreeSet<NodeId>,
    under_way: BTreeMap<CallKey, (u64, u64)>,
    found: BTreeMap<OperationId, Found>,
    tries: BTreeMap<CallKey, Tries>,
    enlisted: BTreeSet<MemberId>,
    discharged: BTreeSet<MemberId>,
    described_at: Option<u64>,
    attached_at: Option<u64>,
    /// When this leader first saw each instance, and each node that is lost or on its way as such.
    noticed: BTreeMap<OperationId, u64>,
    ailing: BTreeMap<NodeId, u64>,
    /// Versions of services that are being rolled out, and since when this leader sees it.
    rolling: BTreeMap<String, (u64, u64)>,
    /// Instances the provider bills that the state had no live record of.
    strays: Vec<(OperationId, String)>,
    /// The same, by the newest answer alone: also those whose end is under way.
    unaccounted: Vec<OperationId>,
    round_trips: BTreeMap<NodeId, u32>,
    /// The voters as this leader sees them, and since when they are these.
    voters: Vec<MemberId>,
    voters_since: u64,
    aside_since: Option<u64>,
    next_call: u64,
}

impl Observed {
    pub fn new(since: u64) -> Observed {
        Observed { since, ..Observed::default() }
    }

    pub fn hear(&mut self, node: NodeId, now: u64) {
        self.heard.insert(node, now);
        self.unreachable.remove(&node);
    }

    /// A new leader gives every node the benefit of the doubt from its own start on.
    pub fn heard_at(&self, node: NodeId) -> u64 {
        self.heard.get(&node).copied().unwrap_or(self.since)
    }

    pub fn has_heard(&self, node: NodeId) -> bool {
        self.heard.contains_key(&node)
    }

    pub fn set_unreachable(&mut self, node: NodeId) {
        self.unreachable.insert(node);
    }

    pub fn is_unreachable(&self, node: NodeId) -> bool {
        self.unreachable.contains(&node)
    }

    /// How long a node's reports take to be answered, by its own word.
    pub fn took(&mut self, node: NodeId, round_trip_ms: u32) {
        self.round_trips.insert(node, round_trip_ms);
    }

    pub fn round_trip_ms(&self, node: NodeId) -> Option<u32> {
        self.round_trips.get(&node).copied()
    }

    /// Looks at the voters before each plan.
    pub fn watch_voters(&mut self, voters: Vec<MemberId>, now: u64) {
        if self.voters != voters {
            (self.voters, self.voters_since) = (voters, now);
        }
    }

    /// Since when the voters are the ones they are; none before the first look.
    pub fn voters_since(&self) -> Option<u64> {
        (!self.voters.is_empty()).then_some(self.voters_since)
    }

    /// Somebody asked at `now` that the leader be removed.
    pub fn stand_aside(&mut self, now: u64) {
        self.aside_since = Some(now);
    }

    /// Whether the leader is to give up its vote to whoever can take it. Whoever asked for it asks again as long as it is
    /// wanted.
    pub fn stands_aside(&self, now: u64) -> bool {
        self.aside_since.is_some_and(|since| since + ASIDE_FOR_MS > now)
    }

    pub fn is_under_way(&self, key: CallKey) -> bool {
        self.under_way.contains_key(&key)
    }

    /// Whether the call may be made now: not under way, and its back-off has passed.
    pub fn may_call(&self, key: CallKey, now: u64) -> bool {
        !self.is_under_way(key) && self.tries.get(&key).is_none_or(|t| t.not_before <= now)
    }

    pub fn begin(&mut self, key: CallKey, now: u64) -> u64 {
        self.under_way.retain(|_, (_, since)| *since + CALL_FORGOTTEN_AFTER_MS > now);
        if let CallKey::Terminate(operation) = key {
            self.strays.retain(|(stray, _)| *stray != operation);
        }
        self.next_call += 1;
        self.under_way.insert(key, (self.next_call, now));
        self.next_call
    }

    /// The call that `id` belongs to, and when it began. It is no longer under way.
    pub fn end(&mut self, id: u64) -> Option<(CallKey, u64)> {
        let key = self.under_way.iter().find(|(_, (call, _))| *call == id).map(|(key, (_, since))| (*key, *since))?;
        self.under_way.remove(&key.0);
        Some(key)
    }

    pub fn end_key(&mut self, key: CallKey) -> bool {
        self.under_way.remove(&key).is_some()
    }

    /// 1 s, 2 s, 4 s … 30 s.
    pub fn back_off(&mut self, key: CallKey, now: u64) {
        let tries = self.tries.entry(key).or_default();
        tries.failed += 1;
        tries.not_before = now + (500u64 << tries.failed.min(10)).min(BACKOFF_MAX_MS);
    }

    pub fn succeeded(&mut self, key: CallKey) {
        self.tries.remove(&key);
    }

    pub fn found(&self, operation: OperationId) -> Option<&Found> {
        self.found.get(&operation)
    }

    pub fn find(&mut self, operation: OperationId) -> &mut Found {
        self.found.entry(operation).or_default()
    }

    /// A describe that began at `began` answered.
    pub fn described(&mut self, seen: &[InstanceSeen], known: &[Known], began: u64) {
        self.described_at = Some(began);
        let is_known = |seen: &InstanceSeen| known.iter().any(|k| seen.operation == Some(k.operation));
        let billed = |seen: &&InstanceSeen| seen.state != InstanceState::Terminated && !is_known(seen);
        self.strays = seen.iter().filter(billed).filter_map(|seen| Some((seen.operation?, seen.id.clone()))).collect();
        self.unaccounted = self.strays.iter().map(|(operation, _)| *operation).collect();
        for Known { operation, id, expected } in known {
            let found = self.found.entry(*operation).or_default();
            let matches = |s: &&InstanceSeen| s.operation == Some(*operation) || (id.is_some() && Some(&s.id) == id.as_ref());
            match seen.iter().find(matches) {
                Some(seen) => {
                    found.absent = 0;
                    found.id = Some(seen.id.clone());
                    found.address = seen.address.clone();
                    found.state = Some(seen.state);
                }
                None if *expected => found.absent = 0,
                None => {
                    if found.absent == 0 {
                        found.absent_since = began;
                    }
                    found.absent += 1;
                    if found.absent >= ABSENT_IS_GONE && found.absent_since + ABSENT_IS_GONE_AFTER_MS <= began {
                        found.state = Some(InstanceState::Terminated);
                    }
                }
            }
        }
        self.found.retain(|operation, _| known.iter().any(|k| k.operation == *operation));
    }

    /// See `described`; which of them are ours, and not wanted, is for the plan to say.
    pub fn strays(&self) -> &[(OperationId, String)] {
        &self.strays
    }

    /// Machines the provider bills that had no live record when it was last asked.
    pub fn unaccounted(&self) -> &[OperationId] {
        &self.unaccounted
    }

    /// Looks at the state before each plan: what a leader waits for it times itself. (Stamps may stand still: after a
    /// leader whose clock was ahead they do so for as long as it was.)
    pub fn watch(&mut self, state: &State, now: u64) {
        let ails = |node: &NodeId| state.nodes.get(node).is_some_and(|n| matches!(n.state, NodeState::Lost | NodeState::Joining));
        self.ailing.retain(|node, _| ails(node));
        self.round_trips.retain(|node, _| state.nodes.contains_key(node));
        self.heard.retain(|node, _| state.nodes.contains_key(node));
        self.unreachable.retain(|node| state.nodes.contains_key(node));
        let has_seat = |member: &MemberId| state.node_of_member(*member).is_some();
        self.enlisted.retain(has_seat);
        self.discharged.retain(has_seat);
        let strays = &self.strays;
        self.tries.retain(|key, tries| match key {
            _ if tries.not_before > now => true,
            CallKey::Describe | CallKey::Attach => true,
            CallKey::Enlist(member) | CallKey::Discharge(member) => has_seat(member),
            CallKey::Launch(operation) | CallKey::Start(operation) | CallKey::Stop(operation) | CallKey::Terminate(operation) => {
                state.instances.contains_key(operation) || strays.iter().any(|(stray, _)| stray == operation)
            }
        });
        for node in state.nodes.keys().filter(|node| ails(node)) {
            self.ailing.entry(*node).or_insert(now);
        }
        self.noticed.retain(|operation, _| state.instances.contains_key(operation));
        for operation in state.instances.keys() {
            self.noticed.entry(*operation).or_insert(now);
        }
        self.watch_rolls(state, now);
    }

    fn watch_rolls(&mut self, state: &State, now: u64) {
        let rolls = |name: &String| state.services.get(name).filter(|service| service.roll == Roll::Going).map(|service| service.version);
        self.rolling.retain(|name, (version, _)| rolls(name) == Some(*version));
        for name in state.services.keys() {
            if let Some(version) = rolls(name) {
                self.rolling.entry(name.clone()).or_insert((version, now));
            }
        }
    }

    /// Since when this leader sees the version being rolled out.
    pub fn rolling_since(&self, service: &str, version: u64) -> Option<u64> {
        self.rolling.get(service).filter(|(rolls, _)| *rolls == version).map(|(_, since)| *since)
    }

    /// When this leader first saw the instance. Never, if it has not watched yet: then it counts from now.
    pub fn noticed_at(&self, operation: OperationId) -> Option<u64> {
        self.noticed.get(&operation).copied()
    }

    /// Since when this leader sees the node lost or on its way.
    pub fn ailing_since(&self, node: NodeId) -> Option<u64> {
        self.ailing.get(&node).copied()
    }

    /// The public address leads here.
    pub fn attached(&mut self, now: u64) {
        self.attached_at = Some(now);
        self.succeeded(CallKey::Attach);
    }

    pub fn attached_at(&self) -> Option<u64> {
        self.attached_at
    }

    pub fn described_at(&self) -> Option<u64> {
        self.described_at
    }

    pub fn enlisted(&mut self, member: MemberId) {
        self.enlisted.insert(member);
    }

    pub fn is_enlisted(&self, member: MemberId) -> bool {
        self.enlisted.contains(&member)
    }

    pub fn discharged(&mut self, member: MemberId) {
        self.discharged.insert(member);
    }

    pub fn is_discharged(&self, member: MemberId) -> bool {
        self.discharged.contains(&member)
    }
}
