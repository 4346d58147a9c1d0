//! What can be wrong with a store, as a person reads it.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {} is missing, but this node has an identity: restore the file, or remove the node from the cluster and its data dir and join again", path.display())]
    Missing { path: PathBuf },
    #[error("the store {} holds data, but this node has no identity beside it", path.display())]
    Unexpected { path: PathBuf },
    #[error("{} is not a store of discod", path.display())]
    Foreign { path: PathBuf },
    #[error("the store {} has format {found}, this build reads {known}", path.display())]
    Version { path: PathBuf, found: u8, known: u8 },
    #[error("the store {} is damaged: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error("the store {} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("cannot {operation} the store {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {operation} the store {}: {what}", path.display())]
    Engine { operation: &'static str, path: PathBuf, what: String },
    #[error("the store {} failed before and takes no more writes", path.display())]
    Broken { path: PathBuf },
    /// A bug of the caller: nothing was written.
    #[error("refused a batch: {what}")]
    Batch { what: String },
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { operation, path: path.into(), source }
    }

    pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt { path: path.into(), what: what.into() }
    }

    pub(super) fn engine(operation: &'static str, path: &Path, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            redb::Error::Corrupted(what) => StoreError::corrupt(path, what),
            // Only our own check aborts a repair: it would have to go back one transaction.
            redb::Error::RepairAborted => StoreError::corrupt(path, "the pages of its newest transaction do not add up"),
            redb::Error::UpgradeRequired(version) => StoreError::corrupt(path, format!("redb file format {version}")),
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
            // The overlay answers so to a read past the end of a cut-off file.
            redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => StoreError::corrupt(path, "it is cut off"),
            redb::Error::Io(source) => StoreError::io(operation, path, source),
            other => StoreError::Engine { operation, path: path.into(), what: other.to_string() },
        }
    }
}
