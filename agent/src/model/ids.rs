//! Names of things. Each id is its own type, so that a node can't be passed for a member.

use core::fmt;
use core::str::FromStr;
use minicbor::{Decode, Encode};

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !plain {
                    return Err(BadId);
                }
                u64::from_str_radix(text, 16).map($name).map_err(|_| BadId)
            }
        }
    };
}

hex_id! {
    /// The nodes that share one state and one certificate authority. Random, made by `disco` or the originating node.
    ClusterId
}
hex_id! {
    /// A machine running `discod`: derived from its public key, so it stays with the key in its data dir, over restarts and
    /// changes of address.
    NodeId
}

/// Not 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadId;
impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id (16 hex digits)")
    }
}
impl core::error::Error for BadId {}

/// A seat in the Raft group. A node promoted again gets a new one: it has forgotten its votes. Never reused, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct MemberId(#[n(0)] pub u64);

/// One launch decision: unique for ever (cluster id + recovery epoch + log index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct OperationId {
    #[n(0)]
    pub cluster: ClusterId,
    #[n(1)]
    pub epoch: u32,
    #[n(2)]
    pub index: u64,
}
impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.cluster, self.epoch, self.index)
    }
}

impl FromStr for OperationId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(BadId);
        let operation = OperationId {
            cluster: part()?.parse()?,
            epoch: part()?.parse().map_err(|_| BadId)?,
            index: part()?.parse().map_err(|_| BadId)?,
        };
        // One spelling only: no signs, no leading zeros.
        if alloc::format!("{operation}") == text { Ok(operation) } else { Err(BadId) }
    }
}

/// Which try of which client: the state remembers its answer, so that a retry never applies twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestId {
    #[n(0)]
    pub client: u64,
    #[n(1)]
    pub sequence: u64,
}

/// Ties an `Input::Request` to the `Effect::Reply` that answers it. Local to one process, never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Monotonic and wall time, as the driver read them. Milliseconds; `wall` since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    pub mono: u64,
    pub wall: u64,
}
