//! The one way TLS is spoken here: 1.3 only, HTTP/2 only, both sides show certificates, nothing is resumed.
//!
//! Resumption would keep tickets and session caches in memory and let a revoked node come back without showing its
//! certificate again. Who is let in is decided by the verifiers given from outside.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::{ResolvesClientCert, Resumption, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

/// The DNS name every node's certificate carries; identity is in the URI name beside it.
pub const SERVER_NAME: &str = "node.disco";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Settings of a server whose certificate comes from `cert` at each handshake and whose callers `clients` checks.
pub fn server_config(cert: Arc<dyn ResolvesServerCert>, clients: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring's provider has TLS 1.3 suites")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(cert);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Settings of a client that shows `identity` (none: a joiner) to servers that `servers` accepts.
///
/// # Errors
/// The key is of no kind ring can sign with, or does not belong to the certificate.
pub fn client_config(
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    servers: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let Some((chain, key)) = identity else {
        return Ok(client_config_with(Arc::new(NoIdentity), servers));
    };
    let certified = CertifiedKey::from_der(chain, key, &provider())?;
    Ok(client_config_with(Arc::new(SingleCertAndKey::from(certified)), servers))
}

/// The same, with a certificate looked up at each handshake, so that a renewed one needs no new settings.
pub fn client_config_with(identity: Arc<dyn ResolvesClientCert>, servers: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring's provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(servers)
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
