//! A node as the replicated state knows it.

use super::{
    authority::Papers,
    ids::{MemberId, NodeId},
    limits::ADDRESS_BYTES_MAX,
};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use minicbor::{Decode, Encode};

/// The one port for everything, unless a node's configuration says another: wherever there are machines of our own making.
pub const PORT: u16 = 5080;

/// What is known of a machine that runs `discod`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    #[n(0)]
    pub id: NodeId,
    #[n(1)]
    pub name: String,
    /// `host:port` where others reach it.
    #[n(2)]
    pub address: String,
    /// Raw ed25519 public key: between nodes this *is* the identity.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    #[n(4)]
    pub state: NodeState,
    /// Its seat in the Raft group, if it has or is getting one.
    #[n(5)]
    pub member: Option<MemberId>,
    #[n(6)]
    pub cpus: u32,
    /// Bytes.
    #[n(7)]
    pub memory: u64,
    #[n(8)]
    pub labels: BTreeMap<String, String>,
    /// The provider's id of the machine, if a provider made it.
    #[n(9)]
    pub instance: Option<String>,
    #[n(10)]
    pub joined_ms: u64,
    /// Why it is lost, for a person.
    #[n(11)]
    pub reason: String,
    /// Newest kind of command its build understands.
    #[n(12)]
    pub commands_known: u32,
    /// What it was let in as.
    #[n(13)]
    pub admitted: Role,
    /// When the state last changed to what it is.
    #[n(14)]
    pub since_ms: u64,
    /// `member` has been in the group. Once out of it again it may not be reused: the seat is given up first.
    #[n(15)]
    pub seated: bool,
    /// A person took it out: it leaves the Raft group first, then the cluster.
    #[n(16)]
    pub leaving: bool,
    /// A person took it out of service: whenever it is there, it is draining.
    #[n(17)]
    #[cbor(default)]
    pub drained: bool,
    /// What a person wants it to be; none: as the cluster chooses.
    #[n(18)]
    pub preference: Option<Role>,
    /// Told only while one CA gives way to another.
    #[n(19)]
    #[cbor(default)]
    pub papers: Papers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum NodeState {
    /// Let in; has not reported yet.
    #[n(0)]
    Joining,
    #[n(1)]
    Ready,
    #[n(2)]
    Draining,
    #[n(3)]
    Lost,
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Joining => "joining",
            NodeState::Ready => "ready",
            NodeState::Draining => "draining",
            NodeState::Lost => "lost",
        }
    }
}

/// What a node may become. A `Worker` token never makes a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    #[n(0)]
    Worker,
    #[n(1)]
    Manager,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

/// Whether `text` can be where others reach a node: `host:port`, nothing that a terminal or a log would act on.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
}
