//! One running copy of a service on one node.

use super::{ids::NodeId, service::ServiceSpec};
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
use minicbor::{Decode, Encode};

/// Counts up over the whole cluster, never reused. Shown as `service.number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TaskNumber(#[n(0)] pub u64);

/// A task in the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskRecord {
    #[n(0)]
    pub number: TaskNumber,
    #[n(1)]
    pub service: String,
    #[n(2)]
    pub version: u64,
    #[n(3)]
    pub node: NodeId,
    /// False: it is to stop, and to be forgotten once its node says so (or is gone for good).
    #[n(4)]
    pub wanted: bool,
    #[n(5)]
    pub seen: TaskSeen,
    #[n(6)]
    pub placed_ms: u64,
    /// It has stayed up for `grace` at least once: what fails later is no fault of an update.
    #[n(7)]
    pub started: bool,
}

/// What its node last said of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskSeen {
    #[n(0)]
    pub number: TaskNumber,
    #[n(1)]
    pub state: TaskState,
    #[n(2)]
    pub exit: Option<Exit>,
    /// Why it does not run, for a person.
    #[n(3)]
    pub error: String,
    /// Declared port to the node's port.
    #[n(4)]
    pub ports: BTreeMap<u16, u16>,
    #[n(5)]
    pub restarts: u32,
    #[n(6)]
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum TaskState {
    /// Placed; its node has not said anything yet.
    #[n(0)]
    Pending,
    /// Up, but not for `grace` yet; or waiting for its next restart.
    #[n(1)]
    Starting,
    #[n(2)]
    Running,
    #[n(3)]
    Stopping,
    /// Ended as it should (asked to, or exit 0 with no restart wanted).
    #[n(4)]
    Exited,
    /// Ended and not to be restarted, or could not be started.
    #[n(5)]
    Failed,
    /// Stands still, because too few nodes are there.
    #[n(6)]
    Paused,
    /// Does not run, because too few nodes are there.
    #[n(7)]
    Held,
}

impl TaskState {
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Stopping => "stopping",
            TaskState::Exited => "exited",
            TaskState::Failed => "failed",
            TaskState::Paused => "paused",
            TaskState::Held => "held",
        }
    }

    pub fn ended(self) -> bool {
        matches!(self, TaskState::Exited | TaskState::Failed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Exit {
    #[n(0)]
    Code(#[n(0)] i32),
    #[n(1)]
    Signal(#[n(0)] i32),
    /// An adopted task whose exit status could not be read: counts as failed.
    #[n(2)]
    Unknown,
}

/// What a node is told to run (or to stop, if not `wanted`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskOrder {
    #[n(0)]
    pub number: TaskNumber,
    #[n(1)]
    pub service: String,
    #[n(2)]
    pub version: u64,
    #[n(3)]
    pub wanted: bool,
    #[n(4)]
    pub spec: ServiceSpec,
    /// It is wanted, but not now: too few nodes are there.
    #[n(5)]
    pub hold: Option<Hold>,
}

/// What becomes of a task while fewer nodes live than `min_nodes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Hold {
    /// Its process ends; it is started again afterwards.
    #[n(0)]
    Stop,
    /// Its processes stand still and keep their memory.
    #[n(1)]
    Pause,
}

/// Everything a node is told to run or to stop, as of one index of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Orders {
    /// Log index up to which the leader that says so has applied.
    #[n(0)]
    pub index: u64,
    #[n(1)]
    pub tasks: Vec<TaskOrder>,
}

/// What the runtime driver reports of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// It runs (started, or found again after a restart of the agent).
    Up { pid: u32, ports: BTreeMap<u16, u16>, adopted: bool },
    /// It ended; nothing of it runs any more.
    Ended(Exit),
    /// It could not be started.
    NotStarted { why: String },
}

/// What the runtime driver is to do; each call is followed by at least one `TaskEvent` or, for `Forget`, by nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskCall {
    /// Start it (its earlier process has ended). `Up` or `NotStarted` follows, later `Ended`.
    Start { order: Box<TaskOrder>, restarts: u32 },
    /// Ask it to end with `signal`, kill it (its whole process group or cgroup) after `timeout_ms`. `Ended` follows.
    Stop { number: TaskNumber, signal: u32, timeout_ms: u64 },
    /// Let its processes stand still, or go on. Nothing follows.
    Pause { number: TaskNumber, on: bool },
    /// It has ended and is not wanted: delete its record and, later, its log.
    Forget { number: TaskNumber },
}
