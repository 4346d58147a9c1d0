//! The folder of one local instance, and the tombstone that outlives it.
//!
//! ```text
//! instances/i-2/instance.json   whose it is; written first
//!               discod          its own copy of the program
//!               disco.toml      its configuration (0600: it holds the join token)
//!               data/           discod's data dir
//!               discod.log      what it prints, for all its starts
//!               pid             which process it is, if it runs (`ProcessRecord`)
//! instances/i-2.terminated      the operation that must not be launched again
//! instances/.i-2.new, .i-2.old  half made, half removed: nothing looks in there
//! ```
//!
//! A folder gets its name only when it is complete, and loses it before it is emptied.

use super::{ProviderError, file};
use crate::{
    drivers::{process, syscall},
    model::ids::{ClusterId, OperationId},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Tombstones kept; the oldest ordinals go first.
const TOMBSTONES_KEPT: usize = 64;
/// A log larger than this at a start keeps its newest half of it.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// One write of a program's copy.
const COPY_BYTES: usize = 16 * 1024;

/// `instance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFile {
    /// `OperationId` as text.
    pub operation: String,
    pub ordinal: u32,
    pub address: String,
    pub cluster: String,
}

impl InstanceFile {
    pub fn operation(&self) -> Option<OperationId> {
        self.operation.parse().ok()
    }
}

/// What a new folder holds.
pub struct Contents<'a> {
    pub about: InstanceFile,
    pub program: &'a Path,
    pub config: String,
}

/// All instances of a project: `.disco/instances`.
#[derive(Debug, Clone)]
pub struct Instances {
    path: PathBuf,
}

/// One instance's folder, locked: starts, stops and the end happen one after the other.
#[derive(Debug)]
pub struct Folder {
    pub id: String,
    path: PathBuf,
    pub about: InstanceFile,
    _lock: File,
}

/// `i-<ordinal>`.
pub fn id_of(ordinal: u32) -> String {
    format!("i-{ordinal}")
}

fn ordinal_of(id: &str) -> Option<u32> {
    let ordinal = id.strip_prefix("i-")?.parse().ok()?;
    (id_of(ordinal) == id).then_some(ordinal)
}

impl Instances {
    pub fn in_project(root: &Path) -> Instances {
        Instances { path: root.join("instances") }
    }

    /// Makes the folder of an instance, unless it is there; either way it is the one this operation launched.
    pub fn make(&self, contents: &Contents) -> Result<(), ProviderError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(file("create", &self.path))?;
        let _lock = lock(&self.path)?;
        let about = &contents.about;
        let id = id_of(about.ordinal);
        if let Some(operation) = self.tombstone(&id)? {
            // Ordinals are never reused, so whatever was launched as this one is over.
            return Err(ProviderError::Terminated { operation });
        }
        let path = self.path.join(&id);
        if let Some(found) = read_about(&path)? {
            return if found.operation == about.operation { Ok(()) } else { Err(ProviderError::Taken { id, operation: found.operation }) };
        }
        let unfinished = self.path.join(format!(".{id}.new"));
        remove_all(&unfinished)?;
        fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(file("create", &unfinished))?;
        let json = serde_json::to_vec_pretty(about).expect("strings and a number are JSON");
        for (name, bytes, mode) in [("instance.json", json.as_slice(), 0o644), ("disco.toml", contents.config.as_bytes(), 0o600)] {
            let path = unfinished.join(name);
            process::replace(&path, bytes, mode).map_err(file("write", &path))?;
        }
        let program = unfinished.join("discod");
        copy_program(contents.program, &program).map_err(file("copy", contents.program))?;
        let data = unfinished.join("data");
        fs::DirBuilder::new().mode(0o700).create(&data).map_err(file("create", &data))?;
        fs::rename(&unfinished, &path).map_err(file("rename to", &path))?;
        sync(&self.path)
    }

    /// Everything there is, by ordinal, without a lock.
    pub fn list(&self) -> Result<Vec<(String, InstanceFile)>, ProviderError> {
        let mut found = Vec::new();
        for ordinal in self.ordinals("")? {
            let id = id_of(ordinal);
            if let Some(about) = read_about(&self.path.join(&id))? {
                found.push((id, about));
            }
        }
        Ok(found)
    }

    /// The ordinals of all entries named `i-<ordinal><suffix>`, ascending.
    fn ordinals(&self, suffix: &str) -> Result<Vec<u32>, ProviderError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(file("read", &self.path)(e)),
        };
        let mut ordinals = Vec::new();
        for entry in entries {
            let name = entry.map_err(file("read", &self.path))?.file_name();
            ordinals.extend(name.to_str().and_then(|name| ordinal_of(name.strip_suffix(suffix)?)));
        }
        ordinals.sort_unstable();
        Ok(ordinals)
    }

    pub fn path_of(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Waits for the folder's lock; `None` if there is no such instance (any more).
    pub fn open(&self, id: &str) -> Result<Option<Folder>, ProviderError> {
        if ordinal_of(id).is_none() {
            return Err(ProviderError::BadName { id: id.into() });
        }
        let path = self.path.join(id);
        loop {
            let held = match lock(&path) {
                Ok(held) => held,
                Err(ProviderError::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            };
            let held_inode = held.metadata().map_err(file("look at", &path))?.ino();
            match fs::metadata(&path) {
                // It was removed (and perhaps another made) while we waited.
                Ok(now) if now.ino() != held_inode => {}
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(file("look at", &path)(e)),
                Ok(_) => {
                    let about = read_about(&path)?
                        .ok_or_else(|| ProviderError::Damaged { path: path.clone(), what: "it has no instance.json".into() })?;
                    return Ok(Some(Folder { id: id.into(), path, about, _lock: held }));
                }
            }
        }
    }

    /// The operation that was terminated under this id, if one was.
    pub fn tombstone(&self, id: &str) -> Result<Option<String>, ProviderError> {
        let path = self.path.join(format!("{id}.terminated"));
        match fs::read_to_string(&path) {
            Ok(operation) => Ok(Some(operation.trim().to_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file("read", path)(e)),
        }
    }

    /// From now on its operation is not launched again.
    pub fn bury(&self, folder: &Folder) -> Result<(), ProviderError> {
        let path = self.path.join(format!("{}.terminated", folder.id));
        process::replace(&path, folder.about.operation.as_bytes(), 0o644).map_err(file("write", &path))?;
        sync(&self.path)?;
        let buried = self.ordinals(".terminated")?;
        for ordinal in buried.iter().take(buried.len().saturating_sub(TOMBSTONES_KEPT)) {
            let path = self.path.join(format!("{}.terminated", id_of(*ordinal)));
            fs::remove_file(&path).map_err(file("remove", &path))?;
        }
        Ok(())
    }

    /// Removes the folder of an instance that has a tombstone and no process.
    pub fn remove(&self, folder: &Folder) -> Result<(), ProviderError> {
        let old = self.path.join(format!(".{}.old", folder.id));
        remove_all(&old)?;
        fs::rename(&folder.path, &old).map_err(file("rename", &folder.path))?;
        sync(&self.path)?;
        remove_all(&old)
    }

    /// What a removal or a launch of this id that was cut short left behind.
    pub fn sweep(&self, id: &str) -> Result<(), ProviderError> {
        remove_all(&self.path.join(format!(".{id}.old")))?;
        remove_all(&self.path.join(format!(".{id}.new")))
    }
}

impl Folder {
    pub fn program(&self) -> PathBuf {
        self.path.join("discod")
    }

    pub fn config(&self) -> PathBuf {
        self.path.join("disco.toml")
    }

    /// The records of its tasks.
    pub fn tasks(&self) -> PathBuf {
        self.path.join("data/tasks")
    }

    pub fn pid(&self) -> PathBuf {
        self.path.join("pid")
    }

    /// The log, to append to; shortened first if it has grown too large.
    pub fn log(&self) -> Result<File, ProviderError> {
        let path = self.path.join("discod.log");
        let open = || OpenOptions::new().append(true).create(true).open(&path);
        let log = open().map_err(file("open", &path))?;
        if log.metadata().map_err(file("look at", &path))?.len() <= LOG_BYTES_MAX {
            return Ok(log);
        }
        newest_half(&path).and_then(|half| process::replace(&path, &half, 0o644)).and_then(|()| open()).map_err(file("shorten", &path))
    }
}

/// The last half of what a log may be, from the start of a line.
fn newest_half(path: &Path) -> io::Result<Vec<u8>> {
    let mut log = File::open(path)?;
    log.seek(SeekFrom::End(-((LOG_BYTES_MAX / 2) as i64)))?;
    let mut half = Vec::new();
    log.take(LOG_BYTES_MAX / 2).read_to_end(&mut half)?;
    let line = half.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    half.drain(..line);
    Ok(half)
}

/// `None`: no such folder.
fn read_about(folder: &Path) -> Result<Option<InstanceFile>, ProviderError> {
    let path = folder.join("instance.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| ProviderError::Damaged { path, what: e.to_string() }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file("read", path)(e)),
    }
}

fn lock(folder: &Path) -> Result<File, ProviderError> {
    let handle = File::open(folder).map_err(file("open", folder))?;
    syscall::lock(&handle).map_err(file("lock", folder))?;
    Ok(handle)
}

fn sync(folder: &Path) -> Result<(), ProviderError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(file("sync", folder))
}

fn remove_all(folder: &Path) -> Result<(), ProviderError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(file("remove", folder)(e)),
        _ => Ok(()),
    }
}

/// Whether this is the cluster's: two clusters may share a folder only by mistake.
pub fn is_of(about: &InstanceFile, cluster: ClusterId) -> bool {
    about.cluster == cluster.to_string()
}

/// Copies an executable in small writes.
///
/// The kernel caches what one write brought in one block, up to 2 MiB on ext4 since 6.16, and a process that touches a
/// byte of a block maps all of it: an idle daemon copied by `fs::copy` was 0.6 MB larger than one copied like this.
fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    let mut block = [0; COPY_BYTES];
    loop {
        match source.read(&mut block) {
            Ok(0) => break,
            Ok(length) => target.write_all(&block[..length])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    target.set_permissions(source.metadata()?.permissions())?;
    target.sync_all()
}
