//! Join tokens: `DISCO1-<CA digest>-<secret>`.

use super::node::Role;
use alloc::{string::String, vec::Vec};
use minicbor::{Decode, Encode};

/// A token somebody asked for. The secret itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TokenRecord {
    /// Short public name, shown by `token ls`.
    #[n(0)]
    pub id: String,
    /// SHA-256 of the secret.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: Vec<u8>,
    #[n(2)]
    pub role: Role,
    #[n(3)]
    pub created_ms: u64,
    #[n(4)]
    pub expires_ms: u64,
    #[n(5)]
    pub uses_left: u32,
}

/// What lets a joiner in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Credential {
    /// A token from `disco token create`, by its id.
    #[n(0)]
    Token(#[n(0)] String),
    /// The derived token of a launch: the leader checked the HMAC before proposing.
    #[n(1)]
    Launch(#[n(0)] super::ids::OperationId),
}
