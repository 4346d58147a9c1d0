//! What the disk knows of a task: `tasks/<number>/{task, log, times}`.
//!
//! `task` is written before the program runs, and again when it has ended, so that whoever reads it after a crash knows
//! everything that may run. A forgotten task's folder is moved whole to `tasks/forgotten/`, where the newest few logs stay.

use crate::{
    drivers::process::{self, ProcessRecord},
    model::{
        codec,
        ids::NodeId,
        limits,
        task::{Exit, TaskNumber, TaskOrder},
    },
};
use minicbor::{Decode, Encode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const FORGOTTEN: &str = "forgotten";
/// A record longer than this is none of ours.
const RECORD_BYTES_MAX: u64 = 4 * limits::SERVICE_SPEC_BYTES_MAX as u64;

/// The file `task`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskFile {
    /// Whose folder this is: a copied data dir must not end another node's tasks.
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub order: TaskOrder,
    #[n(2)]
    pub restarts: u32,
    #[n(3)]
    pub pid: u32,
    /// Clock ticks after boot.
    #[n(4)]
    pub started: u64,
    #[n(5)]
    pub boot: String,
    /// Declared port to the node's.
    #[n(6)]
    pub ports: BTreeMap<u16, u16>,
    /// The cgroup it is alone in, if it has one.
    #[n(7)]
    pub cgroup: Option<String>,
    /// How it ended, once it has and nothing of it is left.
    #[n(8)]
    pub exit: Option<Exit>,
}

impl TaskFile {
    pub fn number(&self) -> TaskNumber {
        self.order.number
    }

    pub fn process(&self) -> ProcessRecord {
        ProcessRecord { pid: self.pid, started: self.started, boot: self.boot.clone() }
    }

    /// `service.number`.
    pub fn id(&self) -> String {
        id_of(&self.order)
    }
}

/// `service.number`, as people know a task.
pub fn id_of(order: &TaskOrder) -> String {
    format!("{}.{}", order.service, order.number.0)
}

/// A task's log on disk, remembered or forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLog {
    pub number: TaskNumber,
    pub service: String,
    pub folder: PathBuf,
}

/// What [`Tasks::list`] finds.
#[derive(Debug, Default)]
pub struct Found {
    pub tasks: Vec<TaskFile>,
    /// What could not be read, and was set aside: a sentence each.
    pub odd: Vec<String>,
}

/// The folder `tasks`.
#[derive(Clone, Debug)]
pub struct Tasks {
    path: PathBuf,
    node: NodeId,
}

impl Tasks {
    /// # Errors
    /// The folder cannot be made.
    pub fn open(path: PathBuf, node: NodeId) -> io::Result<Tasks> {
        DirBuilder::new().recursive(true).mode(0o700).create(path.join(FORGOTTEN))?;
        Ok(Tasks { path, node })
    }

    pub fn folder(&self, number: TaskNumber) -> PathBuf {
        self.path.join(number.0.to_string())
    }

    /// Makes a task's folder if there is none, and opens its log to append to.
    ///
    /// # Errors
    /// The disk's.
    pub fn log_to_append(&self, number: TaskNumber) -> io::Result<File> {
        let folder = self.folder(number);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => OpenOptions::new().append(true).create(true).mode(0o600).open(folder.join("log")),
        }
    }

    /// Its bytes are on the disk when it returns. The folders' entries may not be yet: only a power cut loses them, and then
    /// the task is gone too. One wait for the disk instead of three is most of what a start takes.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, task: &TaskFile) -> io::Result<()> {
        process::replace(&self.folder(task.number()).join("task"), &codec::encode(task), 0o600)
    }

    /// Writes down how it ended, without waiting for the disk: should it be lost, the task has ended for unknown reasons.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_end(&self, task: &TaskFile) -> io::Result<()> {
        process::replace_unsynced(&self.folder(task.number()).join("task"), &codec::encode(task), 0o600)
    }

    /// # Errors
    /// The file is there and makes no sense, or cannot be read.
    pub fn read(&self, number: TaskNumber) -> io::Result<Option<TaskFile>> {
        read(&self.folder(number).join("task"))
    }

    /// All tasks on disk, in order. A folder whose record is torn or another node's is set aside.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for number in self.numbers(&self.path, |name| name.parse().ok())? {
            let number = TaskNumber(number);
            match self.read(number) {
                Ok(Some(task)) if task.number() != number => found.odd.push(self.set_aside(number, "is of another task")),
                Ok(Some(task)) if task.node != self.node => found.odd.push(self.set_aside(number, "is of another node")),
                Ok(Some(task)) => found.tasks.push(task),
                // Its start was cut short before anything ran.
                Ok(None) => {
                    let _ = fs::remove_dir_all(self.folder(number));
                }
                Err(error) => found.odd.push(self.set_aside(number, &format!("cannot be read: {error}"))),
            }
        }
        Ok(found)
    }

    fn set_aside(&self, number: TaskNumber, why: &str) -> String {
        let (from, to) = (self.folder(number), self.path.join(format!("{}.odd", number.0)));
        let _ = fs::remove_dir_all(&to);
        let moved = fs::rename(&from, &to)
            .map_or_else(|error| format!("stays, since moving it failed: {error}"), |()| format!("is now {}", to.display()));
        format!("the record of task {} {why}; its folder {moved}", number.0)
    }

    /// Deletes the record and keeps the log among the newest forgotten ones.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget(&self, number: TaskNumber) -> io::Result<()> {
        let from = self.folder(number);
        let Ok(Some(task)) = self.read(number) else {
            return match fs::remove_dir_all(&from) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let forgotten = self.path.join(FORGOTTEN);
        let to = forgotten.join(format!("{}.{}", number.0, task.order.service));
        // The rename is the moment of forgetting: from here on nobody takes it for a task.
        fs::rename(&from, &to)?;
        fs::remove_file(to.join("task"))?;
        let kept = self.numbers(&forgotten, |name| name.split('.').next()?.parse().ok())?;
        for old in kept.iter().take(kept.len().saturating_sub(limits::TASK_LOGS_KEPT)) {
            for log in self.logs(&BTreeSet::new())?.into_iter().filter(|log| log.number.0 == *old && log.folder.starts_with(&forgotten)) {
                fs::remove_dir_all(&log.folder)?;
            }
        }
        Ok(())
    }

    /// Every log there is besides those of `known`, oldest task first.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn logs(&self, known: &BTreeSet<TaskNumber>) -> io::Result<Vec<KeptLog>> {
        let mut logs = Vec::new();
        for number in self.numbers(&self.path, |name| name.parse().ok().filter(|number| !known.contains(&TaskNumber(*number))))? {
            if let Ok(Some(task)) = self.read(TaskNumber(number)) {
                logs.push(KeptLog { number: task.number(), service: task.order.service, folder: self.folder(TaskNumber(number)) });
            }
        }
        for entry in fs::read_dir(self.path.join(FORGOTTEN))? {
            let folder = entry?.path();
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some((number, service)) = name.split_once('.')
                && let Ok(number) = number.parse()
                && !known.contains(&TaskNumber(number))
            {
                logs.push(KeptLog { number: TaskNumber(number), service: service.to_owned(), folder });
            }
        }
        logs.sort_by_key(|log| log.number);
        Ok(logs)
    }

    fn numbers(&self, folder: &Path, number_of: impl Fn(&str) -> Option<u64>) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            numbers.extend(number_of(&entry?.file_name().to_string_lossy()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Every record in a folder `tasks` that can be read; none if there is no such folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn all_in(folder: &Path) -> io::Result<Vec<TaskFile>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut tasks = Vec::new();
    for entry in entries {
        tasks.extend(read(&entry?.path().join("task")).ok().flatten());
    }
    Ok(tasks)
}

fn read(path: &Path) -> io::Result<Option<TaskFile>> {
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        about => about?.len(),
    };
    if length > RECORD_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has {length} bytes")));
    }
    codec::decode(&fs::read(path)?).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))
}
