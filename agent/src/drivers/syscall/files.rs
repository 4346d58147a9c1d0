//! Logs as files: giving old bytes back, finding where what is left begins, and hearing that one grew.

use super::check;
use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Gives the first `bytes` of a file back to the disk; they read as zeros, and nothing behind them moves.
///
/// # Errors
/// As fallocate(2): `EOPNOTSUPP` where the file system knows no holes.
pub fn punch(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: numbers only; the descriptor is open while `file` is borrowed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, length) }).map(|_| ())
}

/// Where the first data at or after `from` begins; `None` if there is none. Moves the file's position.
///
/// # Errors
/// As lseek(2).
pub fn data_from(file: &File, from: u64) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
    // SAFETY: numbers only; the descriptor is open while `file` is borrowed.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match u64::try_from(at) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match io::Error::last_os_error() {
            none if none.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// Hears of files that were written to (inotify(7)).
#[derive(Debug)]
pub struct Growth(File);

impl Growth {
    /// Non-blocking and close-on-exec.
    ///
    /// # Errors
    /// As inotify_init1(2).
    pub fn new() -> io::Result<Growth> {
        // SAFETY: takes a number; a descriptor it returns is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK))?) };
        Ok(Growth(fd.into()))
    }

    /// The number by which [`Growth::next`] names this file.
    ///
    /// # Errors
    /// As inotify_add_watch(2).
    pub fn watch(&self, path: &Path) -> io::Result<i32> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path ends with NUL and lives until the call returns.
        check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) })
    }

    /// A file that is gone already is no error.
    pub fn unwatch(&self, number: i32) {
        // SAFETY: numbers only.
        let _ = unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), number) };
    }

    /// Some of what was written to since the last call; a number may come twice.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn next(&self) -> io::Result<Vec<i32>> {
        let mut buffer = [0; 4096];
        let length = (&self.0).read(&mut buffer)?;
        let mut numbers = Vec::new();
        let mut rest = &buffer[..length];
        // struct inotify_event: watch, mask, cookie and the length of the name that follows, 4 bytes each.
        while let Some((head, tail)) = rest.split_first_chunk::<16>() {
            numbers.push(i32::from_ne_bytes([head[0], head[1], head[2], head[3]]));
            let name = u32::from_ne_bytes([head[12], head[13], head[14], head[15]]) as usize;
            rest = tail.get(name..).unwrap_or_default();
        }
        Ok(numbers)
    }
}

impl AsFd for Growth {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
