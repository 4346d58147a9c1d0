//! How a node begins a cluster of its own.
//!
//! Everything is written before `identity.toml` is, and nobody can have heard of the cluster before that: a node that was
//! stopped on the way has only its key to keep and makes the rest again.

use super::{
    config::Config,
    data_dir::{DataDir, DataDirError, Identity},
    image::Image,
};
use crate::{
    drivers::{
        pki::{self, Authority, FilesError, KeyFiles, PkiError},
        store::{Expect, Store, StoreError},
        wall_clock::wall_ms,
    },
    model::{ids::ClusterId, io::Keyring},
};

#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error(transparent)]
    File(#[from] FilesError),
    #[error("cannot make the node's certificate")]
    Certificate(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Makes the authority (or takes the image's), this node's certificate, an empty store and the identity.
///
/// # Errors
/// The disk's, or a data dir that already holds another node's state.
pub fn originate(data_dir: &DataDir, config: &Config, image: Option<&Image>, name: String) -> Result<Identity, OriginError> {
    let files = KeyFiles::new(data_dir.path());
    let now_ms = wall_ms();
    // A store with something in it belongs to somebody: looked at before anything is written.
    drop(Store::open(&data_dir.file("store.redb"), Expect::New)?);
    let key = files.key_or_new()?;
    let public_key = pki::public_key(&key)?;
    let node = pki::node_of(&public_key);
    let made;
    let authority = match image {
        Some(image) => &image.authority,
        None => {
            let cluster = config.cluster_id.unwrap_or_else(|| ClusterId(u64::from_be_bytes(pki::random_bytes())));
            made = Authority::create(cluster, now_ms);
            &made
        }
    };
    let cluster = authority.cluster();
    let keyring = Keyring {
        ca_key: authority.key(),
        join_key: pki::random_bytes::<32>().into(),
        secrets_key: pki::random_bytes::<32>().into(),
        epoch: 0,
        next: None,
    };
    files.save_keyring(Some(&keyring))?;
    files.save_certificates(&authority.sign_node(node, &public_key, now_ms)?, authority.certificate())?;
    let cluster_name = config.cluster_name.clone().unwrap_or_else(|| "disco".into());
    let identity = Identity { node, cluster, cluster_name, name, originating: true };
    data_dir.save_identity(&identity)?;
    Ok(identity)
}
