//! Join tokens as text: `DISCO1-<CA digest>-<secret>`.
//!
//! The digest lets the joiner check the cluster before it says anything; only the secret travels.

use super::hex;
use std::{fmt, str::FromStr};

/// Longer secrets are nobody's.
const SECRET_BYTES_MAX: usize = 256;

/// A token somebody handed us.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA's certificate (DER).
    pub ca_digest: [u8; 32],
    /// What lets in.
    pub secret: String,
}

/// Not of the form `DISCO1-<64 hex digits>-<secret>`. Says nothing of the text itself: it may be a secret mistyped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token (DISCO1-<64 hex digits>-<secret>)")]
pub struct BadToken;

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<JoinToken, BadToken> {
        let rest = text.trim().strip_prefix("DISCO1-").ok_or(BadToken)?;
        let (digest, secret) = rest.split_once('-').ok_or(BadToken)?;
        let plain = !secret.is_empty() && secret.len() <= SECRET_BYTES_MAX && secret.bytes().all(|b| b.is_ascii_graphic());
        if digest.len() != 64 || !plain {
            return Err(BadToken);
        }
        let mut ca_digest = [0; 32];
        for (byte, pair) in ca_digest.iter_mut().zip(digest.as_bytes().chunks(2)) {
            let digit = |d: u8| (d as char).to_digit(16).filter(|_| !d.is_ascii_uppercase());
            let (high, low) = (digit(pair[0]).ok_or(BadToken)?, digit(pair[1]).ok_or(BadToken)?);
            *byte = u8::try_from(high * 16 + low).expect("two hex digits fit a byte");
        }
        Ok(JoinToken { ca_digest, secret: secret.to_owned() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DISCO1-{}-{}", hex(&self.ca_digest), self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, ..)", hex(&self.ca_digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = JoinToken { ca_digest: std::array::from_fn(|i| u8::try_from(i * 7).expect("small")), secret: "l1.2a.ff-00".into() };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("  {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret), "secrets are not for logs");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let digest = "ab".repeat(32);
        for bad in [
            String::new(),
            "DISCO1-".into(),
            format!("DISCO1-{digest}"),
            format!("DISCO1-{digest}-"),
            format!("DISCO2-{digest}-x"),
            format!("DISCO1-{}-x", digest.to_uppercase()),
            format!("DISCO1-{}-x", &digest[2..]),
            format!("DISCO1-{}é-x", &digest[2..]),
            format!("DISCO1-{digest}-a b"),
            format!("DISCO1-{digest}-{}", "x".repeat(257)),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(BadToken), "{bad}");
        }
    }
}
