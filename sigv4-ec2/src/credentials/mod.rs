//! Who we are: an access key, and where it comes from.

mod chain;
mod environment;
mod imds;
mod profile;

pub use chain::Chain;
pub use environment::Environment;
pub use imds::Imds;

use std::{fmt, io, path::PathBuf, time::SystemTime};

/// An access key. Never shows its secret, also not in `Debug`.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<SystemTime>,
}

impl Credentials {
    /// `token` is the session token that comes with temporary credentials.
    pub fn new(key: impl Into<String>, secret: impl Into<String>, token: Option<String>) -> Credentials {
        Credentials { key: key.into(), secret: secret.into(), token, expires: None }
    }

    /// Good until then. [`Source`]s that can are asked again some minutes before.
    pub fn until(self, expires: SystemTime) -> Credentials {
        Credentials { expires: Some(expires), ..self }
    }

    /// The access key's id, which is no secret: AWS prints it in its own logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When they end, if they do.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The text without our secrets: some services repeat a whole signed request in an error.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        let hidden = |text: String, secret: &str| if secret.is_empty() { text } else { text.replace(secret, "(hidden)") };
        let text = hidden(text.to_owned(), &self.secret);
        hidden(text, self.token.as_deref().unwrap_or_default())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key's name is not secret, and one needs it to tell credentials apart.
        let token = self.token.as_ref().map(|_| "(hidden)");
        let mut shown = f.debug_struct("Credentials");
        shown.field("key", &self.key).field("secret", &"(hidden)").field("token", &token);
        shown.field("expires", &self.expires).finish()
    }
}

/// Somewhere that credentials come from.
pub trait Source: Send + Sync + fmt::Debug {
    /// Asked for the first call and again before the last answer expires. May block for some seconds.
    ///
    /// # Errors
    /// [`CredentialsError`], which never holds a secret.
    fn credentials(&self) -> Result<Credentials, CredentialsError>;
}

impl Source for Credentials {
    fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Ok(self.clone())
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Nobody has any.
    #[error("found none in {}", looked.join(", nor in "))]
    Nowhere {
        /// The places that were asked.
        looked: Vec<String>,
    },
    /// A half is set.
    #[error("{set} is set, but {missing} is not")]
    Half {
        /// The half that is there.
        set: String,
        /// The half that is not.
        missing: String,
    },
    /// A profile is named that neither file has.
    #[error("there is no profile `{profile}` in ~/.aws")]
    NoProfile {
        /// Its name.
        profile: String,
    },
    /// A profile gets its keys from somebody else.
    #[error(
        "profile `{profile}` has {key}, which is not supported; `aws configure export-credentials --profile {profile} --format env` gives keys"
    )]
    Indirect {
        /// Its name.
        profile: String,
        /// The setting that says so.
        key: String,
    },
    /// A file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The metadata service does not answer, or not as it should.
    #[error("cannot ask the metadata service at {url}")]
    Imds {
        /// Where.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let credentials = Credentials::new("AKIDEXAMPLE", "very-secret", Some("session".to_owned()));
        let shown = format!("{credentials:?}");
        assert!(shown.contains("AKIDEXAMPLE") && !shown.contains("very-secret") && !shown.contains("session\""));
        let hidden = credentials.hide_in("canonical: x-amz-security-token:session, very-secret");
        assert_eq!(hidden, "canonical: x-amz-security-token:(hidden), (hidden)");
    }
}
