//! Where machines come from. One provider exists so far: `local`, whose machines are processes on this one.
//!
//! What every provider promises the leader, so that a decision is carried out once however often it is repeated:
//! a launch is known by its operation, an operation that was terminated is never launched again, and
//! starting, stopping and terminating what is already so is a success.

mod folder;
mod local;
pub mod unit;

pub use local::{Launched, LocalProvider, address_of};

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("operation {operation} was terminated; it is not launched again")]
    Terminated { operation: String },
    #[error("instance `{id}` belongs to another launch ({operation})")]
    Taken { id: String, operation: String },
    #[error("no instance `{id}`")]
    Unknown { id: String },
    #[error("`{id}` is not the name of an instance (i-1, i-2, …)")]
    BadName { id: String },
    #[error("cannot {operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("cannot start {}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("cannot end process {pid} of instance `{id}`")]
    End { id: String, pid: u32, source: io::Error },
}

impl ProviderError {
    /// Whether repeating the same call cannot help.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            ProviderError::Terminated { .. } | ProviderError::Taken { .. } | ProviderError::Unknown { .. } | ProviderError::BadName { .. }
        )
    }
}

/// For `map_err`: what was tried on which path.
fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ProviderError {
    let path = path.into();
    move |source| ProviderError::File { operation, path, source }
}
