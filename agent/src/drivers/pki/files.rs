//! A node's keys and certificates on disk.
//!
//! `node.key` comes first and stays: joining again with the same key gives the same certificate. Each file is replaced
//! whole, so that a crash leaves the old or the new one. What is damaged or missing is an error that names the file;
//! nothing here ever makes up for a lost file by starting afresh.

use super::{PkiError, new_key, pem};
use crate::{
    drivers::process,
    model::{
        authority::{Authorities, Certificate},
        codec,
        codec::DecodeError,
        io::Keyring,
    },
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.crt";
const CA: &str = "ca.crt";
/// How `ca.crt` begins, before the step of the last change of CAs that it stands for.
const VERSION: &str = "# version ";
const KEYRING: &str = "keyring";
const CA_KEY: &str = "ca.key";
const TOKEN: &str = "token";
/// The largest of these files has well under a KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk said no.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read`, `write` or `delete`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It is not there although this node has an identity.
    #[error("{} is missing, though this node has an identity", .0.display())]
    Missing(PathBuf),
    /// It makes no sense.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The files in one data dir. Whoever has it holds the dir's lock.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    folder: PathBuf,
}

impl KeyFiles {
    /// The files of this data dir.
    pub fn new(folder: &Path) -> KeyFiles {
        KeyFiles { folder: folder.to_owned() }
    }

    /// The node's key (PKCS#8 DER), made and saved if there is none: for a node without an identity.
    ///
    /// # Errors
    /// It is damaged, or the disk's.
    pub fn key_or_new(&self) -> Result<Vec<u8>, FilesError> {
        match self.read(KEY)? {
            Some(text) => self.key_in(&text),
            None => {
                let key = new_key();
                self.write(KEY, pem::key_to_pem(&key).as_bytes(), 0o600)?;
                Ok(key)
            }
        }
    }

    /// The key (PKCS#8 DER) of a node that has an identity.
    ///
    /// # Errors
    /// It is missing or damaged, or the disk's.
    pub fn key(&self) -> Result<Vec<u8>, FilesError> {
        self.key_in(&self.required(KEY)?)
    }

    /// The node's certificate and the CA's (both DER).
    ///
    /// # Errors
    /// One is missing or damaged, or the disk's.
    pub fn certificates(&self) -> Result<(Vec<u8>, Vec<u8>), FilesError> {
        Ok((self.certificate_in(CERTIFICATE)?, self.certificate_in(CA)?))
    }

    /// All certificates of the node (DER), the newest last, and whom it believes.
    ///
    /// # Errors
    /// One is missing or damaged, or the disk's.
    pub fn held(&self) -> Result<(Vec<Vec<u8>>, Authorities), FilesError> {
        let (_, _) = self.certificates()?;
        let text = self.required(CA)?;
        let all =
            |name: &'static str, text: &[u8]| pem::certificates_from_pem(text, "certificate").map_err(|error| self.damaged(name, error));
        let trusted = all(CA, &text)?.into_iter().map(Certificate).collect();
        let version = text.strip_prefix(VERSION.as_bytes()).and_then(|rest| rest.split(|byte| *byte == b'\n').next());
        let version = version.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
        Ok((all(CERTIFICATE, &self.required(CERTIFICATE)?)?, Authorities { trusted, version, ..Authorities::default() }))
    }

    /// Saves whom the node believes: one file, so that a crash leaves the old or the new.
    ///
    /// # Errors
    /// The disk's.
    pub fn save_authorities(&self, known: &Authorities) -> Result<(), FilesError> {
        let certificates: String = known.trusted.iter().map(|ca| pem::certificate_to_pem(&ca.0)).collect();
        self.write(CA, format!("{VERSION}{}\n{certificates}", known.version).as_bytes(), 0o644)
    }

    /// Saves the node's certificate and the CA's (both DER).
    ///
    /// # Errors
    /// The disk's.
    pub fn save_certificates(&self, certificate: &[u8], ca: &[u8]) -> Result<(), FilesError> {
        self.write(CA, pem::certificate_to_pem(ca).as_bytes(), 0o644)?;
        self.save_own(&[certificate.to_vec()])
    }

    /// Saves renewed certificates (DER), the newest last.
    ///
    /// # Errors
    /// The disk's.
    pub fn save_own(&self, certificates: &[Vec<u8>]) -> Result<(), FilesError> {
        let text: String = certificates.iter().map(|certificate| pem::certificate_to_pem(certificate)).collect();
        self.write(CERTIFICATE, text.as_bytes(), 0o644)
    }

    /// The keyring, if this node holds one.
    ///
    /// # Errors
    /// It is damaged, or the disk's.
    pub fn keyring(&self) -> Result<Option<Keyring>, FilesError> {
        let Some(bytes) = self.read(KEYRING)? else { return Ok(None) };
        codec::decode(&bytes).map(Some).map_err(|error: DecodeError| self.damaged(KEYRING, error))
    }

    /// What to say when a node with a seat finds no keyring.
    pub fn keyring_missing(&self) -> FilesError {
        FilesError::Missing(self.folder.join(KEYRING))
    }

    /// Saves the keyring, or (None) deletes it. Durable on return.
    ///
    /// # Errors
    /// The disk's.
    pub fn save_keyring(&self, keyring: Option<&Keyring>) -> Result<(), FilesError> {
        match keyring {
            Some(keyring) => self.write(KEYRING, &codec::encode(keyring), 0o600),
            None => {
                let path = self.folder.join(KEYRING);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path)(error)),
                    _ => self.sync().map_err(failed("delete", path)),
                }
            }
        }
    }

    fn key_in(&self, text: &[u8]) -> Result<Vec<u8>, FilesError> {
        let key = pem::key_from_pem(text, "key").and_then(|key| super::public_key(&key).map(|_| key));
        key.map_err(|error| self.damaged(KEY, error))
    }

    fn certificate_in(&self, name: &'static str) -> Result<Vec<u8>, FilesError> {
        let damaged = |error: PkiError| self.damaged(name, error);
        let certificate = pem::certificate_from_pem(&self.required(name)?, "certificate").map_err(damaged)?;
        match name {
            CA => super::ca_cluster(&certificate).map(drop),
            _ => super::Identity::read(&certificate).map(drop),
        }
        .map_err(damaged)?;
        Ok(certificate)
    }

    fn required(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        self.read(name)?.ok_or_else(|| FilesError::Missing(self.folder.join(name)))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FilesError> {
        use io::Read;
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), FilesError> {
        let path = self.folder.join(name);
        process::replace(&path, bytes, mode).and_then(|()| self.sync()).map_err(failed("write", path))
    }

    /// A new name lasts only when the folder that holds it is synced (fsync(2)).
    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.folder)?.sync_all()
    }

    fn damaged(&self, name: &str, error: impl std::error::Error + Send + Sync + 'static) -> FilesError {
        FilesError::Damaged { path: self.folder.join(name), source: Box::new(error) }
    }
}

/// The files of a baked image.
pub struct ImageFiles {
    files: KeyFiles,
}

impl ImageFiles {
    pub fn new(folder: &Path) -> ImageFiles {
        ImageFiles { files: KeyFiles::new(folder) }
    }

    /// The CA's key (PKCS#8 DER) and certificate (DER), and the token as text.
    ///
    /// # Errors
    /// One is missing or damaged, or the disk's.
    pub fn read(&self) -> Result<(Vec<u8>, Vec<u8>, String), FilesError> {
        let key = pem::key_from_pem(&self.files.required(CA_KEY)?, "CA key").map_err(|error| self.files.damaged(CA_KEY, error))?;
        let certificate = self.files.certificate_in(CA)?;
        let token = String::from_utf8(self.files.required(TOKEN)?).map_err(|error| self.files.damaged(TOKEN, error))?;
        Ok((key, certificate, token.trim().to_owned()))
    }

    /// # Errors
    /// The disk's.
    pub fn write(&self, key: &[u8], certificate: &[u8], token: &str) -> Result<(), FilesError> {
        self.files.write(CA_KEY, pem::key_to_pem(key).as_bytes(), 0o600)?;
        self.files.write(CA, pem::certificate_to_pem(certificate).as_bytes(), 0o644)?;
        self.files.write(TOKEN, format!("{token}\n").as_bytes(), 0o600)
    }
}

fn failed(operation: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> FilesError {
    move |source| FilesError::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        drivers::pki::{Authority, public_key},
        model::ids::{ClusterId, NodeId},
    };
    use std::os::unix::fs::PermissionsExt;

    fn ring() -> Keyring {
        Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 4, next: None }
    }

    #[test]
    fn what_is_saved_is_loaded_and_secrets_are_the_owners() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = KeyFiles::new(folder.path());
        let key = files.key_or_new().expect("made");
        assert_eq!(files.key_or_new().expect("there"), key);
        assert_eq!(files.key().expect("there"), key);
        let authority = Authority::create(ClusterId(1), 0);
        let certificate = authority.sign_node(NodeId(1), &public_key(&key).expect("good"), 0).expect("32 bytes");
        files.save_certificates(&certificate, authority.certificate()).expect("the disk works");
        assert_eq!(files.certificates().expect("there"), (certificate, authority.certificate().to_vec()));
        assert_eq!(files.keyring().expect("none is no error"), None);
        files.save_keyring(Some(&ring())).expect("the disk works");
        assert_eq!(files.keyring().expect("there"), Some(ring()));
        for secret in [KEY, KEYRING] {
            let mode = fs::metadata(folder.path().join(secret)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        files.save_keyring(None).expect("the disk works");
        files.save_keyring(None).expect("twice is fine");
        assert_eq!(files.keyring().expect("none is no error"), None);
    }

    #[test]
    fn missing_and_damaged_files_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = KeyFiles::new(folder.path());
        assert!(files.key().expect_err("there is none").to_string().ends_with("node.key is missing, though this node has an identity"));
        assert!(files.certificates().is_err());
        for (name, load) in [
            (KEY, (|files| files.key_or_new().map(drop)) as fn(&KeyFiles) -> Result<(), FilesError>),
            (CERTIFICATE, |files| files.certificates().map(drop)),
            (KEYRING, |files| files.keyring().map(drop)),
        ] {
            for bytes in [b"".as_slice(), b"rubbish"] {
                fs::write(folder.path().join(name), bytes).expect("the disk works");
                let error = load(&files).expect_err("damaged").to_string();
                assert!(error.ends_with(&format!("{name} is damaged")), "{error}");
            }
        }
    }
}
