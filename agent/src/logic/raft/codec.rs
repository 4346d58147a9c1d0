//! raft-rs' own records as opaque, versioned bytes: what `Batch` and peers' messages carry.

use super::RaftError;

/// Version of the encoding; readers refuse others by number.
const VERSION: u8 = 1;

pub(super) fn encode<M: prost_for_raft::Message>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    message.encode(&mut bytes).expect("a Vec grows");
    bytes
}

pub(super) fn decode<M: prost_for_raft::Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, RaftError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => M::decode(rest).map_err(|e| RaftError::Stored { what, why: e.to_string() }),
        Some((other, _)) => Err(RaftError::Stored { what, why: format!("version {other}, this build reads {VERSION}") }),
        None => Err(RaftError::Stored { what, why: "no bytes".into() }),
    }
}
