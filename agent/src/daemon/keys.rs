//! Keeps what is on disk and what TLS uses the same: the keyring as seats come and go, the certificate as it is renewed.

use crate::{
    drivers::{
        api::Api,
        pki::{self, FilesError, KeyFiles, PkiError, Subject, Trust},
    },
    model::io::Keyring,
};
use std::{sync::Arc, time::Duration};

/// How often to look whether the certificate is due, about: nodes that were made together must not ask together. Its life
/// is 30 days.
const LOOK: Duration = Duration::from_secs(3600);
/// After a failure: at the start of the process it may only be that no leader is known yet.
const RETRY_MIN: Duration = Duration::from_secs(1);

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
}

impl Keys {
    /// Saves and uses the keyring, or forgets it. Durable on return.
    ///
    /// # Errors
    /// The disk's; or the CA key in it is not that of this cluster, then nothing has changed.
    pub fn hold(&self, keyring: Option<&Keyring>) -> Result<(), KeysError> {
        self.trust.set_keyring(keyring, &self.trust.ca()).map_err(KeysError::Keyring)?;
        Ok(self.files.save_keyring(keyring)?)
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
            async_io::Timer::after(wait.mul_f32(0.5 + pki::random_fraction() / 2.0)).await;
        }
    }

    async fn renew(&self, api: &Api, csr: &[u8]) -> Result<(), String> {
        let own = self.trust.identity().ok_or("there is none")?;
        let Subject::Node(node) = own.subject else { return Err("it is not a node's".into()) };
        // A manager signs for itself; any other node asks the leader.
        let certificate = match self.trust.renew(node, &own.public_key, csr) {
            Ok(certificate) => certificate,
            Err(PkiError::NoKeyring) => {
                let (_, address) = api.gate.leader().ok_or("no leader is known")?;
                api.peers.renew(&address, csr.to_vec()).await.map_err(|status| status.message().to_owned())?
            }
            Err(other) => return Err(other.to_string()),
        };
        self.trust.install_renewed(&certificate).map_err(|error| error.to_string())?;
        self.files.save_certificate(&certificate).map_err(|error| error.to_string())
    }
}
