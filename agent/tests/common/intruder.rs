//! Callers that should not get far: certificates made with a cluster's own stolen authority, or with another's, shown
//! by a client that checks nothing itself.

use super::{AnyServer, Daemon};
use agent::{
    drivers::pki::{self, Authority, KeyFiles},
    model::ids::NodeId,
};
use proto::{Channel, ChannelLimits, Spawner, v1};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::sync::Arc;
use tonic::{Code, Status};

/// Somebody with a key, and perhaps a certificate for it.
pub struct Intruder {
    tls: Arc<ClientConfig>,
}

impl Intruder {
    /// Shows no certificate.
    pub fn stranger() -> Intruder {
        Intruder { tls: proto::client_config(None, Arc::new(AnyServer)).expect("without a key no key can be wrong") }
    }

    /// Shows this certificate (DER) for this key (PKCS#8 DER).
    pub fn showing(certificate: Vec<u8>, key: Vec<u8>) -> Intruder {
        let identity = (vec![CertificateDer::from(certificate)], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)));
        Intruder { tls: proto::client_config(Some(identity), Arc::new(AnyServer)).expect("key and certificate are a pair") }
    }

    /// Has stolen a node's certificate and key.
    pub fn posing_as(node: &Daemon) -> Intruder {
        let files = KeyFiles::new(&node.data());
        Intruder::showing(files.certificates().expect("it has joined").0, files.key().expect("it has joined"))
    }

    /// Shows an administrator's certificate by this authority, issued at `issued_ms`.
    pub fn admin(authority: &Authority, issued_ms: u64) -> Intruder {
        let key = pki::new_key();
        let certificate = authority.sign_admin(&pki::public_key(&key).expect("just made"), issued_ms).expect("32 bytes");
        Intruder::showing(certificate, key)
    }

    /// Shows a certificate for `node` by this authority, with a key of its own.
    pub fn node(authority: &Authority, node: NodeId, issued_ms: u64) -> Intruder {
        let key = pki::new_key();
        let certificate = authority.sign_node(node, &pki::public_key(&key).expect("just made"), issued_ms).expect("32 bytes");
        Intruder::showing(certificate, key)
    }

    /// The way to a node's port, with messages as large as it likes.
    pub fn channel(&self, spawner: &Spawner, address: &str) -> Channel {
        let limits = ChannelLimits { message_bytes_max: 16 << 20, ..ChannelLimits::default() };
        Channel::tcp(spawner.clone(), address.to_owned(), Arc::clone(&self.tls), limits)
    }

    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Asks for a key at a node's port.
    pub fn asks(&self, address: &str) -> Result<v1::ReadReply, Status> {
        super::block_on(async |spawner| {
            let query = v1::read_request::Query::KvGet(v1::KvGet { key: "a".into() });
            let reply = self.channel(&spawner, address).disco().read(v1::ReadRequest { stale: true, query: Some(query) }).await;
            reply.map(tonic::Response::into_inner)
        })
    }
}

/// The authority of the cluster that `manager` is in: its keyring holds the key.
pub fn stolen_authority(manager: &Daemon) -> Authority {
    let files = KeyFiles::new(&manager.data());
    let keyring = files.keyring().expect("readable").expect("managers have one");
    Authority::open(&keyring.ca_key, &files.certificates().expect("it has joined").1).expect("they are a pair")
}

pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the end of time")
}

/// # Panics
/// It was not refused with this code, or the words do not hold all of `words`.
pub fn assert_refused<T>(outcome: Result<T, Status>, code: Code, words: &[&str]) {
    let Err(status) = outcome else { panic!("let in; expected {code:?} with {words:?}") };
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "`{word}` is missing in: {}", status.message());
    }
}
