//! What a certificate says: who, of which cluster, with which key, from when to when.
//!
//! The name is a URI in the subject's alternative names: `disco://<cluster id>/node/<node id>` or
//! `disco://<cluster id>/admin/<hex>`. Reading says nothing about whether it is true; `verify` checks that.

use super::PkiError;
use crate::model::ids::{ClusterId, NodeId};
use std::fmt;
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// An administrator, by the random name of the certificate.
    Admin(String),
}

impl Subject {
    pub(super) fn uri(&self, cluster: ClusterId) -> String {
        match self {
            Subject::Node(node) => format!("disco://{cluster}/node/{node}"),
            Subject::Admin(name) => format!("disco://{cluster}/admin/{name}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => write!(f, "node {node}"),
            Subject::Admin(name) => write!(f, "admin {name}"),
        }
    }
}

/// What is written in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// Who it is for.
    pub subject: Subject,
    /// Raw ed25519 key, 32 bytes.
    pub public_key: Vec<u8>,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Identity {
    /// Reads a certificate (DER).
    ///
    /// # Errors
    /// It is damaged, has another kind of key, or names nobody of a cluster.
    pub fn read(certificate: &[u8]) -> Result<Identity, PkiError> {
        let parsed = parse(certificate, "certificate")?;
        let (cluster, subject) = named(&parsed).ok_or(PkiError::NoSubject)?;
        let validity = parsed.validity();
        Ok(Identity {
            cluster,
            subject,
            public_key: key_of(&parsed, "certificate")?,
            not_before_ms: ms(validity.not_before.timestamp()),
            not_after_ms: ms(validity.not_after.timestamp()),
        })
    }

    /// Whether it should be renewed: two thirds of its life are over.
    pub fn is_due(&self, now_ms: u64) -> bool {
        let life = self.not_after_ms.saturating_sub(self.not_before_ms);
        now_ms > self.not_before_ms.saturating_add(life / 3 * 2)
    }

    pub(super) fn is_valid_at(&self, now_ms: u64) -> bool {
        (self.not_before_ms..=self.not_after_ms).contains(&now_ms)
    }
}

/// The raw ed25519 key of any certificate.
pub(super) fn raw_public_key(certificate: &[u8], what: &'static str) -> Result<Vec<u8>, PkiError> {
    key_of(&parse(certificate, what)?, what)
}

fn parse<'a>(certificate: &'a [u8], what: &'static str) -> Result<X509Certificate<'a>, PkiError> {
    let damaged = |why: String| PkiError::Damaged { what, why };
    let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes too many", rest.len())));
    }
    Ok(parsed)
}

fn key_of(parsed: &X509Certificate<'_>, what: &'static str) -> Result<Vec<u8>, PkiError> {
    let info = parsed.public_key();
    let key = &info.subject_public_key.data;
    // RFC 8410, 3: id-Ed25519.
    if info.algorithm.algorithm.to_id_string() != "1.3.101.112" || key.len() != 32 {
        return Err(PkiError::OtherKeyKind(what));
    }
    Ok(key.to_vec())
}

/// The one URI; two would leave open who it is.
fn named(parsed: &X509Certificate<'_>) -> Option<(ClusterId, Subject)> {
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().filter(|_| uris.next().is_none())?;
    let mut parts = uri.strip_prefix("disco://")?.split('/');
    let cluster = parts.next()?.parse().ok()?;
    let subject = match (parts.next()?, parts.next()?) {
        ("node", node) => Subject::Node(node.parse().ok()?),
        ("admin", name) if name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()) => Subject::Admin(name.to_owned()),
        _ => return None,
    };
    parts.next().is_none().then_some((cluster, subject))
}

fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}
