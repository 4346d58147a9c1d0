//! The replicated state: equal on every member at an equal index.
//!
//! Only `apply.rs` and the files beside it change it, one command of the log at a time. It never reads a clock: its
//! time is the stamp in the entry. It encodes to the snapshot that new members start from.

mod apply;
mod authority;
mod clients;
mod events;
mod instances;
mod join;
mod kv;
mod recovery;
mod script;
mod services;
mod tasks;

pub use apply::Outcome;
pub use clients::Clients;
pub(super) use events::bounded;
pub use script::{ENTRY, NO_EARLIER_MODULES, check_modules, digest};
pub use services::has_labels;

use crate::model::{
    authority::Rotation,
    codec::{self, DecodeError},
    command::{Joiner, KINDS_KNOWN},
    event::Event,
    ids::{ClusterId, MemberId, NodeId, OperationId},
    instance::{InstanceDesired, InstanceRecord, InstanceState},
    limits::SNAPSHOT_BYTES_MAX,
    node::{NodeRecord, NodeState, Role},
    script::ScriptRecord,
    service::ServiceRecord,
    settings::Settings,
    task::{TaskNumber, TaskRecord},
    token::TokenRecord,
};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct State {
    #[n(0)]
    pub cluster: ClusterId,
    #[n(1)]
    pub name: String,
    /// The CA's certificate, DER.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ca: Vec<u8>,
    /// Raised by `recover` and `restore`: operations of different lives never share an id.
    #[n(3)]
    pub epoch: u32,
    #[n(4)]
    pub settings: Settings,
    /// How many nodes the cluster keeps.
    #[n(5)]
    pub desired_nodes: u32,
    #[n(6)]
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Nodes that were removed: refused for ever. Newest last.
    #[n(7)]
    pub removed: VecDeque<NodeId>,
    #[n(8)]
    pub next_member: u64,
    #[n(9)]
    pub instances: BTreeMap<OperationId, InstanceRecord>,
    #[n(10)]
    pub next_ordinal: u32,
    /// Stamps of launches within the last hour: what the spending brake counts.
    #[n(11)]
    pub launches: VecDeque<u64>,
    #[n(12)]
    pub tokens: BTreeMap<String, TokenRecord>,
    #[n(13)]
    pub kv: BTreeMap<String, KvRecord>,
    #[n(14)]
    pub kv_bytes: u64,
    #[n(15)]
    pub clients: Clients,
    #[n(16)]
    pub events: VecDeque<Event>,
    #[n(17)]
    pub next_event: u64,
    /// The newest stamp applied.
    #[n(18)]
    pub stamp_ms: u64,
    /// The cluster is being taken down: nothing is launched or repaired any more.
    #[n(19)]
    pub destroying: bool,
    /// Newest kind of command in the log: only nodes that understand it may become members.
    #[n(20)]
    pub kinds_in_use: u32,
    // 21 was another field's.
    #[n(22)]
    #[cbor(default)]
    pub services: BTreeMap<String, ServiceRecord>,
    #[n(23)]
    #[cbor(default)]
    pub tasks: BTreeMap<TaskNumber, TaskRecord>,
    /// The number of the newest task; the first one is 1.
    #[n(24)]
    #[cbor(default)]
    pub last_task: u64,
    #[n(25)]
    #[cbor(default)]
    pub script: ScriptRecord,
    /// Fewer nodes than `min_nodes` live.
    #[n(26)]
    #[cbor(default)]
    pub below_min: bool,
    /// A new CA is about to take the place of `ca`.
    #[n(28)]
    pub rotation: Option<Rotation>,
    /// Counts the steps of such changes.
    #[n(29)]
    #[cbor(default)]
    pub ca_version: u64,
    /// What the next launches are made of.
    #[n(27)]
    #[cbor(default)]
    pub launch: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KvRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// Log index of the write.
    #[n(1)]
    pub version: u64,
}

impl State {
    /// A new cluster of one: `node` is Raft member 1 and, if a provider made it, instance 1.
    pub fn genesis(cluster: ClusterId, name: String, ca: Vec<u8>, node: Joiner, stamp_ms: u64) -> State {
        let counters =
            State { next_member: 2, next_ordinal: 1, next_event: 1, desired_nodes: 1, kinds_in_use: KINDS_KNOWN, ..State::default() };
        let mut state = State { cluster, name, ca, stamp_ms, ..counters };
        if let Some(id) = &node.instance {
            let operation = OperationId { cluster, epoch: 0, index: 0 };
            let record = InstanceRecord {
                operation,
                ordinal: 1,
                id: Some(id.clone()),
                address: node.address.clone(),
                state: InstanceState::Running,
                desired: InstanceDesired::Running,
                node: Some(node.id),
                launched_ms: stamp_ms,
                problem: String::new(),
                since_ms: stamp_ms,
                parameters: BTreeMap::new(),
            };
            state.instances.insert(operation, record);
            state.next_ordinal = 2;
        }
        let mut record = join::record(node, Role::Manager, stamp_ms);
        record.member = Some(MemberId(1));
        record.seated = true;
        record.state = NodeState::Ready;
        state.event("node.joined", &record.name, "the first node of the cluster");
        state.nodes.insert(record.id, record);
        state
    }

    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// # Errors
    /// Bytes of another version, malformed, or larger than `SNAPSHOT_BYTES_MAX`.
    pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(DecodeError::Malformed);
        }
        codec::decode(bytes)
    }

    /// Equal states, equal digests.
    pub fn digest(&self) -> u64 {
        codec::fingerprint(&self.encode())
    }

    pub fn node_of_member(&self, member: MemberId) -> Option<&NodeRecord> {
        self.nodes.values().find(|n| n.member == Some(member))
    }

    /// By id or by name.
    pub fn find_node(&self, text: &str) -> Option<&NodeRecord> {
        text.parse().ok().and_then(|id: NodeId| self.nodes.get(&id)).or_else(|| self.nodes.values().find(|n| n.name == text))
    }

    pub fn instance_of(&self, node: NodeId) -> Option<&InstanceRecord> {
        self.instances.values().find(|i| i.node == Some(node))
    }

    /// Its machine is to end or has ended: it leaves the Raft group, then the cluster.
    pub fn is_leaving(&self, node: &NodeRecord) -> bool {
        node.leaving || self.instance_of(node.id).is_some_and(|i| i.desired == InstanceDesired::Terminated || i.ended())
    }

    /// A membership entry was applied: seats in the group are marked as used.
    pub fn seats_taken(&mut self, is_member: impl Fn(MemberId) -> bool) {
        for node in self.nodes.values_mut() {
            node.seated |= node.member.is_some_and(&is_member);
        }
    }
}
