//! What this process shows in TLS and what it accepts, changeable while its sockets stay open.
//!
//! A node listens before it knows whether its certificate is about to be renewed, gains the power to sign when it
//! becomes a voter and loses it when it stops being one. TLS settings made here look things up at each handshake.

use super::{
    Authority, PkiError, ca_cluster, check_csr,
    identity::Identity,
    public_key,
    verify::{Clients, Servers},
    wall_ms,
};
use crate::model::{
    ids::{ClusterId, NodeId},
    io::Keyring,
    query::Admission,
};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::sync::{Arc, PoisonError, RwLock};

/// Own certificate and key, the cluster's authority, and (with a keyring) the power to sign.
#[derive(Default)]
pub struct Trust {
    shown: RwLock<Option<Arc<Shown>>>,
    authority: RwLock<Option<Arc<Authority>>>,
}

struct Shown {
    identity: Identity,
    cluster: ClusterId,
    ca: CertificateDer<'static>,
    key: Vec<u8>,
    /// Leaf and CA: a joiner checks the CA's digest.
    as_server: Arc<CertifiedKey>,
    as_client: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust(..)")
    }
}

impl Trust {
    /// Nothing shown, nobody accepted, until `install`.
    pub fn new() -> Arc<Trust> {
        Arc::default()
    }

    /// Shows this certificate (DER) from now on and judges by this CA (DER). The key is PKCS#8 DER.
    ///
    /// # Errors
    /// One is damaged, or they do not belong together. Nothing has changed then.
    pub fn install(&self, certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<(), PkiError> {
        let identity = Identity::read(certificate)?;
        if public_key(key)? != identity.public_key {
            return Err(PkiError::KeyDiffers("key"));
        }
        let cluster = ca_cluster(ca)?;
        if cluster != identity.cluster {
            return Err(PkiError::OtherCluster { found: identity.cluster, expected: cluster });
        }
        let signing =
            any_eddsa_type(&PrivatePkcs8KeyDer::from(key)).map_err(|error| PkiError::Damaged { what: "key", why: error.to_string() })?;
        let leaf = CertificateDer::from(certificate.to_vec());
        let ca = CertificateDer::from(ca.to_vec());
        let as_server = Arc::new(CertifiedKey::new(vec![leaf.clone(), ca.clone()], signing.clone()));
        let as_client = Arc::new(CertifiedKey::new(vec![leaf], signing));
        let shown = Shown { identity, cluster, ca, key: key.to_vec(), as_server, as_client };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(shown));
        Ok(())
    }

    /// Takes the certificate that a renewal brought, for the same key.
    ///
    /// # Errors
    /// It is damaged or of another key or cluster. Nothing has changed then.
    pub fn install_renewed(&self, certificate: &[u8]) -> Result<(), PkiError> {
        let shown = self.shown()?;
        self.install(certificate, &shown.key, &shown.ca)
    }

    /// Takes the power to sign, or gives it up.
    ///
    /// # Errors
    /// The keyring's CA key is damaged or not that of `ca` (DER).
    pub fn set_keyring(&self, keyring: Option<&Keyring>, ca: &[u8]) -> Result<(), PkiError> {
        let authority = keyring.map(|keyring| Authority::open(&keyring.ca_key, ca)).transpose()?;
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = authority.map(Arc::new);
        Ok(())
    }

    /// TLS for the listening side.
    pub fn server_tls(self: &Arc<Trust>) -> Arc<ServerConfig> {
        proto::server_config(Arc::new(Showing(Arc::clone(self))), Arc::new(Clients(Arc::clone(self))))
    }

    /// TLS for calling a node of the cluster: this one, or any.
    pub fn client_tls(self: &Arc<Trust>, expected: Option<NodeId>) -> Arc<ClientConfig> {
        let servers = Servers { trust: Arc::clone(self), expected };
        proto::client_config_with(Arc::new(Showing(Arc::clone(self))), Arc::new(servers))
    }

    /// The cluster's CA certificate (DER); empty before there is one.
    pub fn ca(&self) -> Vec<u8> {
        self.shown().map(|shown| shown.ca.to_vec()).unwrap_or_default()
    }

    /// What the own certificate says.
    pub fn identity(&self) -> Option<Identity> {
        self.shown().ok().map(|shown| shown.identity.clone())
    }

    /// A request (DER) to renew the own certificate, if two thirds of its life are over.
    pub fn renewal(&self) -> Option<Vec<u8>> {
        let shown = self.shown().ok().filter(|shown| shown.identity.is_due(wall_ms()))?;
        super::new_csr(&shown.key).ok()
    }

    /// The raw key of a certificate request, see [`check_csr`].
    ///
    /// # Errors
    /// As [`check_csr`].
    pub fn check_csr(&self, csr: &[u8]) -> Result<Vec<u8>, PkiError> {
        check_csr(csr)
    }

    /// The certificate (DER) of a node that the state let in; always the same for the same admission.
    ///
    /// # Errors
    /// This node holds no keyring.
    pub fn certify(&self, admission: &Admission) -> Result<Vec<u8>, PkiError> {
        self.authority()?.sign_node(admission.node, &admission.public_key, admission.stamp_ms)
    }

    /// A new certificate (DER) for a node's own key, from now on.
    ///
    /// # Errors
    /// The request is bad or for another key, or this node holds no keyring.
    pub fn renew(&self, node: NodeId, public_key: &[u8], csr: &[u8]) -> Result<Vec<u8>, PkiError> {
        if check_csr(csr)? != public_key {
            return Err(PkiError::RequestForOtherKey);
        }
        self.authority()?.sign_node(node, public_key, wall_ms())
    }

    /// An administrator's certificate (DER) for a request's key.
    ///
    /// # Errors
    /// The request is bad, or this node holds no keyring.
    pub fn issue_admin(&self, csr: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.authority()?.sign_admin(&check_csr(csr)?, wall_ms())
    }

    pub(super) fn authority_to_check(&self) -> Result<(CertificateDer<'static>, ClusterId), PkiError> {
        let shown = self.shown()?;
        Ok((shown.ca.clone(), shown.cluster))
    }

    fn shown(&self) -> Result<Arc<Shown>, PkiError> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PkiError::NoCluster)
    }

    fn authority(&self) -> Result<Arc<Authority>, PkiError> {
        self.authority.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PkiError::NoKeyring)
    }
}

/// Shows the certificate of the moment.
#[derive(Debug)]
struct Showing(Arc<Trust>);

impl ResolvesServerCert for Showing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.shown().ok().map(|shown| Arc::clone(&shown.as_server))
    }
}

impl ResolvesClientCert for Showing {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.shown().ok().map(|shown| Arc::clone(&shown.as_client))
    }

    fn has_certs(&self) -> bool {
        self.0.shown().is_ok()
    }
}
