//! Which host key a machine has to show: the one that was given, or those known_hosts has for it. Never just any.

use super::error::SshError;
use super::known_hosts::{self, BYTES_MAX};
use crate::context::read_whole;
use russh::keys::ssh_key::Fingerprint;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use std::io::ErrorKind;
use std::path::PathBuf;

/// Where the host key of a machine comes from.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Lines like `ssh-ed25519 AAAA…` or fingerprints like `SHA256:…`; any of them will do.
    Given(Vec<String>),
    /// Files like `~/.ssh/known_hosts`; what is not there says nothing.
    KnownHosts(Vec<PathBuf>),
}

/// What a machine may show.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    keys: Vec<PublicKey>,
    fingerprints: Vec<Fingerprint>,
    revoked: Vec<PublicKey>,
}

impl Trust {
    /// The user's and the system's known_hosts.
    pub fn of_this_user() -> Trust {
        let own = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
        Trust::KnownHosts(own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect())
    }

    /// # Errors
    /// What was given is no key, or a file cannot be read, or has only keys that cannot be checked.
    pub fn expected(&self, machine: &str, host: &str, port: u16) -> Result<Expected, SshError> {
        let mut expected = Expected::default();
        match self {
            Trust::Given(lines) => {
                for line in lines {
                    expected.add(line)?;
                }
            }
            Trust::KnownHosts(paths) => {
                let mut others = None;
                for path in paths {
                    let text = match read_whole(path, BYTES_MAX) {
                        Err(source) if source.kind() == ErrorKind::NotFound => continue,
                        read => read.map_err(|source| SshError::File { path: path.clone(), source })?,
                    };
                    let known = known_hosts::look_up(&String::from_utf8_lossy(&text), host, port);
                    if !known.other_kinds.is_empty() {
                        others.get_or_insert((path, known.other_kinds.join(", ")));
                    }
                    expected.keys.extend(known.keys);
                    expected.revoked.extend(known.revoked);
                }
                // A later file may have a key that can be checked.
                if let (true, Some((path, kinds))) = (expected.keys.is_empty(), others) {
                    return Err(SshError::OnlyOtherKinds { machine: machine.to_owned(), path: path.clone(), kinds });
                }
            }
        }
        Ok(expected)
    }
}

impl Expected {
    fn add(&mut self, line: &str) -> Result<(), SshError> {
        let line = line.trim();
        let bad = || SshError::BadKey { text: line.chars().take(80).collect() };
        if line.starts_with("SHA256:") {
            self.fingerprints.push(line.parse().map_err(|_| bad())?);
        } else {
            let key = PublicKey::from_openssh(line).map_err(|_| bad())?;
            self.keys.push(key);
        }
        Ok(())
    }

    pub fn accepts(&self, key: &PublicKey) -> bool {
        let same = |known: &PublicKey| known.key_data() == key.key_data();
        let named = self.fingerprints.iter().any(|f| f.algorithm() == HashAlg::Sha256 && *f == key.fingerprint(HashAlg::Sha256));
        (named || self.keys.iter().any(same)) && !self.revoked.iter().any(same)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.fingerprints.is_empty()
    }

    /// Fingerprints, for an error.
    pub fn shown(&self) -> Vec<String> {
        let keys = self.keys.iter().map(fingerprint);
        keys.chain(self.fingerprints.iter().map(ToString::to_string)).collect()
    }

    /// The kinds of keys to ask for: those that are known, so that a machine with several shows one we can check.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let curve = |curve| Algorithm::Ecdsa { curve };
        let all = [Algorithm::Ed25519, curve(EcdsaCurve::NistP256), curve(EcdsaCurve::NistP384), curve(EcdsaCurve::NistP521)];
        let known: Vec<Algorithm> = all.iter().filter(|a| self.keys.iter().any(|k| k.algorithm() == **a)).cloned().collect();
        if known.is_empty() || !self.fingerprints.is_empty() { all.to_vec() } else { known }
    }
}

/// `SHA256:…`
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILcMgvBs8qXmTqn40iKNIGzsZ4XnHXXFCAWXPXTKl8z";

    fn key(line: &str) -> PublicKey {
        PublicKey::from_openssh(line).expect("it is a key")
    }

    fn given(line: &str) -> Result<Expected, SshError> {
        Trust::Given(vec![line.into()]).expected("m", "h", 22)
    }

    #[test]
    fn a_given_key_or_fingerprint_is_the_only_one_accepted() {
        for line in [format!("{KEY} root@machine\n"), fingerprint(&key(KEY))] {
            let expected = given(&line).expect("it is a key");
            assert!(expected.accepts(&key(KEY)) && !expected.accepts(&key(OTHER)), "{line}");
        }
        for line in ["", "SHA256:", "SHA256:abc", "ssh-ed25519", "ssh-ed25519 AAAA", "MD5:aa:bb"] {
            assert!(matches!(given(line), Err(SshError::BadKey { .. })), "{line:?}");
        }
    }

    #[test]
    fn known_hosts_that_says_nothing_accepts_nothing_and_a_revoked_key_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let look = || Trust::KnownHosts(vec![dir.path().join("nowhere"), path.clone()]).expected("m", "h", 22);
        assert!(look().expect("nothing is there").is_empty());
        std::fs::write(&path, format!("h {KEY}\nh ssh-rsa AAAA\n")).unwrap();
        let expected = look().expect("one is known");
        assert!(expected.accepts(&key(KEY)) && !expected.accepts(&key(OTHER)));
        assert_eq!(expected.algorithms(), [Algorithm::Ed25519]);
        std::fs::write(&path, format!("h {KEY}\n@revoked * {KEY}\n")).unwrap();
        assert!(!look().expect("one is known").accepts(&key(KEY)));
        std::fs::write(&path, "h ssh-rsa AAAA\n").unwrap();
        assert!(matches!(look(), Err(SshError::OnlyOtherKinds { .. })));
        let system = dir.path().join("ssh_known_hosts");
        std::fs::write(&system, format!("h {KEY}\n")).unwrap();
        let both = Trust::KnownHosts(vec![path.clone(), system]).expected("m", "h", 22).expect("the second file has one");
        assert!(both.accepts(&key(KEY)));
    }
}
