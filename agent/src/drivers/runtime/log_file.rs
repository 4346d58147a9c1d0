//! One task's log: `log`, which the program itself appends to, and `times`, which says when it had grown how far.
//!
//! No process of ours is between the program and its file, so nobody stamps its lines; what we can say is when we saw the
//! file that long. A line's time is that of the first look that saw its end, at most a fraction of a second late.
//! Nobody waits for the disk here: looks are taken on the thread that everything else runs on, and times may be lost.

use crate::{
    drivers::{process, syscall},
    model::limits,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Looks remembered; when there are more, every second of the older half goes.
const LOOKS_MAX: usize = 1024;
const LOOK_BYTES: usize = 16;
/// Files are stamped with the time of the last timer tick (kernel, CONFIG_HZ: 100 a second at the least), so behind the clock.
const FILE_CLOCK_TICK_MS: u64 = 10;

/// The file was this long at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub length: u64,
}

/// The two files of one folder.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub log: PathBuf,
    times: PathBuf,
}

impl LogFile {
    pub fn in_folder(folder: &Path) -> LogFile {
        LogFile { log: folder.join("log"), times: folder.join("times") }
    }

    /// Remembers how long the file is now, if it grew, and gives its oldest half back if it is too long.
    /// Answers whether it grew.
    ///
    /// # Errors
    /// The disk's.
    pub fn look(&self, now_ms: u64) -> io::Result<bool> {
        let length = self.length()?;
        let (count, last) = self.last_look()?;
        if last.map_or(0, |look| look.length) == length {
            return Ok(false);
        }
        if count >= LOOKS_MAX {
            let looks = self.looks()?;
            let (older, newer) = looks.split_at(looks.len() / 2);
            let kept: Vec<u8> = older.iter().skip(1).step_by(2).chain(newer).flat_map(|look| bytes(*look)).collect();
            process::replace_unsynced(&self.times, &kept, 0o600)?;
        }
        let mut times = OpenOptions::new().append(true).create(true).open(&self.times)?;
        times.write_all(&bytes(Look { at_ms: now_ms, length }))?;
        self.shorten()?;
        Ok(true)
    }

    /// For a file that grew while nobody looked: it had its length when it was last written to, or now if that was just so.
    ///
    /// # Errors
    /// The disk's.
    pub fn catch_up(&self, now_ms: u64) -> io::Result<()> {
        let about = match fs::metadata(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            about => about?,
        };
        let written = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let just = now_ms.saturating_sub(written) <= FILE_CLOCK_TICK_MS;
        self.look(if just { now_ms } else { written }).map(drop)
    }

    /// # Errors
    /// The disk's.
    pub fn length(&self) -> io::Result<u64> {
        match fs::metadata(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            about => Ok(about?.len()),
        }
    }

    /// Oldest first; empty if there are none.
    ///
    /// # Errors
    /// The disk's.
    pub fn looks(&self) -> io::Result<Vec<Look>> {
        let mut all = Vec::new();
        match File::open(&self.times) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?.take((LOOKS_MAX * LOOK_BYTES * 2) as u64).read_to_end(&mut all)?,
        };
        // A torn last look is none.
        Ok(all.chunks_exact(LOOK_BYTES).map(look_of).collect())
    }

    fn last_look(&self) -> io::Result<(usize, Option<Look>)> {
        let file = match File::open(&self.times) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, None)),
            file => file?,
        };
        let count = file.metadata()?.len() as usize / LOOK_BYTES;
        if count == 0 {
            return Ok((0, None));
        }
        let mut last = [0; LOOK_BYTES];
        file.read_exact_at(&mut last, ((count - 1) * LOOK_BYTES) as u64)?;
        Ok((count, Some(look_of(&last))))
    }

    /// The offset of the first byte that is still there.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(&self) -> io::Result<u64> {
        match File::open(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            file => begin(&file?),
        }
    }

    fn shorten(&self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.log)?;
        let length = file.metadata()?.len();
        if length - begin(&file)?.min(length) <= limits::TASK_LOG_BYTES_MAX {
            return Ok(());
        }
        let half = length - limits::TASK_LOG_BYTES_MAX / 2;
        let mut piece = vec![0; limits::TASK_LOG_LINE_BYTES_MAX];
        let read = file.read_at(&mut piece, half)?;
        // Lines longer than we show are cut anywhere.
        let cut = piece[..read].iter().position(|byte| *byte == b'\n').map_or(half, |line| half + line as u64 + 1);
        match syscall::punch(&file, cut) {
            Ok(()) => Ok(()),
            // No holes here: all of it goes, and what counts from its beginning with it.
            Err(error) if error.raw_os_error() == Some(syscall::EOPNOTSUPP) => {
                file.set_len(0)?;
                process::replace_unsynced(&self.times, &[], 0o600)
            }
            Err(error) => Err(error),
        }
    }
}

fn bytes(look: Look) -> [u8; LOOK_BYTES] {
    let mut bytes = [0; LOOK_BYTES];
    bytes[..8].copy_from_slice(&look.at_ms.to_le_bytes());
    bytes[8..].copy_from_slice(&look.length.to_le_bytes());
    bytes
}

fn look_of(bytes: &[u8]) -> Look {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    Look { at_ms: number(&bytes[..8]), length: number(&bytes[8..]) }
}

/// The hole ends at a block; what was punched of the next block is zeros.
fn begin(mut file: &File) -> io::Result<u64> {
    let Some(mut at) = syscall::data_from(file, 0)? else { return Ok(0) };
    if at == 0 {
        return Ok(0);
    }
    let mut block = vec![0; 4096];
    file.seek(SeekFrom::Start(at))?;
    let read = file.read(&mut block)?;
    at += block[..read].iter().take_while(|byte| **byte == 0).count() as u64;
    Ok(at)
}
