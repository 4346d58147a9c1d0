//! Bytes of the log and the snapshot: one version byte, then CBOR (RFC 8949) with numbered fields.
//!
//! Numbered fields let a newer build add one: an older one skips it, a newer one reads its absence as `None` or default.

use alloc::vec::Vec;
use core::fmt;

/// Version of the encoding itself. Readers refuse others by number.
pub const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    Empty,
    Version(u8),
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => f.write_str("no bytes"),
            DecodeError::Version(v) => write!(f, "encoding version {v} (this build reads {VERSION})"),
            DecodeError::Malformed => f.write_str("malformed record"),
        }
    }
}
impl core::error::Error for DecodeError {}

pub fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(VERSION);
    minicbor::encode(value, &mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

/// FNV-1a: equal bytes, equal fingerprints. Not against an adversary.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// # Errors
/// Empty input, another version, or bytes that are not a `T`. Trailing bytes are refused.
pub fn decode<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let (version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *version != VERSION {
        return Err(DecodeError::Version(*version));
    }
    let mut decoder = minicbor::Decoder::new(rest);
    let value = decoder.decode().map_err(|_| DecodeError::Malformed)?;
    if decoder.position() != rest.len() {
        return Err(DecodeError::Malformed);
    }
    Ok(value)
}
