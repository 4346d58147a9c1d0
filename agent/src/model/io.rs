//! The two-way contract between mind and hands: what happened (`Input`) and what to do (`Effect`).
//!
//! Each effect that takes time carries an id and gets exactly one answering input (done, failed, timed out).
//! A Raft message that promises something comes out only after the `Persisted` it waits for went in.

use super::{
    authority::{Authorities, NextKeys, Papers},
    ids::{MemberId, NodeId, OperationId, Ticket},
    instance::InstanceSeen,
    query::{Answer, LaunchRequest, Peer, Principal, Report, Request, Way},
    script::{ScriptCall, ScriptReport},
    task::{Orders, TaskCall, TaskEvent, TaskNumber, TaskOrder},
};
use alloc::{string::String, sync::Arc, vec::Vec};
use minicbor::{Decode, Encode};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed: the pump slept until `poll_deadline()`.
    Tick,
    /// The store made `Effect::Persist { number }` durable.
    Persisted {
        number: u64,
    },
    /// The store failed: the node must stop rather than lie.
    StoreFailed {
        why: String,
    },
    /// Raft messages from a peer. The driver has checked that the certificate is `from`'s.
    Raft {
        from: NodeId,
        to: MemberId,
        messages: Vec<Vec<u8>>,
    },
    /// A whole snapshot from a peer: the Raft message without data, and the data.
    Snapshot {
        from: NodeId,
        to: MemberId,
        message: Vec<u8>,
        data: Vec<u8>,
    },
    /// How sending a snapshot ended.
    SnapshotSent {
        to: MemberId,
        ok: bool,
    },
    /// Connecting or sending to a node failed.
    Unreachable {
        node: NodeId,
    },
    /// Somebody asks something; answered by one `Effect::Reply`.
    Request {
        ticket: Ticket,
        principal: Principal,
        request: Request,
    },
    /// The asker went away.
    Cancelled {
        ticket: Ticket,
    },
    /// The leader's call: take this Raft seat, hold this keyring. Answered by `Reply` (Written) once durable.
    Enlist {
        ticket: Ticket,
        from: NodeId,
        member: MemberId,
        keyring: Keyring,
    },
    /// The leader's call: leave the seat, delete the keyring. Answered by `Reply` (Written) once durable.
    Discharge {
        ticket: Ticket,
        from: NodeId,
        member: MemberId,
    },
    /// Answer to `Effect::Enlist` / `Effect::Discharge`.
    Enlisted {
        node: NodeId,
        member: MemberId,
        ok: bool,
    },
    Discharged {
        node: NodeId,
        member: MemberId,
        ok: bool,
    },
    /// Answer to a provider effect.
    Provided {
        id: u64,
        outcome: Provided,
    },
    /// Answer to `Effect::Report`. `leader` is none when nobody answered or nobody leads.
    ReportAnswered {
        leader: Option<(NodeId, String)>,
        managers: Vec<Peer>,
        removed: Vec<NodeId>,
        orders: Orders,
        authorities: Authorities,
    },
    /// The lists of seeds were read: more places to report to while no manager is known.
    Seeds(Vec<Way>),
    /// What this node shows and believes: at the start of the process, and whenever it changed.
    Papers(Papers),
    /// The cluster answered a report: this node was removed from it for good.
    Removed,
    /// The runtime: what became of a task's process. At the start of the process one `Up { adopted }` or `Ended`
    /// comes for each task found on disk, then `TasksFound`.
    Task {
        number: TaskNumber,
        event: TaskEvent,
    },
    /// All tasks on disk were reported, with the orders they were started by.
    TasksFound {
        orders: Vec<TaskOrder>,
    },
    /// Answer to `Effect::Script`: the error is the script's, with file and line.
    Scripted {
        id: u64,
        outcome: Result<ScriptReport, String>,
    },
    /// SIGHUP: run the script's `configure` again.
    ReloadScript,
    /// SIGTERM: hand leadership on, then `Effect::Stop`.
    Shutdown,
}

/// How a provider call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provided {
    Launched {
        operation: OperationId,
        id: String,
        address: String,
    },
    /// All instances of this cluster the provider knows.
    Described(Vec<InstanceSeen>),
    /// Start, stop or terminate was accepted.
    Done,
    /// It failed. `final_` says that repeating the same call cannot help.
    Failed {
        why: String,
        final_: bool,
    },
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make this durable in one transaction, then say `Persisted { number }`. In order, one at a time.
    Persist {
        number: u64,
        batch: Batch,
    },
    /// Raft messages for a member, over the link to its node. May be dropped; `Unreachable` is welcome then.
    Send {
        node: NodeId,
        address: String,
        to: MemberId,
        messages: Vec<Vec<u8>>,
    },
    /// A snapshot, chunked; answered by `SnapshotSent`.
    SendSnapshot {
        node: NodeId,
        address: String,
        to: MemberId,
        message: Vec<u8>,
        data: Arc<Vec<u8>>,
    },
    Reply {
        ticket: Ticket,
        answer: Answer,
    },
    Enlist {
        node: NodeId,
        address: String,
        member: MemberId,
        keyring: Keyring,
    },
    Discharge {
        node: NodeId,
        address: String,
        member: MemberId,
    },
    /// Provider calls; each answered by one `Provided { id }`. Never emitted for replayed entries.
    Provide {
        id: u64,
        call: ProviderCall,
    },
    /// Tell the leader (or, if unknown, the first of `try_in_order` that answers) that this node lives.
    Report {
        report: Report,
        try_in_order: Vec<Way>,
    },
    /// Replicated state changed up to `index`: wake watchers, take the new access list.
    Changed {
        index: u64,
        access: Option<Arc<Access>>,
    },
    /// Save or (None) delete the keyring file; before the answer to Enlist/Discharge goes out.
    Keyring(Option<Keyring>),
    /// Save what this node is to run; before the next effect, which may carry it out.
    Assignment(Orders),
    /// Something for the runtime.
    Task(TaskCall),
    /// Run a hook of the cluster's script; answered by `Scripted { id }`. One at a time, and beside it one that a person
    /// waits for (an expression, or `configure` of modules without a version).
    Script {
        id: u64,
        call: ScriptCall,
    },
    /// This node leads no more (or the modules changed): end the executors; calls in flight need no answer.
    ScriptEnd,
    /// A line for the log.
    Log {
        level: Level,
        text: String,
    },
    /// Leave: the process exits with this reason. `failed` → exit code 2.
    Stop {
        failed: bool,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderCall {
    Launch(LaunchRequest),
    Describe,
    Start {
        id: String,
    },
    Stop {
        id: String,
    },
    Terminate {
        id: String,
    },
    /// Lets the cluster's public address lead to this instance.
    Attach {
        id: String,
        address: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// One durable transaction. Applied in this order: seat, snapshot, entries, hard state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Take a new Raft seat (all Raft data of an earlier one is deleted), or leave it.
    pub seat: Option<Seat>,
    /// Replaces the snapshot and drops all entries up to its index (all entries, if `reset_log`).
    pub snapshot: Option<SnapshotRecord>,
    /// Entries to write, ascending and gapless; stored entries at or after the first one's index are dropped first.
    pub entries: Vec<LogRecord>,
    /// Opaque, versioned by `raft.rs`.
    pub hard_state: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    Take(MemberId),
    Leave,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Index it stands at.
    pub index: u64,
    /// Opaque metadata (term, ConfState).
    pub meta: Vec<u8>,
    pub data: Arc<Vec<u8>>,
    /// Received from a leader: entries of ours are void, whatever their index.
    pub reset_log: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub index: u64,
    /// Opaque entry.
    pub bytes: Vec<u8>,
}

/// What the store held when the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub member: Option<MemberId>,
    pub snapshot: Option<SnapshotRecord>,
    pub entries: Vec<LogRecord>,
    pub hard_state: Option<Vec<u8>>,
}

/// Secrets that voters and learners hold. In a file of mode 0600, never in log or snapshot, never printed.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Keyring {
    /// PKCS#8 DER of the CA's key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ca_key: Vec<u8>,
    /// 32 bytes: derives launch tokens.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub join_key: Vec<u8>,
    /// 32 bytes: encrypts secrets at rest.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secrets_key: Vec<u8>,
    #[n(3)]
    pub epoch: u32,
    /// While one CA gives way to another.
    #[n(4)]
    pub next: Option<NextKeys>,
}

impl core::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keyring(..)")
    }
}

/// Who may talk to this node: drivers check certificates against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Node, its raw ed25519 public key, whether it is a manager now (voter or learner). A node without
    /// Raft data knows managers only, from the last answer to its report.
    pub nodes: Vec<(NodeId, Vec<u8>, bool)>,
    pub removed: Vec<NodeId>,
    /// Where a follower forwards to.
    pub leader: Option<(NodeId, String)>,
    pub authorities: Authorities,
}
