//! Certificates, and who may talk to whom.
//!
//! A cluster is a certificate authority; its digest is in every join token. A node is an ed25519 key: its certificate
//! says which node of which cluster holds it, but between nodes it is the key in the replicated node list that counts,
//! so an expired certificate strands nobody and a removed node is out although its certificate is still good.
//!
//! `trust` is the live end of it: what TLS shows and accepts, changing while the sockets stay open. `access` turns a
//! caller into a `Principal`. The rest are the parts: the authority, requests, reading, checking, files, tokens.

mod access;
mod ca;
mod csr;
mod error;
mod files;
#[cfg(test)]
mod handshakes;
mod identity;
pub mod pem;
mod token;
mod trust;
mod verify;

pub use access::{Admitted, Doorkeeper, Refusal};
pub use ca::{Authority, ca_cluster};
pub use csr::{CSR_BYTES_MAX, check_csr, new_csr, new_key, public_key};
pub use error::PkiError;
pub use files::{FilesError, ImageFiles, KeyFiles};
pub use identity::{Identity, Subject};
pub use token::{BadToken, JoinToken};
pub use trust::Trust;
pub use verify::{CaDigest, joiner_tls};

use crate::{drivers::wall_clock::wall_ms, model::ids::NodeId};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

/// SHA-256 of a CA's certificate (DER), as in a join token.
pub fn ca_digest(ca: &[u8]) -> [u8; 32] {
    sha256(ca)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The node that holds this key: derived, so that the same key is the same node however often it asks to join.
pub fn node_of(public_key: &[u8]) -> NodeId {
    let digest = ca_digest(public_key);
    NodeId(u64::from_be_bytes(digest[..8].try_into().expect("8 bytes were taken")))
}

/// Fresh random bytes from the system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes once it has booted");
    bytes
}

/// Evenly from 0 to 1, for delays that must not be guessed.
pub fn random_fraction() -> f32 {
    f32::from(u16::from_be_bytes(random_bytes())) / f32::from(u16::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
