//! A provider's machine, before and while it is a node.

use super::ids::{NodeId, OperationId};
use alloc::{collections::BTreeMap, string::String};
use minicbor::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InstanceRecord {
    /// The decision that launched it.
    #[n(0)]
    pub operation: OperationId,
    /// Counts up, never reused; names and addresses derive from it. The bootstrap instance is 1.
    #[n(1)]
    pub ordinal: u32,
    /// The provider's id; none until the launch was answered.
    #[n(2)]
    pub id: Option<String>,
    #[n(3)]
    pub address: String,
    #[n(4)]
    pub state: InstanceState,
    #[n(5)]
    pub desired: InstanceDesired,
    /// The node that runs on it, once it joined.
    #[n(6)]
    pub node: Option<NodeId>,
    #[n(7)]
    pub launched_ms: u64,
    /// Last failure of launch, start or termination, for a person.
    #[n(8)]
    pub problem: String,
    /// When `state` last changed.
    #[n(9)]
    pub since_ms: u64,
    /// What its launch was made of, decided with it: whoever repeats the launch asks for the very same.
    #[n(10)]
    #[cbor(default)]
    pub parameters: BTreeMap<String, String>,
}

/// What the provider last said. EC2's states (DescribeInstances, `instanceState`), plus `Failed` for a launch refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum InstanceState {
    #[n(0)]
    Pending,
    #[n(1)]
    Running,
    #[n(2)]
    Stopping,
    #[n(3)]
    Stopped,
    #[n(4)]
    Terminated,
    #[n(5)]
    Failed,
}

impl InstanceState {
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
            InstanceState::Terminated => "terminated",
            InstanceState::Failed => "failed",
        }
    }
}

/// What a person or the leader wants of it. Repair respects `Stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum InstanceDesired {
    #[n(0)]
    Running,
    #[n(1)]
    Stopped,
    #[n(2)]
    Terminated,
}

impl InstanceDesired {
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceDesired::Running => "running",
            InstanceDesired::Stopped => "stopped",
            InstanceDesired::Terminated => "terminated",
        }
    }
}

/// One instance as the provider describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    pub id: String,
    pub operation: Option<OperationId>,
    pub address: String,
    pub state: InstanceState,
    /// Where those outside the provider's network reach it, `host:port`; empty: nowhere else than at `address`.
    pub public_address: String,
}

/// Parameters of launches that the mind knows; all others are the provider's own business.
pub mod parameter {
    /// Managers to ask, a comma between; resolved when the launch is decided.
    pub const SEEDS: &str = "seeds";
    /// `true`: spare capacity, cheaper and taken back at will.
    pub const SPOT: &str = "spot";
    /// The provider's name of the public address that is to lead to the leader.
    pub const ADDRESS: &str = "address";
}
