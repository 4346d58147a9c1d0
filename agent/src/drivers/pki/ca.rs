//! The cluster's certificate authority: made once at origin, held by voters and learners in their keyrings.
//!
//! A node's certificate is a pure function of the CA, the node, its key and the stamp of the log entry that let it in:
//! ed25519 signatures have no randomness (RFC 8032, 5.1.6), serial and times are derived. So a node whose reply was
//! lost gets the same bytes again from whichever manager it asks next.

use super::{PkiError, ca_digest, hex, identity::Subject, random_bytes};
use crate::model::{
    ids::{ClusterId, NodeId},
    limits::{ADMIN_CERTIFICATE_TTL_MS, CERTIFICATE_BACKDATE_MS, CERTIFICATE_TTL_MS},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::time::Duration;

/// The authority of one cluster, able to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    cluster: ClusterId,
}

impl Authority {
    /// Makes the authority of a new cluster: its certificate is valid from a day before `now_ms` and never expires
    /// (RFC 5280, 4.1.2.5: 99991231235959Z).
    pub fn create(cluster: ClusterId, now_ms: u64) -> Authority {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the kernel has random bytes once it has booted");
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(ca_name(cluster));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = date_time_ymd(1970, 1, 1) + seconds(now_ms.saturating_sub(CERTIFICATE_BACKDATE_MS));
        params.not_after = date_time_ymd(9999, 12, 31) + Duration::from_secs(24 * 3600 - 1);
        let issuer = CertifiedIssuer::self_signed(params, key).expect("no name or time in it is refused by rcgen");
        let certificate = issuer.der().to_vec();
        Authority::open(issuer.key().serialized_der(), &certificate).expect("it was made right above")
    }

    /// The authority whose key is in a keyring.
    ///
    /// # Errors
    /// Key or certificate is damaged, or they are not a pair.
    pub fn open(key: &[u8], certificate: &[u8]) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ED25519)
            .map_err(|error| PkiError::Damaged { what: "CA key", why: error.to_string() })?;
        let cluster = ca_cluster(certificate)?;
        if super::identity::raw_public_key(certificate, "CA certificate")? != key.public_key_raw() {
            return Err(PkiError::KeyDiffers("CA key"));
        }
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(certificate), key)
            .map_err(|error| PkiError::Damaged { what: "CA certificate", why: error.to_string() })?;
        Ok(Authority { issuer, certificate: certificate.to_vec(), cluster })
    }

    /// PKCS#8 DER, for the keyring.
    pub fn key(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Its own certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The cluster it is the authority of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// A node's certificate (DER) for its raw ed25519 key. The same arguments give the same bytes.
    ///
    /// # Errors
    /// The key has not 32 bytes.
    pub fn sign_node(&self, node: NodeId, public_key: &[u8], stamp_ms: u64) -> Result<Vec<u8>, PkiError> {
        let serial = [&node.0.to_be_bytes()[..], &stamp_ms.to_be_bytes()[..]].concat();
        self.sign(Subject::Node(node), public_key, &serial, stamp_ms, CERTIFICATE_TTL_MS)
    }

    /// An administrator's certificate (DER), with a name made here; valid for a year.
    ///
    /// # Errors
    /// The key has not 32 bytes.
    pub fn sign_admin(&self, public_key: &[u8], now_ms: u64) -> Result<Vec<u8>, PkiError> {
        let name = random_bytes::<8>();
        self.sign(Subject::Admin(hex(&name)), public_key, &name, now_ms, ADMIN_CERTIFICATE_TTL_MS)
    }

    fn sign(&self, subject: Subject, public_key: &[u8], serial: &[u8], from_ms: u64, ttl_ms: u64) -> Result<Vec<u8>, PkiError> {
        let key = RawKey(public_key.try_into().map_err(|_| PkiError::OtherKeyKind("public key"))?);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject.to_string());
        let uri = subject.uri(self.cluster).try_into().expect("a URI of ours is ASCII");
        let dns = proto::SERVER_NAME.try_into().expect("node.disco is ASCII");
        params.subject_alt_names = vec![SanType::URI(uri), SanType::DnsName(dns)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial_number(serial));
        params.not_before = date_time_ymd(1970, 1, 1) + seconds(from_ms.saturating_sub(CERTIFICATE_BACKDATE_MS));
        params.not_after = date_time_ymd(1970, 1, 1) + seconds(from_ms.saturating_add(ttl_ms));
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| PkiError::Damaged { what: "certificate to sign", why: error.to_string() })?;
        Ok(certificate.der().to_vec())
    }
}

/// The cluster that a CA certificate (DER) names.
///
/// # Errors
/// It is damaged, or no CA of ours.
pub fn ca_cluster(certificate: &[u8]) -> Result<ClusterId, PkiError> {
    let damaged = |why: &str| PkiError::Damaged { what: "CA certificate", why: why.to_owned() };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| damaged(&error.to_string()))?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let id = name.and_then(|name| name.strip_prefix("disco ")).ok_or_else(|| damaged("it names no cluster"))?;
    id.parse().map_err(|_| damaged("it names no cluster"))
}

fn ca_name(cluster: ClusterId) -> String {
    format!("disco {cluster}")
}

fn common_name(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// 16 bytes of a digest, the first bit cleared and the second set: positive and of one length (RFC 5280, 4.1.2.2).
fn serial_number(seed: &[u8]) -> SerialNumber {
    let mut bytes = ca_digest(seed)[..16].to_vec();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from(bytes)
}

/// Added to 1970-01-01. Certificates know seconds; a clock set beyond the year 9000 counts as that year.
fn seconds(ms: u64) -> Duration {
    const YEAR_9000_SECS: u64 = 221_845_392_000;
    Duration::from_secs((ms / 1000).min(YEAR_9000_SECS))
}

struct RawKey([u8; 32]);

impl PublicKeyData for RawKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
