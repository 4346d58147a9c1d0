//! The host key of a machine that does not exist yet: made here, put into it by its user-data, and exchanged on the first visit.
//!
//! So the first connection already knows whom it must meet. User-data can be read by whoever is on the machine, so the key
//! that went through it is replaced by one that was made there and never left.

use super::error::SshError;
use super::machine::{Machine, QUICK};
use agent::drivers::pki::random_bytes;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};

/// An ed25519 key pair in OpenSSH's format.
pub struct HostKey {
    pub private: String,
    pub public: String,
}

impl HostKey {
    /// # Panics
    /// The system has no randomness.
    pub fn new() -> HostKey {
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&random_bytes()));
        let key = PrivateKey::new(pair, "").expect("an ed25519 key is any 32 bytes");
        let private = key.to_openssh(LineEnding::LF).expect("a key that was just made is whole").to_string();
        let public = key.public_key().to_openssh().expect("a key that was just made is whole");
        HostKey { private, public }
    }

    /// What cloud-init reads: the machine shows this key and no other.
    pub fn user_data(&self) -> String {
        let indented: String = self.private.trim_end().lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "#cloud-config\nssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n{indented}  ed25519_public: {}\n",
            self.public
        )
    }
}

const MAKE: &str = "key=/etc/ssh/.disco_host_key; [ -f $key ] || ssh-keygen -q -t ed25519 -N '' -C '' -f $key; cat $key.pub";

const TAKE: &str = "key=/etc/ssh/.disco_host_key; [ ! -f $key ] || { mv -f $key.pub /etc/ssh/ssh_host_ed25519_key.pub && mv -f $key \
    /etc/ssh/ssh_host_ed25519_key; }; systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || \
    kill -HUP \"$(cat /run/sshd.pid)\"";

impl Machine {
    /// The public half of a new host key, which the machine holds ready. Asked again it is the same one.
    ///
    /// # Errors
    /// The machine's.
    pub async fn prepare_host_key(&self) -> Result<String, SshError> {
        Ok(self.as_root("make a host key", MAKE, Vec::new(), QUICK).await?.trim().to_owned())
    }

    /// From now on the machine shows the key it prepared.
    ///
    /// # Errors
    /// The machine's; then it may show either.
    pub async fn take_host_key(&self) -> Result<(), SshError> {
        self.as_root("exchange the host key", TAKE, Vec::new(), QUICK).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_in_user_data_is_the_one_that_is_expected() {
        let key = HostKey::new();
        let text = key.user_data();
        let block = text.split("ed25519_private: |\n").nth(1).expect("it is there").split("  ed25519_public: ").next().expect("as above");
        let private: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").expect("indented"))).collect();
        let read = PrivateKey::from_openssh(&private).expect("OpenSSH's format");
        assert_eq!(read.public_key().to_openssh().expect("whole"), key.public);
        assert!(text.starts_with("#cloud-config\n"));
    }
}
