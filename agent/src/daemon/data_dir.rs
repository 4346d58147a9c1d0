//! The folder a node lives in: who it is, its keys, its store. One process at a time.
//!
//! `identity.toml` is written last of all when a node comes to be: where it is, everything else must be, and a node
//! without it is still on its way and continues there.

use crate::{
    drivers::{process, syscall},
    model::{
        codec,
        ids::{ClusterId, NodeId},
        query::Way,
        task::Orders,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot {operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("another discod (process {pid}) works in the data dir {}", path.display())]
    InUse { path: PathBuf, pid: String },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
}

/// Who this node is; in `identity.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub name: String,
    /// It makes a cluster of its own and the cluster's first state is not in the store yet.
    pub originating: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    node: String,
    cluster: String,
    cluster_name: String,
    name: String,
    #[serde(default)]
    originating: bool,
}

/// The folder, ours alone while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the folder (mode 0700) if there is none and locks it.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be made.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))?;
        let path = path.canonicalize().map_err(failed("find", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        if !syscall::try_lock(&lock).map_err(failed("lock", &lock_path))? {
            let mut pid = String::new();
            // Only words for a person: without the pid the sentence is still true.
            let _ = (&lock).take(32).read_to_string(&mut pid);
            return Err(DataDirError::InUse { path, pid: pid.trim().to_owned() });
        }
        let mut data_dir = DataDir { path, lock };
        data_dir.sign()?;
        Ok(data_dir)
    }

    /// Writes this process's pid into the lock, for those it keeps out. A copy of the process that goes on signs again.
    ///
    /// # Errors
    /// The disk's.
    pub fn sign(&mut self) -> Result<(), DataDirError> {
        let pid = format!("{}\n", std::process::id());
        let lock = &mut self.lock;
        let written = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0))).and_then(|_| lock.write_all(pid.as_bytes()));
        written.map_err(failed("write", &self.file("lock")))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// # Errors
    /// The file is there and cannot be read or makes no sense.
    pub fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        let path = self.file("identity.toml");
        let Some(text) = read(&path)? else { return Ok(None) };
        let damaged = |what: String| DataDirError::Damaged { path: path.clone(), what };
        let file: IdentityFile = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        Ok(Some(Identity {
            node: file.node.parse().map_err(|bad| damaged(format!("node: {bad}")))?,
            cluster: file.cluster.parse().map_err(|bad| damaged(format!("cluster: {bad}")))?,
            cluster_name: file.cluster_name,
            name: file.name,
            originating: file.originating,
        }))
    }

    /// # Errors
    /// The disk's.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        let file = IdentityFile {
            node: identity.node.to_string(),
            cluster: identity.cluster.to_string(),
            cluster_name: identity.cluster_name.clone(),
            name: identity.name.clone(),
            originating: identity.originating,
        };
        let text = toml::to_string(&file).expect("five plain fields are a TOML table");
        self.save("identity.toml", text.as_bytes())?;
        // A new name lasts only when the folder that holds it is synced (fsync(2)): the store must not outlast what says whose it is.
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }

    /// Managers as this node last heard of them; after a restart it finds its cluster by them.
    ///
    /// # Errors
    /// The file is there and cannot be read or makes no sense.
    pub fn managers(&self) -> Result<Vec<Way>, DataDirError> {
        let path = self.file("managers");
        let text = read(&path)?.unwrap_or_default();
        let way = |line: &str| match line.split_once(' ') {
            // Earlier builds wrote the address only.
            None => Ok(Way::unknown(line.to_owned())),
            Some((address, node)) => match node.parse() {
                Ok(node) => Ok(Way::to(node, address.to_owned())),
                Err(bad) => Err(DataDirError::Damaged { path: path.clone(), what: format!("{bad}") }),
            },
        };
        text.lines().map(way).collect()
    }

    /// # Errors
    /// The disk's.
    pub fn save_managers(&self, managers: &[Way]) -> Result<(), DataDirError> {
        let line = |way: &Way| match way.node {
            Some(node) => format!("{} {node}\n", way.address),
            None => format!("{}\n", way.address),
        };
        self.save("managers", managers.iter().map(line).collect::<String>().as_bytes())
    }

    /// What this node was last told to run.
    ///
    /// # Errors
    /// The file is there and cannot be read or makes no sense.
    pub fn assignment(&self) -> Result<Option<Orders>, DataDirError> {
        let path = self.file("assignment");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &path)(source)),
        };
        codec::decode(&bytes).map(Some).map_err(|error| DataDirError::Damaged { path, what: error.to_string() })
    }

    /// Keeps no old one if the new one cannot be written: none is better than what is not so any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn save_assignment(&self, orders: &Orders) -> Result<(), DataDirError> {
        self.save("assignment", &codec::encode(orders)).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(self.file("assignment"));
        })
    }

    /// A power cut may bring back the file before. The folder is not synced: the assignment is written on the daemon's one thread,
    /// where a second wait for the disk would double how long heartbeats stand still.
    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let path = self.file(name);
        process::replace(&path, bytes, 0o600).map_err(failed("write", &path))
    }
}

fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(DataDirError::Damaged { path: path.to_owned(), what: "it is not text".into() })
        }
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_do_not_share_a_data_dir() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = DataDir::open(folder.path()).expect("nobody else is there");
        let error = DataDir::open(folder.path()).expect_err("it is taken").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error} names the process");
        assert!(error.contains(&*first.path().to_string_lossy()), "{error} names the folder");
        drop(first);
        DataDir::open(folder.path()).expect("it is free again");
    }

    #[test]
    fn managers_are_remembered_as_themselves_and_a_list_of_an_earlier_build_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = DataDir::open(folder.path()).expect("nobody else is there");
        assert_eq!(dir.managers().expect("no file is no error"), []);
        let managers = [Way::to(NodeId(7), "127.0.0.1:5080".into()), Way::unknown("n2.example:5080".into())];
        dir.save_managers(&managers).expect("the disk works");
        assert_eq!(dir.managers().expect("it is whole"), managers);
        fs::write(dir.file("managers"), "127.0.0.1:5080\n127.0.0.2:5080\n").expect("the disk works");
        let unknown = |address: &str| Way::unknown(address.into());
        assert_eq!(dir.managers().expect("it is whole"), [unknown("127.0.0.1:5080"), unknown("127.0.0.2:5080")]);
        fs::write(dir.file("managers"), "127.0.0.1:5080 me\n").expect("the disk works");
        assert!(matches!(dir.managers(), Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_or_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = DataDir::open(folder.path()).expect("nobody else is there");
        assert_eq!(dir.identity().expect("no file is no error"), None);
        let identity =
            Identity { node: NodeId(1), cluster: ClusterId(2), cluster_name: "home".into(), name: "n\"1".into(), originating: true };
        dir.save_identity(&identity).expect("the disk works");
        assert_eq!(dir.identity().expect("it is whole"), Some(identity));
        fs::write(dir.file("identity.toml"), "node = \"12\"\n").expect("the disk works");
        assert!(matches!(dir.identity(), Err(DataDirError::Damaged { .. })));
    }
}
