//! What is asked of a replica, and what it answers.

use super::{
    authority::{Authorities, NextKeys, Papers, Stage},
    event::Event,
    ids::{ClusterId, MemberId, NodeId, OperationId, RequestId},
    instance::{InstanceDesired, InstanceRecord},
    node::{NodeRecord, Role},
    service::{ServiceRecord, ServiceSpec},
    settings::SettingsChange,
    task::{Orders, TaskRecord, TaskSeen},
    token::TokenRecord,
};
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};

/// Who asks, as the certificate (or the local socket) proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An administrator's certificate, or root/owner over control.sock.
    Admin,
    Node(NodeId),
    /// No certificate: may only join.
    Joiner,
    /// The cluster's script on the leader of this term: its writes are fenced by it.
    Script {
        term: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Write {
        id: RequestId,
        op: Op,
    },
    /// Linearizable unless `stale`.
    Read {
        stale: bool,
        query: Query,
    },
    /// The secret part of a token and who wants in.
    Join {
        secret: String,
        node: super::command::Joiner,
    },
    /// Whether the secret part of a token lets its holder fetch a program. No use of the token, and never forwarded.
    Fetch {
        secret: String,
    },
    /// A node's word about itself.
    Report(Report),
    /// What would change if these modules were applied (path to source), or, with none, if the modules before those in force
    /// were again; runs `configure` on a recording cluster.
    Plan {
        modules: Option<BTreeMap<String, String>>,
    },
    /// Evaluates an expression against the live cluster, on the leader.
    Eval {
        expression: String,
    },
    /// This node is to go on without these managers, which are gone for good; none: only look. Never forwarded.
    Recover {
        lost: Vec<NodeId>,
    },
}

/// Changes a person may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Scale(u32),
    Configure(SettingsChange),
    KvSet {
        key: String,
        value: Vec<u8>,
    },
    KvDelete(String),
    TokenCreate {
        role: Role,
        ttl_ms: u64,
        uses: u32,
    },
    TokenRevoke(String),
    /// Node id or name.
    NodeRemove(String),
    InstanceSet {
        id: String,
        desired: InstanceDesired,
    },
    Destroy,
    ModulesPut(BTreeMap<String, String>),
    ModulesRollback,
    /// Only scripts: people declare services in cluster.js.
    ServiceSet {
        name: String,
        spec: Box<ServiceSpec>,
    },
    ServiceScale {
        name: String,
        replicas: u32,
    },
    ServiceRestart(String),
    ServiceRollback(String),
    ServiceRemove(String),
    /// Node id or name.
    NodeDrain {
        node: String,
        drain: bool,
    },
    /// A new CA is to take the place of the one in force; these are its keys, made for this request.
    CaRotate(Box<NextKeys>),
    CaAdvance {
        from: Stage,
        force: bool,
    },
    /// Node id or name: it is to be a manager, or not.
    NodePrefer {
        node: String,
        role: Role,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Status,
    KvGet(String),
    KvList {
        prefix: String,
        after: String,
        limit: u32,
    },
    Tokens,
    Events {
        after: u64,
        limit: u32,
    },
    /// This node's own Raft position; never forwarded, always stale.
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub node: NodeId,
    /// Random per start of the process.
    pub boot: u64,
    pub address: String,
    pub cpus: u32,
    pub memory: u64,
    pub commands_known: u32,
    /// The Raft seat it holds.
    pub member: Option<MemberId>,
    /// Every task on it, as it is now.
    pub tasks: Vec<TaskSeen>,
    /// How long its last reports took to be answered, milliseconds; none before the first answer.
    pub round_trip_ms: Option<u32>,
    pub papers: Papers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Written {
        index: u64,
        result: Written,
    },
    Read {
        index: u64,
        view: View,
    },
    /// Ask this node instead: it leads. (The one that answers: ask again, it has only just begun to lead.)
    Elsewhere {
        leader: NodeId,
        address: String,
    },
    /// Let in: sign this key a certificate with these times.
    Joined(Admission),
    Reported {
        leader: NodeId,
        leader_address: String,
        managers: Vec<Peer>,
        removed: Vec<NodeId>,
        /** what this node is to run */
        orders: Orders,
        authorities: Authorities,
    },
    /// What an apply of those modules would change, and what went wrong in the script if anything did.
    Planned {
        changes: Vec<PlannedChange>,
        error: String,
    },
    /// The printed value of an expression, or the script's error.
    Evaluated {
        value: String,
        error: String,
    },
    /// What this node would go on from after the loss of the majority.
    Recover(Box<RecoverView>),
    /// Queues are full; nothing was changed. Try again.
    Busy,
    /// No leader or no quorum now; `why` names the members that are missing, as far as known.
    /// For a write: its outcome may be unknown; retrying with the same request id is safe.
    Unavailable {
        why: String,
    },
    /// The answer is no; nothing was changed. `code` is stable (`not_found`, `invalid`, `denied`, `limit`, `token_expired` …).
    Refused {
        code: &'static str,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverView {
    pub node: NodeId,
    pub name: String,
    pub last_index: u64,
    pub last_term: u64,
    /// The other managers that cannot be reached from here.
    pub missing: Vec<NodeRecord>,
}

/// Where a manager may be found, and which node that is, if it is known: a certificate of the cluster is held by many, so
/// whoever answers at an address is believed only if it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub node: Option<NodeId>,
    /// `host:port`.
    pub address: String,
}

impl Way {
    pub fn to(node: NodeId, address: String) -> Way {
        Way { node: Some(node), address }
    }

    /// To whoever is there.
    pub fn unknown(address: String) -> Way {
        Way { node: None, address }
    }
}

/// A manager as others need to know it: where it is and the key that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
    /// Raw ed25519 public key.
    pub public_key: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    TokenCreated { id: String, token: String },
    Existed(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub public_key: Vec<u8>,
    /// The entry's stamp: certificates made twice from it are byte for byte the same.
    pub stamp_ms: u64,
    pub ca: Vec<u8>,
    pub managers: Vec<Peer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    Status(alloc::boxed::Box<StatusView>),
    Kv { value: Option<Vec<u8>>, version: u64 },
    KvPage { entries: Vec<(String, Vec<u8>, u64)>, more: bool },
    Tokens(Vec<TokenRecord>),
    Events(Vec<Event>),
    Member(MemberView),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusView {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub leader: Option<NodeId>,
    pub desired_nodes: u32,
    pub managers: u32,
    pub nodes: Vec<NodeRecord>,
    pub instances: Vec<InstanceRecord>,
    pub events: Vec<Event>,
    pub term: u64,
    pub problems: Vec<String>,
    pub answered_by: NodeId,
    pub voters: Vec<MemberId>,
    pub learners: Vec<MemberId>,
    pub services: Vec<ServiceView>,
    /// Version of the script's modules in force, the one last applied, and why its newest run failed.
    pub script_version: u64,
    pub script_applied: u64,
    pub script_error: String,
    pub rotation: Option<RotationView>,
}

/// One CA giving way to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationView {
    pub stage: Stage,
    /// Who is not ready for what comes next, by name.
    pub waits_for: Vec<String>,
}

/// A service with its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub record: ServiceRecord,
    /// Copies wanted now (a number by hand beats the spec's; `every-node` counts nodes).
    pub desired: u32,
    pub tasks: Vec<TaskRecord>,
    /// Why copies are missing, one sentence each.
    pub unplaced: Vec<String>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    /// '+', '~' or '-'.
    pub sign: char,
    /// e.g. `service web`.
    pub subject: String,
    /// What changes, for a person: `replicas 2 -> 3`.
    pub detail: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberView {
    pub member: u64,
    pub term: u64,
    pub commit: u64,
    pub applied: u64,
    pub digest: u64,
    /// leader | follower | candidate | learner | none
    pub role: &'static str,
    pub leader_member: u64,
}

/// A launch as the provider driver is to make it: the same operation, the same request, whoever repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchRequest {
    pub operation: OperationId,
    pub ordinal: u32,
    pub cluster_name: String,
    /// The CA's certificate, DER: whom the new node may believe.
    pub ca: Vec<u8>,
    /// `DISCO1-…`, single-use, derived: never logged.
    pub token: String,
    /// Addresses of managers the new node may ask.
    pub seeds: Vec<String>,
    pub parameters: alloc::collections::BTreeMap<String, String>,
}
