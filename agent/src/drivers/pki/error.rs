//! Why a certificate, key or request is not taken; each names the thing.

use crate::model::ids::{ClusterId, NodeId};

/// What is wrong with a certificate, a key or a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// It cannot be read at all.
    #[error("the {what} is damaged: {why}")]
    Damaged {
        /// E.g. `CA certificate`.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A request larger than anybody needs.
    #[error("the certificate request has {bytes} bytes, it may have {max}")]
    RequestTooLarge {
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// Not ed25519.
    #[error("the {0} has a key of another kind than ed25519")]
    OtherKeyKind(&'static str),
    /// Key and certificate are not a pair.
    #[error("the {0} does not belong to its certificate")]
    KeyDiffers(&'static str),
    /// A renewal for another key than the one that asks.
    #[error("the certificate request is for another key than the caller's")]
    RequestForOtherKey,
    /// The key that signs certificates is not here.
    #[error("this node holds no keyring, so it cannot sign certificates")]
    NoKeyring,
    /// This process has no CA to judge by yet.
    #[error("this node belongs to no cluster yet")]
    NoCluster,
    /// The name in the certificate is none of ours.
    #[error("the certificate names neither a node nor an administrator of a cluster")]
    NoSubject,
    /// Made by another authority.
    #[error("the certificate was not signed by this cluster's authority ({0})")]
    NotSigned(String),
    /// A CA took over while this node was away.
    #[error("this node has no certificate of the authority that took over; remove it with `disco node rm` and let it join anew")]
    LeftBehind,
    /// It names another cluster.
    #[error("the certificate is of cluster {found}, this is cluster {expected}")]
    OtherCluster {
        /// In the certificate.
        found: ClusterId,
        /// Ours.
        expected: ClusterId,
    },
    /// Past its time (administrators only).
    #[error("the administrator's certificate is not valid now (by this machine's clock)")]
    Expired,
    /// Another node answers at this address.
    #[error("node {found} answers where node {expected} was expected")]
    OtherNode {
        /// Who answered.
        found: NodeId,
        /// Who was called.
        expected: NodeId,
    },
    /// An administrator's certificate where a node's is needed.
    #[error("the certificate is not a node's")]
    NotANode,
    /// The token is for another cluster, or somebody is in between.
    #[error("no certificate of the server has the CA digest of the token")]
    OtherCa,
}
