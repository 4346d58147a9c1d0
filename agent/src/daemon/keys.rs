//! Keeps what is on disk and what TLS uses the same: the keyring as seats come and go, the certificate as it is renewed.

use crate::{
    drivers::{
        api::Api,
        pki::{self, FilesError, KeyFiles, PkiError, Subject, Trust},
    },
    model::{
        authority::Authorities,
        io::{Input, Keyring},
    },
};
use futures_lite::future::or;
use std::{sync::Arc, time::Duration};

/// How often to look whether the certificate is due, about: nodes that were made together must not ask together. Its life
/// is 30 days.
const LOOK: Duration = Duration::from_secs(3600);
/// After a failure: at the start of the process it may only be that no leader is known yet.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Over how long nodes spread what all of them are to do.
const SPREAD: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    File(#[from] FilesError),
    #[error("the keyring does not fit this cluster")]
    Keyring(#[source] PkiError),
}

#[derive(Clone)]
pub struct Keys {
    pub files: KeyFiles,
    pub trust: Arc<Trust>,
    /// Something happened that may make the certificate due.
    due: async_channel::Sender<()>,
    heard_due: async_channel::Receiver<()>,
}

impl Keys {
    pub fn new(files: KeyFiles, trust: Arc<Trust>) -> Keys {
        let (due, heard_due) = async_channel::bounded(1);
        Keys { files, trust, due, heard_due }
    }

    /// Saves and uses the keyring, or forgets it. Durable on return.
    ///
    /// # Errors
    /// The disk's; or the CA key in it is not that of this cluster, then nothing has changed.
    pub fn hold(&self, keyring: Option<&Keyring>) -> Result<(), KeysError> {
        self.trust.set_keyring(keyring).map_err(KeysError::Keyring)?;
        Ok(self.files.save_keyring(keyring)?)
    }

    /// Believes whom the cluster says, durably, and asks for another certificate if it is to. True if that was news.
    ///
    /// # Errors
    /// The disk's.
    pub fn learn(&self, told: &Authorities) -> Result<bool, KeysError> {
        match self.trust.learn(told) {
            Ok(false) => Ok(false),
            Ok(true) => {
                let (known, certificates) = self.trust.held().expect("it has just learnt");
                self.files.save_authorities(&known)?;
                self.files.save_own(&certificates)?;
                if self.trust.renewal().is_some() {
                    let _ = self.due.try_send(());
                }
                Ok(true)
            }
            Err(error) => {
                log::error!("cannot believe the cluster's authorities: {error}");
                Ok(false)
            }
        }
    }

    /// Renews the certificate whenever it is due, for as long as the process lives. Connections that are open stay open.
    pub async fn renew_when_due(self, api: Arc<Api>) {
        let mut retry = RETRY_MIN;
        let mut told = String::new();
        loop {
            let wait = match self.trust.renewal() {
                None => LOOK,
                Some(csr) => match self.renew(&api, &csr).await {
                    Ok(()) => {
                        log::info!("the node's certificate was renewed");
                        retry = RETRY_MIN;
                        api.door.report(Input::Papers(self.trust.papers()));
                        LOOK
                    }
                    Err(why) => {
                        if why != told {
                            log::warn!("the node's certificate is due and is not renewed yet: {why}");
                            told = why;
                        }
                        retry = (retry * 2).min(LOOK);
                        retry
                    }
                },
            };
            let alarm = async {
                async_io::Timer::after(wait.mul_f32(0.5 + pki::random_fraction() / 2.0)).await;
            };
            let called = async {
                // All nodes were told at once: they must not ask at once.
                let _ = self.heard_due.recv().await;
                async_io::Timer::after(SPREAD.mul_f32(pki::random_fraction())).await;
            };
            or(alarm, called).await;
        }
    }

    async fn renew(&self, api: &Api, csr: &[u8]) -> Result<(), String> {
        let own = self.trust.identity().ok_or("there is none")?;
        let Subject::Node(node) = own.subject else { return Err("it is not a node's".into()) };
        // A manager signs for itself; any other node asks the leader.
        let certificate = match self.trust.renew(node, &own.public_key, csr) {
            Ok(certificate) => certificate,
            Err(PkiError::NoKeyring) => {
                let (leader, address) = api.gate.leader().ok_or("no leader is known")?;
                api.peers.renew(leader, &address, csr.to_vec()).await.map_err(|status| status.message().to_owned())?
            }
            Err(other) => return Err(other.to_string()),
        };
        let certificates = self.trust.install_renewed(&certificate).map_err(|error| error.to_string())?;
        self.files.save_own(&certificates).map_err(|error| error.to_string())
    }
}
