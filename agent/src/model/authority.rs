//! One certificate authority that gives way to another.
//!
//! First every node learns to believe the new one (`Introduced`), then each gets a second certificate, signed by it
//! (`Certifying`), then servers show that one (`Showing`), then the old one is dropped. Callers show the new one as soon as
//! they have it. So a node that is one step behind or ahead of another gets through to it, and until `Showing` so does a
//! joiner or an administrator who knows the old one only.

use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// How far the change has come. Each stage begins when every node has said that it is ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// Nodes learn to believe it.
    #[n(0)]
    Introduced,
    /// Nodes get certificates from it.
    #[n(1)]
    Certifying,
    /// Servers show those, and new tokens name it: it is the CA in force.
    #[n(2)]
    Showing,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Introduced => "introduced",
            Stage::Certifying => "certifying",
            Stage::Showing => "showing",
        }
    }
}

/// The change under way, replicated.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rotation {
    /// The certificate (DER) of the CA that is not in force: the new one, and from `Showing` on the old one.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ca: Vec<u8>,
    #[n(1)]
    pub stage: Stage,
}

/// Whom a node is to believe, and who is to sign its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Authorities {
    /// CA certificates (DER), the newest last. Empty: not known here (yet).
    #[n(0)]
    pub trusted: Vec<Certificate>,
    /// The last one is to sign this node's certificate as well.
    #[n(1)]
    pub certify: bool,
    /// Grows with every step, so that nobody goes back to what was true before.
    #[n(2)]
    pub version: u64,
    /// Servers show what the last one signed; else what the first one did.
    #[n(3)]
    pub show_newest: bool,
}

/// DER.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Certificate(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// What a node says of itself, by marks: the first eight bytes of a CA certificate's SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Papers {
    /// The newest CA that it believes.
    #[n(0)]
    pub believes: u64,
    /// The newest CA that signed it a certificate.
    #[n(1)]
    pub certified: u64,
    /// The CA that signed what its server shows.
    #[n(2)]
    pub shows: u64,
}

/// Keys that are to take the place of those in a keyring, once their CA does.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct NextKeys {
    /// The new CA's certificate, DER.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ca: Vec<u8>,
    /// PKCS#8 DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub ca_key: Vec<u8>,
    /// 32 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub join_key: Vec<u8>,
    /// Of the leader that handed them out: the late word of an earlier one is void.
    #[n(3)]
    pub term: u64,
}

impl core::fmt::Debug for NextKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NextKeys(..)")
    }
}
