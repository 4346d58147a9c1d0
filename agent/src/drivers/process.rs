//! A process that is not our child, found again from a file.
//!
//! A pid alone names nobody for long: the kernel reuses it. With the time the process started and the boot
//! that time counts from, it is one process for ever.

use super::syscall::{self, ProcessHandle, SIGKILL, SIGTERM};
use std::{
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// What a `pid` file holds: `pid starttime boot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRecord {
    pub pid: u32,
    /// Clock ticks after boot.
    pub started: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// How [`ProcessRecord::end`] went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    WasGone,
    Asked,
    Killed,
}

impl ProcessRecord {
    /// A process that lives now; `None` if it does not.
    ///
    /// # Errors
    /// The kernel does not say which boot this is.
    pub fn of(pid: u32) -> io::Result<Option<ProcessRecord>> {
        let boot = boot()?;
        Ok(syscall::process_started(pid).map(|started| ProcessRecord { pid, started, boot }))
    }

    /// # Errors
    /// The file cannot be read. A missing or malformed one is `None`: no process is known by it.
    pub fn read(path: &Path) -> io::Result<Option<ProcessRecord>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces the file, whole.
    ///
    /// # Errors
    /// As writing and renaming.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, self.to_string().as_bytes(), 0o644)
    }

    /// Whether it is this very process. The number alone may have been somebody else's before it was ours.
    pub fn is_ours(&self) -> bool {
        self.pid == std::process::id() && ProcessRecord::of(self.pid).is_ok_and(|ours| ours.as_ref() == Some(self))
    }

    /// # Errors
    /// As pidfd_open(2).
    pub fn alive(&self) -> io::Result<bool> {
        Ok(self.hold()?.is_some())
    }

    /// The process itself, if it lives.
    ///
    /// # Errors
    /// As pidfd_open(2).
    pub fn hold(&self) -> io::Result<Option<ProcessHandle>> {
        if boot()? != self.boot { Ok(None) } else { ProcessHandle::open(self.pid, self.started) }
    }

    /// SIGTERM, `patience` for it to end, then SIGKILL. It is gone when this returns `Ok`.
    ///
    /// # Errors
    /// It may not be signalled, or stays even after SIGKILL.
    pub fn end(&self, patience: Duration) -> io::Result<Ended> {
        let Some(process) = self.hold()? else { return Ok(Ended::WasGone) };
        if !process.signal(SIGTERM)? || process.wait(patience)? {
            return Ok(Ended::Asked);
        }
        process.signal(SIGKILL)?;
        if process.wait(Duration::from_secs(5))? {
            Ok(Ended::Killed)
        } else {
            Err(io::Error::new(ErrorKind::TimedOut, format!("process {} stays even after SIGKILL", self.pid)))
        }
    }

    /// Only asks it to end.
    ///
    /// # Errors
    /// It may not be signalled.
    pub fn ask_to_end(&self) -> io::Result<()> {
        self.hold()?.map_or(Ok(()), |process| process.signal(SIGTERM).map(|_| ()))
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl fmt::Display for ProcessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.pid, self.started, self.boot)
    }
}

impl FromStr for ProcessRecord {
    type Err = ();
    fn from_str(text: &str) -> Result<ProcessRecord, ()> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or(());
        Ok(ProcessRecord { pid: word()?.parse().map_err(|_| ())?, started: word()?.parse().map_err(|_| ())?, boot: word()?.to_owned() })
    }
}

/// Writes a file beside `path` and renames it: a reader sees the old or the new one, also after a power cut.
///
/// # Errors
/// As writing, syncing and renaming.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (file, unfinished) = write_beside(path, bytes, mode)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// The same without waiting for the disk: a reader sees the old or the new one, but a power cut may leave neither. For what may
/// be lost, on a thread that others wait for.
///
/// # Errors
/// As writing and renaming.
pub fn replace_unsynced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (_, unfinished) = write_beside(path, bytes, mode)?;
    fs::rename(&unfinished, path)
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<(File, PathBuf)> {
    use std::os::unix::fs::OpenOptionsExt;
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(bytes)?;
    Ok((file, unfinished))
}
