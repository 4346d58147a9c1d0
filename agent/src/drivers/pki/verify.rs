//! Who TLS lets through.
//!
//! A certificate must be signed by the cluster's authority and name the cluster. An administrator's must be in its
//! time; a node's need not: between nodes the key in the node list is what counts, and clocks may be wrong. No
//! certificate at all passes TLS too, since a joiner has none; the services let it do nothing but join.

use super::{PkiError, ca_cluster, ca_digest, identity::Identity, identity::Subject, trust::Trust};
use crate::model::ids::{ClusterId, NodeId};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{sync::Arc, time::Duration};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring::ED25519};

/// The one kind of signature there is.
static ALGORITHMS: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[ED25519], mapping: &[(SignatureScheme::ED25519, &[ED25519])] };

/// SHA-256 of a CA certificate, from a join token.
pub type CaDigest = [u8; 32];

/// TLS for a joiner, who knows of the cluster only the digest in its token: the server must show the CA with this
/// digest and a node's certificate signed by it, before anything is said.
pub fn joiner_tls(ca: CaDigest) -> Arc<ClientConfig> {
    proto::client_config(None, Arc::new(ByDigest(ca))).expect("without a key no key can be wrong")
}

/// Whether this authority signed it.
pub(super) fn is_signed_by(certificate: &CertificateDer<'_>, ca: &CertificateDer<'_>) -> bool {
    let cluster = Identity::read(certificate).map(|identity| identity.cluster);
    cluster.is_ok_and(|cluster| signed(certificate, ca, cluster, KeyUsage::client_auth()).is_ok())
}

/// Checks a certificate against authorities: signature of one, use, cluster, and an administrator's time.
pub(super) fn check(
    certificate: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    cluster: ClusterId,
    usage: KeyUsage,
    now: UnixTime,
) -> Result<Identity, PkiError> {
    let mut checked = Err(PkiError::NoCluster);
    for ca in authorities {
        checked = checked.or_else(|_| signed(certificate, ca, cluster, usage));
    }
    let identity = checked?;
    let now_ms = now.as_secs().saturating_mul(1000);
    if matches!(identity.subject, Subject::Admin(_)) && !identity.is_valid_at(now_ms) {
        return Err(PkiError::Expired);
    }
    Ok(identity)
}

fn signed(certificate: &CertificateDer<'_>, ca: &CertificateDer<'_>, cluster: ClusterId, usage: KeyUsage) -> Result<Identity, PkiError> {
    let identity = Identity::read(certificate)?;
    if identity.cluster != cluster {
        return Err(PkiError::OtherCluster { found: identity.cluster, expected: cluster });
    }
    let not_signed = |error: webpki::Error| PkiError::NotSigned(error.to_string());
    let anchor = anchor_from_trusted_cert(ca).map_err(not_signed)?;
    // Asked at the start of its own life, a certificate is always in its time.
    let in_time = UnixTime::since_unix_epoch(Duration::from_millis(identity.not_before_ms));
    let leaf = EndEntityCert::try_from(certificate).map_err(not_signed)?;
    leaf.verify_for_usage(ALGORITHMS.all, &[anchor], &[], in_time, usage, None, None).map_err(not_signed)?;
    Ok(identity)
}

fn node_of(identity: &Identity) -> Result<NodeId, PkiError> {
    match identity.subject {
        Subject::Node(node) => Ok(node),
        Subject::Admin(_) => Err(PkiError::NotANode),
    }
}

fn refused(error: PkiError) -> Error {
    Error::InvalidCertificate(match error {
        PkiError::Expired => CertificateError::Expired,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// What a server accepts of its callers.
#[derive(Debug)]
pub(super) struct Clients(pub Arc<Trust>);

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (authorities, cluster) = self.0.authorities_to_check().map_err(refused)?;
        check(end_entity, &authorities, cluster, KeyUsage::client_auth(), now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// What a caller accepts: a node of the cluster; this one, if one is expected.
#[derive(Debug)]
pub(super) struct Servers {
    pub trust: Arc<Trust>,
    pub expected: Option<NodeId>,
}

impl Servers {
    fn check(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), PkiError> {
        let (authorities, cluster) = self.trust.authorities_to_check()?;
        let found = node_of(&check(certificate, &authorities, cluster, KeyUsage::server_auth(), now)?)?;
        match self.expected {
            Some(expected) if expected != found => Err(PkiError::OtherNode { found, expected }),
            _ => Ok(()),
        }
    }
}

/// What a joiner accepts.
#[derive(Debug)]
struct ByDigest(CaDigest);

impl ByDigest {
    fn check(&self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), PkiError> {
        let ca = chain.iter().find(|shown| ca_digest(shown) == self.0).ok_or(PkiError::OtherCa)?;
        node_of(&check(certificate, std::slice::from_ref(ca), ca_cluster(ca)?, KeyUsage::server_auth(), now)?)?;
        Ok(())
    }
}

macro_rules! server_verifier {
    ($name:ident, |$self:ident, $leaf:ident, $chain:ident, $now:ident| $check:expr) => {
        impl ServerCertVerifier for $name {
            fn verify_server_cert(
                &$self,
                $leaf: &CertificateDer<'_>,
                $chain: &[CertificateDer<'_>],
                _name: &ServerName<'_>,
                _ocsp: &[u8],
                $now: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                $check.map_err(refused)?;
                Ok(ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                certificate: &CertificateDer<'_>,
                signature: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                ALGORITHMS.supported_schemes()
            }
        }
    };
}

server_verifier!(Servers, |self, leaf, _chain, now| self.check(leaf, now));
server_verifier!(ByDigest, |self, leaf, chain, now| self.check(leaf, chain, now));
