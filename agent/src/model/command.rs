//! What the log carries. Only `logic/state/apply.rs` carries it out.
//!
//! A new kind gets the next number and raises `KINDS_KNOWN`; it is proposed only when every member understands it.

use super::{
    authority::{Papers, Stage},
    ids::{NodeId, OperationId, RequestId},
    instance::{InstanceDesired, InstanceState},
    node::{NodeState, Role},
    script::Declaration,
    service::{Roll, ServiceSpec},
    settings::SettingsChange,
    task::{TaskNumber, TaskSeen},
    token::Credential,
};
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
use minicbor::{Decode, Encode};

/// The newest kind of command this build understands.
pub const KINDS_KNOWN: u32 = 5;

/// One entry of the log, as the leader proposed it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// max(last stamp, the leader's wall clock): the only time replicated state knows.
    #[n(0)]
    pub stamp_ms: u64,
    /// Term of the leader that proposed it.
    #[n(1)]
    pub term: u64,
    /// Who retries, if anybody may.
    #[n(2)]
    pub request: Option<RequestId>,
    #[n(3)]
    pub command: Command,
    /// Set on a script's command: refused unless the entry is of this term.
    #[n(4)]
    pub fence: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    // 0 is not used: a cluster's first state is its first snapshot (`State::genesis`).
    // ---- what people ask for
    #[n(1)]
    Scale(#[n(0)] u32),
    #[n(2)]
    Configure(#[n(0)] SettingsChange),
    #[n(3)]
    KvSet {
        #[n(0)]
        key: String,
        #[cbor(n(1), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    #[n(4)]
    KvDelete(#[n(0)] String),
    #[n(5)]
    TokenCreate {
        #[n(0)]
        id: String,
        #[cbor(n(1), with = "minicbor::bytes")]
        hash: Vec<u8>,
        #[n(2)]
        role: Role,
        #[n(3)]
        ttl_ms: u64,
        #[n(4)]
        uses: u32,
    },
    #[n(6)]
    TokenRevoke(#[n(0)] String),
    /// A person or the plan takes a node out: it is revoked from here on. Its instance, if any, is to be terminated.
    #[n(7)]
    NodeRemove(#[n(0)] NodeId),
    /// Desired state of an instance, by the provider's id.
    #[n(8)]
    InstanceSet {
        #[n(0)]
        id: String,
        #[n(1)]
        desired: InstanceDesired,
    },
    /// No more launches or repairs, ever; all instances are to end.
    #[n(9)]
    Destroy,
    // ---- what joiners and nodes cause
    #[n(10)]
    Join {
        #[n(0)]
        credential: Credential,
        #[n(1)]
        node: Box<Joiner>,
    },
    /// What a node says of itself changed (address, size, build).
    #[n(11)]
    NodeUpdate {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        address: String,
        #[n(2)]
        cpus: u32,
        #[n(3)]
        memory: u64,
        #[n(4)]
        commands_known: u32,
    },
    // ---- what the leader's plan decides
    #[n(20)]
    NodeState {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        state: NodeState,
        #[n(2)]
        reason: String,
    },
    /// Gives a node the next member id.
    #[n(21)]
    MemberAssign(#[n(0)] NodeId),
    /// The node is out of the Raft group and has deleted its Raft data (or is gone).
    #[n(22)]
    MemberClear(#[n(0)] NodeId),
    /// Launch one instance. Refused by `apply` past the brakes. Its operation id is this entry's index.
    #[n(23)]
    Launch {
        #[n(0)]
        ordinal: u32,
        /// Resolved parameters, the same for whoever repeats the launch.
        #[n(1)]
        parameters: BTreeMap<String, String>,
    },
    #[n(24)]
    InstanceSeen {
        #[n(0)]
        operation: OperationId,
        /// The provider's id; none while unknown.
        #[n(1)]
        id: Option<String>,
        #[n(2)]
        address: String,
        #[n(3)]
        state: InstanceState,
        #[n(4)]
        problem: String,
    },
    /// A new leader says so; also settles the term's first entry.
    #[n(25)]
    Leading(#[n(0)] NodeId),
    // ---- scripts and services (kind 2)
    /// A new version of the script's modules, in force from here on.
    #[n(30)]
    ModulesPut(#[n(0)] BTreeMap<String, String>),
    /// The version before the one in force, again.
    #[n(31)]
    ModulesRollback,
    /// What `configure` of this module version declared (fenced). Equal to the last one: nothing changes.
    #[n(32)]
    Declare {
        #[n(0)]
        version: u64,
        #[n(1)]
        declaration: Box<Declaration>,
    },
    /// The script's run failed; empty: it went well.
    #[n(33)]
    ScriptError(#[n(0)] String),
    /// `leader()` completed in this term.
    #[n(34)]
    ScriptLed(#[n(0)] u64),
    /// By a script's hook (fenced) or a person: creates or changes one service.
    #[n(35)]
    ServiceSet {
        #[n(0)]
        name: String,
        #[n(1)]
        spec: Box<ServiceSpec>,
    },
    #[n(36)]
    ServiceScale {
        #[n(0)]
        name: String,
        #[n(1)]
        replicas: u32,
    },
    #[n(37)]
    ServiceRestart(#[n(0)] String),
    #[n(38)]
    ServiceRollback(#[n(0)] String),
    #[n(39)]
    ServiceRemove(#[n(0)] String),
    /// A person drains a node (true) or lets it take tasks again.
    #[n(40)]
    NodeDrain {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        drain: bool,
    },
    /// The plan places one task; `apply` numbers it. Refused if the version is not current any more.
    #[n(41)]
    TaskPlace {
        #[n(0)]
        service: String,
        #[n(1)]
        version: u64,
        #[n(2)]
        node: NodeId,
    },
    #[n(42)]
    TaskStop(#[n(0)] TaskNumber),
    /// It is not wanted and has ended (or its node is gone for good).
    #[n(43)]
    TaskForget(#[n(0)] TaskNumber),
    #[n(44)]
    TaskSeen {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        tasks: Vec<TaskSeen>,
    },
    /// The roll of this version came to an end.
    #[n(45)]
    Rolled {
        #[n(0)]
        service: String,
        #[n(1)]
        version: u64,
        #[n(2)]
        roll: Roll,
    },
    // ---- membership by hand (kind 3)
    /// A person wants this node to vote, or not to: carried out as a swap, whenever there is a partner.
    #[n(46)]
    NodePrefer {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        role: Role,
    },
    /// The number of live nodes fell below `min_nodes`, or reached it again.
    #[n(47)]
    MinNodes {
        #[n(0)]
        below: bool,
        /// Live nodes, for a person.
        #[n(1)]
        live: u32,
    },
    // ---- one CA gives way to another (kind 5)
    /// This CA (certificate, DER) is to take the place of the one in force. Every member of the group holds its key.
    #[n(48)]
    CaIntroduce(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The stage is over. Refused while a node is not ready for the next one, unless `force`.
    #[n(49)]
    CaAdvance {
        #[n(0)]
        from: Stage,
        #[n(1)]
        force: bool,
    },
    /// What a node shows and believes changed.
    #[n(50)]
    NodePapers {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        papers: Papers,
    },
}

impl Command {
    /// Whether it adds to what people and scripts keep in the state.
    pub fn adds(&self) -> bool {
        match self {
            Command::KvSet { .. } | Command::ModulesPut(_) | Command::Declare { .. } | Command::ServiceSet { .. } => true,
            Command::Configure(change) => change.launch.is_some(),
            _ => false,
        }
    }

    /// The kind a build must know to carry it out.
    pub fn kind(&self) -> u32 {
        match self {
            // Parameters of launches: a build that skips them would launch something else.
            Command::Configure(change) if change.launch.is_some() => 4,
            Command::Launch { parameters, .. } if !parameters.is_empty() => 4,
            Command::Scale(_) | Command::Configure(_) | Command::KvSet { .. } | Command::KvDelete(_) | Command::TokenCreate { .. } => 1,
            Command::TokenRevoke(_) | Command::NodeRemove(_) | Command::InstanceSet { .. } | Command::Destroy | Command::Join { .. } => 1,
            Command::NodeUpdate { .. } | Command::NodeState { .. } | Command::MemberAssign(_) | Command::MemberClear(_) => 1,
            Command::Launch { .. } | Command::InstanceSeen { .. } | Command::Leading(_) => 1,
            Command::NodePrefer { .. } | Command::MinNodes { .. } => 3,
            Command::CaIntroduce(_) | Command::CaAdvance { .. } | Command::NodePapers { .. } => 5,
            _ => 2,
        }
    }
}

/// Who wants in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Joiner {
    /// Derived from the joiner's public key.
    #[n(0)]
    pub id: NodeId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub address: String,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    #[n(4)]
    pub cpus: u32,
    #[n(5)]
    pub memory: u64,
    #[n(6)]
    pub labels: BTreeMap<String, String>,
    #[n(7)]
    pub instance: Option<String>,
    #[n(8)]
    pub commands_known: u32,
}
