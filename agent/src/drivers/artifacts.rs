//! The programs a node keeps for machines that have none yet: its own, and those of other architectures in `D/artifacts`.
//!
//! A program is named by its SHA-256, so it does not matter who gives it. Whoever installs a node puts programs into the folder,
//! under their names only when they are whole and their digest is right; what runs is read from `/proc/self/exe`, which stays what it was when it is replaced on disk.

use crate::drivers::helpers;
use async_channel::Receiver;
use bytes::Bytes;
use ring::digest;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What is read at once, and so what a fetch holds in memory (twice: one chunk waits while the next is read).
const CHUNK_BYTES: usize = 32 * 1024;
const OWN: &str = "/proc/self/exe";

/// SHA-256 of a program, as 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Option<Digest> {
        let plain = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        plain.then(|| Digest(text.to_owned()))
    }

    /// Reads a file in small pieces.
    ///
    /// # Errors
    /// The file's.
    pub fn of_file(path: &Path) -> io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(Digest::of(context)),
                length => context.update(&chunk[..length]),
            }
        }
    }

    fn of(context: digest::Context) -> Digest {
        Digest(context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `D/artifacts`. Clones share what is known of the own program.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
    own: Arc<OnceLock<Digest>>,
}

/// A program on its way out.
pub struct Outgoing {
    pub length: u64,
    pub chunks: Receiver<io::Result<Bytes>>,
}

impl Artifacts {
    pub fn new(data_dir: &Path) -> Artifacts {
        Artifacts { folder: data_dir.join("artifacts"), own: Arc::new(OnceLock::new()) }
    }

    /// The digest of the program that runs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn own(&self) -> io::Result<Digest> {
        if let Some(own) = self.own.get() {
            return Ok(own.clone());
        }
        let own = Digest::of_file(Path::new(OWN))?;
        Ok(self.own.get_or_init(|| own).clone())
    }

    fn find(&self, wanted: &Digest) -> io::Result<Option<File>> {
        match File::open(self.folder.join(wanted.as_str())) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        if self.own()? == *wanted { File::open(OWN).map(Some) } else { Ok(None) }
    }

    /// Opens a program to be sent; `None` if it is not kept here. Reading goes on on a helper thread, a chunk ahead of
    /// whoever takes them, and ends when nobody does.
    ///
    /// # Errors
    /// The disk's.
    pub async fn send(&self, wanted: Digest) -> io::Result<Option<Outgoing>> {
        let artifacts = self.clone();
        let Some(file) = helpers::unblock(move || artifacts.find(&wanted)).await? else { return Ok(None) };
        let length = file.metadata()?.len();
        let (sender, chunks) = async_channel::bounded(1);
        drop(helpers::unblock(move || {
            let mut file = file;
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => {
                        chunk.truncate(read);
                        Ok(Bytes::from(chunk))
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let broken = read.is_err();
                if sender.send_blocking(read).is_err() || broken {
                    return;
                }
            }
        }));
        Ok(Some(Outgoing { length, chunks }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use std::fs;

    fn digest(bytes: &[u8]) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(bytes);
        Digest::of(context)
    }

    fn sent(artifacts: &Artifacts, wanted: &Digest) -> Option<Vec<u8>> {
        block_on(async {
            let outgoing = artifacts.send(wanted.clone()).await.expect("the disk works")?;
            let mut whole = Vec::new();
            while let Ok(chunk) = outgoing.chunks.recv().await {
                whole.extend(chunk.expect("the disk works"));
            }
            assert_eq!(outgoing.length, whole.len() as u64);
            Some(whole)
        })
    }

    #[test]
    fn what_is_kept_is_sent_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let artifacts = Artifacts::new(folder.path());
        let program: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let name = digest(&program);
        assert_eq!(sent(&artifacts, &name), None);
        fs::create_dir(folder.path().join("artifacts")).expect("the folder is ours");
        fs::write(folder.path().join("artifacts").join(name.as_str()), &program).expect("the folder is ours");
        assert_eq!(sent(&artifacts, &name), Some(program));
    }

    #[test]
    fn the_own_program_needs_no_copy() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let artifacts = Artifacts::new(folder.path());
        let own = artifacts.own().expect("it runs");
        assert_eq!(sent(&artifacts, &own).map(|whole| digest(&whole)), Some(own));
        assert!(!folder.path().join("artifacts").exists());
    }

    #[test]
    fn only_64_lower_case_digits_are_a_digest() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::parse(&good).map(|d| d.as_str().to_owned()), Some(good.clone()));
        for bad in [&good[1..], &good.to_uppercase(), "../../../etc/passwd", "", &format!("{good}0")] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
