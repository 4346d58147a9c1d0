//! What a baked machine image holds, so that machines that start from it at once are one trust domain: the CA of the cluster
//! to be (`ca.crt`, `ca.key`) and a token for its workers (`token`). `disco init --image` writes it.

use crate::{
    drivers::pki::{Authority, BadToken, FilesError, ImageFiles, JoinToken, PkiError, ca_digest, sha256},
    model::{node::Role, token::TokenRecord},
};
use std::path::Path;

/// Ten years, the longest a token lives.
const TOKEN_TTL_MS: u64 = 10 * 365 * 24 * 3_600_000;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    File(#[from] FilesError),
    #[error("the image's ca.crt and ca.key are of no use")]
    Authority(#[from] PkiError),
    #[error("the image's token is {0}")]
    Token(#[from] BadToken),
    #[error("the image's token is for another CA than the image's")]
    OtherCa,
}

pub struct Image {
    pub authority: Authority,
    pub token: JoinToken,
}

impl Image {
    /// # Errors
    /// A file is missing or damaged, or they do not belong together.
    pub fn read(folder: &Path) -> Result<Image, ImageError> {
        let files = ImageFiles::new(folder);
        let (key, certificate, token) = files.read()?;
        let authority = Authority::open(&key, &certificate)?;
        let token: JoinToken = token.parse()?;
        if ca_digest(authority.certificate()) != token.ca_digest {
            return Err(ImageError::OtherCa);
        }
        Ok(Image { authority, token })
    }

    /// As the cluster that begins from it knows the token: for workers, as often as it likes.
    pub fn token_record(&self, now_ms: u64) -> TokenRecord {
        let hash = sha256(self.token.secret.as_bytes()).to_vec();
        let id = "image".into();
        TokenRecord { id, hash, role: Role::Worker, created_ms: now_ms, expires_ms: now_ms + TOKEN_TTL_MS, uses_left: u32::MAX }
    }
}
