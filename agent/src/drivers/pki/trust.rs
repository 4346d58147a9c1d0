//! What this process shows in TLS and what it accepts, changeable while its sockets stay open.
//!
//! A node listens before it knows whether its certificate is about to be renewed, gains the power to sign when it
//! becomes a voter and loses it when it stops being one. TLS settings made here look things up at each handshake.

use super::{
    Authority, PkiError, ca_cluster, ca_digest, check_csr,
    identity::Identity,
    public_key,
    verify::{Clients, Servers, check, is_signed_by},
    wall_ms,
};
use crate::model::{
    authority::{Authorities, Certificate, NextKeys, Papers},
    ids::{ClusterId, NodeId},
    io::Keyring,
    query::Admission,
};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use webpki::KeyUsage;

/// Own certificates and key, the cluster's authorities, and (with a keyring) the power to sign.
#[derive(Default)]
pub struct Trust {
    shown: RwLock<Option<Arc<Shown>>>,
    /// Those whose keys are here.
    signers: RwLock<Vec<Arc<Authority>>>,
}

struct Shown {
    /// What the newest certificate says.
    identity: Identity,
    cluster: ClusterId,
    known: Authorities,
    anchors: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    /// One from each authority at most, in the order of those, by their places.
    leaves: Vec<(usize, Vec<u8>)>,
    /// The place of the CA that signed what the server shows.
    shows: usize,
    /// That one and its CA: a joiner checks the CA's digest.
    as_server: Arc<CertifiedKey>,
    /// The newest one.
    as_client: Arc<CertifiedKey>,
    /// The last administrator's certificate found good.
    vouched: Mutex<Option<Arc<[u8]>>>,
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
    /// One is damaged, or they do not belong together: the CA signed it. Nothing has changed then.
    pub fn install(&self, certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<(), PkiError> {
        let known = Authorities { trusted: vec![Certificate(ca.to_vec())], ..Authorities::default() };
        self.install_all(&[certificate.to_vec()], key, known)
    }

    /// The same with several: at least one certificate, and one CA. A certificate that none of the CAs signed is passed over,
    /// as long as there is another: the process may have ended after it forgot a CA, and before it forgot its certificate.
    ///
    /// # Errors
    /// As [`Trust::install`].
    pub fn install_all(&self, certificates: &[Vec<u8>], key: &[u8], known: Authorities) -> Result<(), PkiError> {
        let none = |what: &'static str| PkiError::Damaged { what, why: "there is none".into() };
        let cluster = ca_cluster(&known.trusted.first().ok_or(none("CA certificate"))?.0)?;
        if let Some(other) = known.trusted.iter().map(|ca| ca_cluster(&ca.0)).find(|found| *found != Ok(cluster)) {
            return Err(PkiError::OtherCluster { found: other?, expected: cluster });
        }
        let anchors: Vec<CertificateDer<'static>> = known.trusted.iter().map(|ca| CertificateDer::from(ca.0.clone())).collect();
        let mut leaves: Vec<(usize, Vec<u8>)> = Vec::new();
        for certificate in certificates {
            let identity = Identity::read(certificate)?;
            if public_key(key)? != identity.public_key {
                return Err(PkiError::KeyDiffers("key"));
            }
            if cluster != identity.cluster {
                return Err(PkiError::OtherCluster { found: identity.cluster, expected: cluster });
            }
            let Some(place) = signed_by(certificate, &anchors) else { continue };
            leaves.retain(|(other, _)| *other != place);
            leaves.push((place, certificate.clone()));
        }
        leaves.sort();
        if leaves.is_empty() && !certificates.is_empty() {
            return Err(not_signed());
        }
        let signing =
            any_eddsa_type(&PrivatePkcs8KeyDer::from(key)).map_err(|error| PkiError::Damaged { what: "key", why: error.to_string() })?;
        let (oldest, newest) = leaves.first().zip(leaves.last()).ok_or(none("certificate"))?;
        let (place, leaf) = if known.show_newest { newest } else { oldest };
        let (shows, last) = (*place, &newest.1);
        let chain = vec![CertificateDer::from(leaf.clone()), anchors[shows].clone()];
        let as_server = Arc::new(CertifiedKey::new(chain, signing.clone()));
        let as_client = Arc::new(CertifiedKey::new(vec![CertificateDer::from(last.clone())], signing));
        let identity = Identity::read(last)?;
        let shown =
            Shown { identity, cluster, known, anchors, key: key.to_vec(), leaves, shows, as_server, as_client, vouched: Mutex::default() };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(shown));
        Ok(())
    }

    /// Takes the certificate that a renewal brought, for the same key. Answers all that are shown now.
    ///
    /// # Errors
    /// It is damaged, of another key or cluster, or of a CA not believed here. Nothing has changed then.
    pub fn install_renewed(&self, certificate: &[u8]) -> Result<Vec<Vec<u8>>, PkiError> {
        let shown = self.shown()?;
        signed_by(certificate, &shown.anchors).ok_or_else(not_signed)?;
        let mut certificates = shown.certificates();
        certificates.push(certificate.to_vec());
        self.install_all(&certificates, &shown.key, shown.known.clone())?;
        Ok(self.shown()?.certificates())
    }

    /// Takes the cluster's word on whom to believe. True if it was news. Who believes less than before must still have a
    /// certificate that is believed.
    ///
    /// # Errors
    /// A CA is damaged or another cluster's, or none of those told signed a certificate of ours. Nothing has changed then.
    pub fn learn(&self, told: &Authorities) -> Result<bool, PkiError> {
        let shown = self.shown()?;
        if told.trusted.is_empty() || told.version < shown.known.version || *told == shown.known {
            return Ok(false);
        }
        let believed = |ca: &usize| told.trusted.contains(&shown.known.trusted[*ca]);
        let kept: Vec<Vec<u8>> = shown.leaves.iter().filter(|(ca, _)| believed(ca)).map(|(_, leaf)| leaf.clone()).collect();
        if kept.is_empty() {
            return Err(PkiError::LeftBehind);
        }
        self.install_all(&kept, &shown.key, told.clone()).map(|()| true)
    }

    /// Whom this process believes, and its certificates (DER), the newest last.
    pub fn held(&self) -> Option<(Authorities, Vec<Vec<u8>>)> {
        self.shown().ok().map(|shown| (shown.known.clone(), shown.certificates()))
    }

    /// The same in short, for the cluster.
    pub fn papers(&self) -> Papers {
        let Ok(shown) = self.shown() else { return Papers::default() };
        let mark = |place: usize| {
            let digest = ca_digest(&shown.anchors[place]);
            digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
        };
        let certified = shown.leaves.last().map_or(0, |(place, _)| mark(*place));
        Papers { believes: mark(shown.anchors.len() - 1), certified, shows: mark(shown.shows) }
    }

    /// Takes the power to sign, or gives it up.
    ///
    /// # Errors
    /// A CA key is damaged, or none is that of a CA believed here.
    pub fn set_keyring(&self, keyring: Option<&Keyring>) -> Result<(), PkiError> {
        let mut signers = Vec::new();
        if let Some(keyring) = keyring {
            let known = self.shown()?.known.clone();
            // The process may have ended between the two files: the keyring may be one step ahead of the CAs. Or behind, with
            // the keys of the new one beside those of the one dropped: a report brings word of its end before the log does.
            let mut opened = Err(PkiError::NoCluster);
            for ca in &known.trusted {
                opened = opened.or_else(|_| Authority::open(&keyring.ca_key, &ca.0));
            }
            let next = keyring.next.as_ref().map(|next| Authority::open(&next.ca_key, &next.ca).map(|signer| (signer, &next.ca)));
            let next = next.transpose()?;
            match opened {
                Ok(signer) => signers.push(Arc::new(signer)),
                Err(_) if next.as_ref().is_some_and(|(_, ca)| known.trusted.iter().any(|known| known.0 == **ca)) => {}
                Err(error) => return Err(error),
            }
            signers.extend(next.map(|(signer, _)| Arc::new(signer)));
        }
        *self.signers.write().unwrap_or_else(PoisonError::into_inner) = signers;
        Ok(())
    }

    /// Keys for a new CA of this cluster.
    ///
    /// # Errors
    /// This process is in no cluster.
    pub fn new_keys(&self) -> Result<NextKeys, PkiError> {
        let authority = Authority::create(self.shown()?.cluster, wall_ms());
        let join_key = super::random_bytes::<32>().to_vec();
        Ok(NextKeys { ca: authority.certificate().to_vec(), ca_key: authority.key(), join_key, term: 0 })
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

    /// The certificate (DER) of the CA in force; empty before there is one.
    pub fn ca(&self) -> Vec<u8> {
        self.shown().map(|shown| shown.anchors[shown.in_force()].to_vec()).unwrap_or_default()
    }

    /// What the own certificate says.
    pub fn identity(&self) -> Option<Identity> {
        self.shown().ok().map(|shown| shown.identity.clone())
    }

    /// A request (DER) to renew the own certificate, if two thirds of its life are over or a new CA is to sign it.
    pub fn renewal(&self) -> Option<Vec<u8>> {
        let newest = |shown: &Shown| shown.leaves.iter().any(|(place, _)| place + 1 == shown.anchors.len());
        let due = |shown: &Arc<Shown>| shown.identity.is_due(wall_ms()) || shown.known.certify && !newest(shown);
        let shown = self.shown().ok().filter(due)?;
        super::new_csr(&shown.key).ok()
    }

    /// The certificate (DER) of a node that the state let in; always the same for the same admission.
    ///
    /// # Errors
    /// This node holds no keyring.
    pub fn certify(&self, admission: &Admission) -> Result<Vec<u8>, PkiError> {
        self.signer(false)?.sign_node(admission.node, &admission.public_key, admission.stamp_ms)
    }

    /// A new certificate (DER) for a node's own key, from now on.
    ///
    /// # Errors
    /// The request is bad or for another key, or this node holds no keyring.
    pub fn renew(&self, node: NodeId, public_key: &[u8], csr: &[u8]) -> Result<Vec<u8>, PkiError> {
        if check_csr(csr)? != public_key {
            return Err(PkiError::RequestForOtherKey);
        }
        self.signer(true)?.sign_node(node, public_key, wall_ms())
    }

    /// An administrator's certificate (DER) for a request's key.
    ///
    /// # Errors
    /// The request is bad, or this node holds no keyring.
    pub fn issue_admin(&self, csr: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.signer(true)?.sign_admin(&check_csr(csr)?, wall_ms())
    }

    /// Whether an administrator's certificate is still believed: a connection may outlive the CA of the certificate it began
    /// with. The last one that was is remembered until the CAs change.
    ///
    /// # Errors
    /// Past its time, or signed by no CA that is believed now.
    pub(super) fn vouch_for_admin(&self, certificate: &Arc<[u8]>, now_ms: u64) -> Result<(), PkiError> {
        let shown = self.shown()?;
        let mut vouched = shown.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        if vouched.as_ref().is_none_or(|known| known != certificate) {
            let (leaf, now) = (CertificateDer::from(&**certificate), UnixTime::since_unix_epoch(Duration::from_millis(now_ms)));
            check(&leaf, &shown.anchors, shown.cluster, KeyUsage::client_auth(), now)?;
            *vouched = Some(Arc::clone(certificate));
        }
        Ok(())
    }

    pub(super) fn authorities_to_check(&self) -> Result<(Vec<CertificateDer<'static>>, ClusterId), PkiError> {
        let shown = self.shown()?;
        Ok((shown.anchors.clone(), shown.cluster))
    }

    fn shown(&self) -> Result<Arc<Shown>, PkiError> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PkiError::NoCluster)
    }

    /// The CA in force signs; the newest one, once it is to certify and for those who are in already.
    fn signer(&self, newest: bool) -> Result<Arc<Authority>, PkiError> {
        let signers = self.signers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let shown = self.shown()?;
        let place = if newest && shown.known.certify { shown.anchors.len() - 1 } else { shown.in_force() };
        let wanted = signers.iter().find(|signer| signer.certificate() == &*shown.anchors[place]);
        wanted.or(signers.first()).cloned().ok_or(PkiError::NoKeyring)
    }
}

impl Shown {
    fn in_force(&self) -> usize {
        if self.known.show_newest { self.anchors.len() - 1 } else { 0 }
    }

    fn certificates(&self) -> Vec<Vec<u8>> {
        self.leaves.iter().map(|(_, leaf)| leaf.clone()).collect()
    }
}

/// The place of the CA that signed it.
fn signed_by(certificate: &[u8], anchors: &[CertificateDer<'_>]) -> Option<usize> {
    anchors.iter().position(|ca| is_signed_by(&CertificateDer::from(certificate), ca))
}

fn not_signed() -> PkiError {
    PkiError::NotSigned("nor by the one that follows it".into())
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
