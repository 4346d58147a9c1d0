//! Reads tasks' logs back as lines, in time order over all tasks of a service on this node.
//!
//! It knows only what is on disk, so it works the same on a node without a copy of the cluster's state, and for tasks
//! that are forgotten but whose logs are kept. It holds one piece of each file at a time.

use super::{
    growth::Logs,
    log_file::{LogFile, Look},
    process::record::KeptLog,
};
use crate::{
    drivers::wall_clock::wall_ms,
    model::{limits::TASK_LOG_LINE_BYTES_MAX, task::TaskNumber},
};
use futures_lite::future;
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

const PIECE: usize = 8 * 1024;

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub service: String,
    /// `service.number` or the number alone; empty: all tasks.
    pub task: String,
    /// A line that has no end yet is held back until it has one.
    pub follow: bool,
    /// Milliseconds since 1970; 0: from the beginning.
    pub since_ms: u64,
    /// The newest lines of each task; 0: all.
    pub tail: u32,
}

/// One line of a task, without its line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at_ms: u64,
    /// `service.number`.
    pub task: String,
    pub text: Vec<u8>,
    /// Where it ends in the log: the same however often it is read.
    pub end: u64,
}

/// Goes through the logs.
pub struct Reader {
    logs: Arc<Logs>,
    wanted: Wanted,
    cursors: Vec<Cursor>,
    known: BTreeSet<TaskNumber>,
}

impl Reader {
    /// # Errors
    /// The disk's.
    pub fn open(logs: Arc<Logs>, wanted: Wanted) -> io::Result<Reader> {
        let mut reader = Reader { logs, wanted, cursors: Vec::new(), known: BTreeSet::new() };
        reader.find_new()?;
        Ok(reader)
    }

    /// Looks for tasks that came since, and lets go of those that are forgotten: an open file keeps its bytes on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn find_new(&mut self) -> io::Result<()> {
        self.cursors.retain(|cursor| !cursor.is_over());
        for kept in self.logs.tasks.logs(&self.known)? {
            self.known.insert(kept.number);
            let id = format!("{}.{}", kept.service, kept.number.0);
            let asked = self.wanted.task.is_empty() || self.wanted.task == id || self.wanted.task == kept.number.0.to_string();
            if kept.service == self.wanted.service && asked {
                // Forgotten between listing and opening: its lines are gone, or found when it is listed again.
                if let Ok(cursor) = Cursor::open(id, &kept, &self.wanted) {
                    self.cursors.push(cursor);
                }
            }
        }
        Ok(())
    }

    /// The earliest line not read yet; `None`: there is none now.
    ///
    /// # Errors
    /// The disk's.
    pub async fn next_line(&mut self) -> io::Result<Option<Line>> {
        let (since, follow) = (self.wanted.since_ms, self.wanted.follow);
        for cursor in &mut self.cursors {
            cursor.fill(since, follow).await?;
        }
        let heads = self.cursors.iter_mut().filter(|cursor| cursor.head.is_some());
        let earliest = heads.min_by_key(|cursor| cursor.head.as_ref().map(|line| line.at_ms));
        Ok(earliest.and_then(|cursor| cursor.head.take()))
    }
}

struct Cursor {
    id: String,
    source: LogFile,
    file: File,
    /// Of the first byte that is not in `piece`.
    offset: u64,
    piece: Vec<u8>,
    looks: Vec<Look>,
    head: Option<Line>,
}

impl Cursor {
    fn open(id: String, kept: &KeptLog, wanted: &Wanted) -> io::Result<Cursor> {
        let source = LogFile::in_folder(&kept.folder);
        // Lines that nobody has seen yet get the time of now.
        source.look(wall_ms())?;
        let file = File::open(&source.log)?;
        let (looks, begin) = (source.looks()?, source.begin()?);
        let mut offset = if wanted.tail == 0 { begin } else { tail(&file, begin, file.metadata()?.len(), wanted.tail)? };
        // Lines that had ended by then are too old, and need not be read. Only until the first look that is not: clocks are set back.
        if let Some(old) = looks.iter().take_while(|look| look.at_ms < wanted.since_ms).last() {
            // One byte more: a line feed right before it ends the line before.
            offset = offset.max(tail(&file, begin, old.length + 1, 1)?);
        }
        Ok(Cursor { id, looks, source, file, offset, piece: Vec::new(), head: None })
    }

    /// It was deleted, and read to its end. A last line without an end gets none any more.
    fn is_over(&self) -> bool {
        self.head.is_none() && self.file.metadata().is_ok_and(|about| about.nlink() == 0 && about.len() <= self.offset)
    }

    async fn fill(&mut self, since_ms: u64, follow: bool) -> io::Result<()> {
        while self.head.is_none() {
            let end = self.piece.iter().take(TASK_LOG_LINE_BYTES_MAX).position(|byte| *byte == b'\n');
            let (text, rest) = match end {
                Some(end) => (end, end + 1),
                None if self.piece.len() >= TASK_LOG_LINE_BYTES_MAX => (TASK_LOG_LINE_BYTES_MAX, TASK_LOG_LINE_BYTES_MAX),
                None if self.read_more()? => {
                    // Much may be skipped, on the thread that everything else runs on.
                    future::yield_now().await;
                    continue;
                }
                None if follow || self.piece.is_empty() => return Ok(()),
                None => (self.piece.len(), self.piece.len()),
            };
            let ends_at = self.offset - (self.piece.len() - rest) as u64;
            let at_ms = self.time_of(ends_at)?;
            if at_ms >= since_ms {
                self.head = Some(Line { at_ms, task: self.id.clone(), text: self.piece[..text].to_vec(), end: ends_at });
            }
            self.piece.drain(..rest);
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length < self.offset {
            // It was emptied where it could not be shortened.
            (self.offset, self.piece) = (0, Vec::new());
        }
        if self.offset < length && self.piece.is_empty() {
            // What was punched away while we were behind is not there to be read.
            self.offset = self.offset.max(self.source.begin().unwrap_or(0).min(length));
        }
        let before = self.piece.len();
        self.piece.resize(before + PIECE, 0);
        let read = self.file.read_at(&mut self.piece[before..], self.offset)?;
        self.piece.truncate(before + read);
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// When the log was first seen this long.
    fn time_of(&mut self, end: u64) -> io::Result<u64> {
        if self.looks.last().is_none_or(|look| look.length < end) {
            self.looks = self.source.looks()?;
        }
        let after = self.looks.partition_point(|look| look.length < end);
        Ok(self.looks.get(after).map_or_else(wall_ms, |look| look.at_ms))
    }
}

/// Where the newest `lines` lines of the first `length` bytes begin.
fn tail(file: &File, begin: u64, length: u64, lines: u32) -> io::Result<u64> {
    let (mut at, mut left) = (length, u64::from(lines));
    let mut piece = vec![0; PIECE];
    while at > begin {
        let from = at.saturating_sub(PIECE as u64).max(begin);
        let read = file.read_at(&mut piece[..(at - from) as usize], from)?;
        for index in (0..read).rev() {
            let offset = from + index as u64;
            // The very last line feed ends the newest line; it begins none.
            if piece[index] == b'\n' && offset + 1 < length {
                left -= 1;
                if left == 0 {
                    return Ok(offset + 1);
                }
            }
        }
        at = from;
    }
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Where it began to read, and the lines.
    fn read(folder: &Path, since_ms: u64, tail: u32) -> (u64, Vec<Line>) {
        let kept = KeptLog { number: TaskNumber(1), service: "web".into(), folder: folder.to_owned() };
        let wanted = Wanted { since_ms, tail, ..Wanted::default() };
        let mut cursor = Cursor::open("web.1".into(), &kept, &wanted).expect("the disk works");
        let begin = cursor.offset;
        let mut next = || {
            future::block_on(cursor.fill(since_ms, false)).expect("the disk works");
            cursor.head.take()
        };
        (begin, std::iter::from_fn(&mut next).collect())
    }

    #[test]
    fn lines_since_a_time_are_those_of_all_that_are_not_older_and_the_others_are_not_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = LogFile::in_folder(folder.path());
        let (long, many) = ("x".repeat(TASK_LOG_LINE_BYTES_MAX * 5 / 2), "a line\n".repeat(5_000));
        // A line that is not whole when it is seen, one longer than is shown, and a clock that was set back.
        let grown = [
            (10, "one\ntwo\n"),
            (20, "thr"),
            (30, "ee\nfour\n"),
            (40, &long),
            (50, "x\nfive\n"),
            (45, &many),
            (60, "six\n\nseven\n"),
            (70, "8"),
        ];
        let mut text = String::new();
        for (at_ms, more) in grown {
            text.push_str(more);
            fs::write(&log.log, &text).expect("the disk works");
            log.look(at_ms).expect("the disk works");
        }
        for tail in [0, 1, 3, 5_003, 5_005] {
            let (_, all) = read(folder.path(), 0, tail);
            for since_ms in (0..=75).step_by(5) {
                let newer: Vec<&Line> = all.iter().filter(|line| line.at_ms >= since_ms).collect();
                assert!(read(folder.path(), since_ms, tail).1.iter().eq(newer), "the newest {tail} since {since_ms}");
            }
        }
        assert_eq!(read(folder.path(), 0, 0).1[2].text, b"three");
        assert_eq!(read(folder.path(), 30, 0).0, 8, "from the line that was not whole");
        assert!(read(folder.path(), 70, 0).0 > 35_000, "what is too old is not read");
    }
}
