//! How a node gets into a cluster: it asks each seed in turn until one lets it in or says no for good.
//!
//! Its key is on disk before the first word, so that asking again after a crash is asking as the same node: the token may
//! have been used by us, and then the answer is the certificate we lost. Before it sends the token it has checked that the
//! server's CA is the one the token names.

use super::{
    config::Config,
    data_dir::{DataDir, DataDirError, Identity},
    machine,
};
use crate::{
    drivers::{
        peers::join::{Answer, LetIn, Plea, ask},
        pki::{self, FilesError, JoinToken, KeyFiles, PkiError},
        store::{Expect, Store, StoreError},
    },
    logic::forming::Seen,
    model::{
        ids::{ClusterId, NodeId},
        limits::SEEDS_MAX,
    },
};
use proto::Spawner;
use std::{collections::BTreeMap, time::Duration};

/// Between two rounds of all seeds.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("no seed is of the token's cluster: each shows another CA (last asked: `{address}`)")]
    OtherCluster { address: String },
    #[error("`{address}` does not let this node in: {why}")]
    Refused { address: String, why: String },
    #[error("`{address}` answered with something that is not ours")]
    Reply { address: String, source: PkiError },
    #[error("`{address}` answered with something that is not ours: {why}")]
    BadReply { address: String, why: String },
    #[error(transparent)]
    Key(#[from] PkiError),
    #[error(transparent)]
    File(#[from] FilesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Asks until it is in. The identity is written last.
///
/// # Errors
/// The answer is no and will stay no, or the disk's.
pub async fn join(mut applicant: Applicant<'_>, seeds: &[String]) -> Result<Identity, JoinError> {
    let mut pause = PAUSE_MIN;
    loop {
        match applicant.round(seeds).await? {
            Round::In(identity) => return Ok(*identity),
            // One seed of another cluster may be an address that changed hands; all of them are the wrong token.
            Round::Out { others, asked, .. } if others.len() == asked && asked > 0 => {
                return Err(JoinError::OtherCluster { address: others.into_iter().next_back().unwrap_or_default() });
            }
            Round::Out { .. } => {}
        }
        // Many nodes that start at once must not ask in step.
        async_io::Timer::after(pause.mul_f32(0.5 + pki::random_fraction())).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What came of asking every seed once.
pub enum Round {
    In(Box<Identity>),
    Out {
        asked: usize,
        /// Addresses where another CA was shown.
        others: Vec<String>,
        seen: Seen,
    },
}

/// A node that wants in: its key is on disk, its request made.
pub struct Applicant<'a> {
    data_dir: &'a DataDir,
    files: KeyFiles,
    /// None: it only looks who is there.
    token: Option<JoinToken>,
    key: Vec<u8>,
    node: NodeId,
    plea: Plea,
    spawner: Spawner,
    /// What was told last of each seed.
    told: BTreeMap<String, String>,
}

impl<'a> Applicant<'a> {
    /// # Errors
    /// The disk's, or a data dir that already holds another node's state.
    pub fn new(
        data_dir: &'a DataDir,
        config: &Config,
        token: Option<JoinToken>,
        name: String,
        address: String,
        spawner: Spawner,
    ) -> Result<Applicant<'a>, JoinError> {
        let files = KeyFiles::new(data_dir.path());
        drop(Store::open(&data_dir.file("store.redb"), Expect::New)?);
        let key = files.key_or_new()?;
        let plea = Plea {
            token_secret: token.as_ref().map(|token| token.secret.clone()).unwrap_or_default(),
            csr: pki::new_csr(&key)?,
            name,
            address,
            cpus: machine::cpus(),
            memory: machine::memory(),
            labels: config.labels.clone(),
            instance: config.instance.clone(),
        };
        let node = pki::node_of(&pki::public_key(&key)?);
        Ok(Applicant { data_dir, files, token, key, node, plea, spawner, told: BTreeMap::new() })
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// PKCS#8 DER.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Asks every seed once, itself excepted.
    ///
    /// # Errors
    /// The answer is no and will stay no, or the disk's.
    pub async fn round(&mut self, seeds: &[String]) -> Result<Round, JoinError> {
        let (mut asked, mut others, mut seen) = (0, Vec::new(), Seen::default());
        for address in super::seeds::addresses(seeds).await {
            if address == self.plea.address {
                continue;
            }
            asked += 1;
            let tls = pki::joiner_tls(self.token.as_ref().map_or([0; 32], |token| token.ca_digest));
            match ask(&self.spawner, &address, tls, &self.plea).await {
                Answer::LetIn(gift) => return self.take(&address, *gift).map(|identity| Round::In(Box::new(identity))),
                Answer::Unformed(id) => seen.unformed.extend(id),
                Answer::Never(why) => return Err(JoinError::Refused { address, why }),
                Answer::OtherCa => others.push(address),
                Answer::NotNow(why) => {
                    seen.formed = true;
                    let why = format!("{address} says: {why}");
                    self.tell(address, why);
                }
                Answer::Silent(why) => self.tell(address, why),
            }
        }
        Ok(Round::Out { asked, others, seen })
    }

    /// Once, however often it is the same in a row.
    fn tell(&mut self, address: String, why: String) {
        if self.told.get(&address) != Some(&why) {
            log::warn!("cannot join yet: {why}");
            // A list of seeds may change for ever.
            if self.told.len() >= SEEDS_MAX {
                self.told.clear();
            }
            self.told.insert(address, why);
        }
    }

    fn take(&self, seed: &str, gift: LetIn) -> Result<Identity, JoinError> {
        let token = self.token.as_ref().expect("nobody lets in a node that shows no token");
        let cluster = check(seed, &gift, token, self.node, &self.key)?;
        self.files.save_certificates(&gift.certificate, &gift.ca)?;
        self.data_dir.save_managers(&gift.managers)?;
        let name = self.plea.name.clone();
        let identity = Identity { node: self.node, cluster, cluster_name: gift.cluster_name, name, originating: false };
        self.data_dir.save_identity(&identity)?;
        Ok(identity)
    }
}

/// The certificate must be for our key and signed by the CA that the token names.
fn check(seed: &str, gift: &LetIn, token: &JoinToken, node: NodeId, key: &[u8]) -> Result<ClusterId, JoinError> {
    let bad = |why: &str| JoinError::BadReply { address: seed.to_owned(), why: why.to_owned() };
    if pki::ca_digest(&gift.ca) != token.ca_digest {
        return Err(bad("its CA is not the token's"));
    }
    if gift.node != node.to_string() {
        return Err(bad("it let in another node"));
    }
    // What it installs is what TLS will use: the same checks, made before anything is written.
    let trust = pki::Trust::new();
    trust.install(&gift.certificate, key, &gift.ca).map_err(|source| JoinError::Reply { address: seed.to_owned(), source })?;
    let identity = trust.identity().expect("it was installed right above");
    if identity.subject != pki::Subject::Node(node) {
        return Err(bad("the certificate is another's"));
    }
    Ok(identity.cluster)
}
