//! What goes wrong between here and a machine, each with what to do about it.

use crate::message::Failure;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("cannot connect to {machine}")]
    Connect { machine: String, source: std::io::Error },
    #[error("{machine} does not answer as an SSH server within {seconds} s")]
    Silent { machine: String, seconds: u64 },
    #[error("{machine} breaks the SSH protocol")]
    Protocol { machine: String, source: russh::Error },
    #[error("{machine} shows another host key than the one it is known by: it shows {shown}, not {}", expected.join(" or "))]
    WrongKey { machine: String, shown: String, expected: Vec<String> },
    #[error("the host key of {machine} is not known; it shows {shown}")]
    UnknownKey { machine: String, shown: String },
    #[error("the host key of {machine} is not known, and {} knows only keys of kinds that are not checked here ({kinds})", path.display())]
    OnlyOtherKinds { machine: String, path: PathBuf, kinds: String },
    #[error("`{text}` is not a host key")]
    BadKey { text: String },
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot use the private key {}", path.display())]
    PrivateKey { path: PathBuf, source: russh::keys::Error },
    #[error("{machine} does not let us in with {tried}")]
    Refused { machine: String, tried: String },
    #[error("there is no key to show to {machine}: no SSH agent answers, and there is no private key")]
    NoKey { machine: String },
    #[error("the connection to {machine} was lost")]
    Lost { machine: String },
    #[error("cannot {what} on {machine} within {seconds} s")]
    Slow { machine: String, what: String, seconds: u64 },
    #[error("cannot {what} on {machine}: {why}")]
    Command { machine: String, what: String, why: String },
}

impl SshError {
    /// Whether the machine may only be on its way up: worth another try.
    pub fn may_pass(&self) -> bool {
        matches!(self, SshError::Connect { .. } | SshError::Silent { .. } | SshError::Lost { .. })
            || matches!(self, SshError::Protocol { source: russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect, .. })
    }

    /// As a failure of `what`, e.g. "cannot install the node on 10.0.0.1".
    pub fn failure(&self, what: impl Into<String>) -> Failure {
        let failure = Failure::broke(what).caused_by(self);
        match self {
            SshError::UnknownKey { .. } => failure.hint(
                "look at the machine's own screen, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`; if it is the same, give it as the host's `host_key`",
            ),
            SshError::WrongKey { .. } => failure
                .hint("if the machine was installed anew, give its new key as `host_key` (or correct known_hosts); if not, somebody is in between"),
            SshError::OnlyOtherKinds { .. } => failure.hint("give the machine's ed25519 or ecdsa key as the host's `host_key`"),
            SshError::BadKey { .. } => failure.hint("it is a line like `ssh-ed25519 AAAA…`, or a fingerprint like `SHA256:…`"),
            SshError::Refused { .. } | SshError::NoKey { .. } => {
                failure.hint("name the key with `cluster.set_key_pair({ private: \"~/.ssh/id_ed25519\" })`, or `ssh-add` it; `ssh` itself has to get in")
            }
            _ => failure,
        }
    }
}
