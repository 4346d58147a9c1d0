//! What bootstrap has decided and done, one JSON object a line, each on disk before the step it announces is taken.
//!
//! `disco` may be killed between any two instructions. What must not be made twice (the cluster's id) is therefore
//! written here first; whoever runs next reads it and goes on. A last line without its end was never promised to
//! anybody: it is cut off, with a warning. Any other damage is an error, for guessing would make a second cluster.

use agent::model::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// A journal is read whole; a bigger one is not ours.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Past this many bytes the next bootstrap keeps only what is needed to go on.
const BYTES_KEPT: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot read the journal {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the journal {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: line {line} is not a record of this program: {why}", path.display())]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("{} has more than {BYTES_MAX} bytes", path.display())]
    TooBig { path: PathBuf },
    #[error("the journal {} ends in half a line that cannot be taken back", path.display())]
    Torn { path: PathBuf },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum What {
    /// The first line: which cluster this folder is for. Never changes.
    Cluster { id: String, name: String, provider: String },
    /// A step is about to be taken.
    Begin { step: String },
    /// It was taken; `result` is what it gave, if anything.
    Done { step: String, result: String },
    /// It failed; running again takes it again.
    Failed { step: String, why: String },
}

pub struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
    /// What was wrong with the end of the file, for the person.
    warning: Option<String>,
    /// A line was cut off and could not be taken back: what is written behind it would be damage.
    torn: bool,
}

impl Journal {
    /// Opens the journal for more records; makes it if there is none.
    ///
    /// # Errors
    /// Unreadable, too big, or damaged anywhere but in an unfinished last line.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let read = |source| JournalError::Read { path: path.to_owned(), source };
        let fresh = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(read)?;
        if fresh {
            sync_folder(path).map_err(|source| JournalError::Write { path: path.to_owned(), source })?;
        }
        if file.metadata().map_err(read)?.len() > BYTES_MAX {
            return Err(JournalError::TooBig { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let mut warning = None;
        if whole < bytes.len() {
            warning = Some(format!("{}: the last line was not finished and is dropped", path.display()));
            file.set_len(whole as u64)
                .and_then(|()| file.seek(io::SeekFrom::End(0)))
                .and_then(|_| file.sync_all())
                .map_err(|source| JournalError::Write { path: path.to_owned(), source })?;
        }
        let damaged = |line, why: String| JournalError::Damaged { path: path.to_owned(), line, why };
        let mut records = Vec::new();
        for (i, line) in bytes[..whole].split(|b| *b == b'\n').filter(|l| !l.is_empty()).enumerate() {
            records.push(serde_json::from_slice(line).map_err(|e| damaged(i + 1, e.to_string()))?);
        }
        let mut journal = Journal { path: path.to_owned(), file, records, warning, torn: false };
        if whole as u64 > BYTES_KEPT {
            journal.shorten()?;
        }
        Ok(journal)
    }

    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Which cluster this folder is for, once that was decided.
    pub fn cluster(&self) -> Option<(ClusterId, &str, &str)> {
        self.records.iter().find_map(|r| match &r.what {
            What::Cluster { id, name, provider } => Some((id.parse().ok()?, name.as_str(), provider.as_str())),
            _ => None,
        })
    }

    /// Steps that were begun and neither done nor failed: whoever took them was interrupted.
    pub fn interrupted(&self) -> Vec<&str> {
        let mut open: Vec<&str> = Vec::new();
        for record in &self.records {
            match &record.what {
                What::Begin { step } if !open.contains(&step.as_str()) => open.push(step),
                What::Done { step, .. } | What::Failed { step, .. } => open.retain(|s| s != step),
                _ => {}
            }
        }
        open
    }

    /// It was begun, and is not done, for whatever reason.
    pub fn is_unfinished(&self, step: &str) -> bool {
        let last = self.records.iter().rev().find(|record| record.what.subject() == step);
        last.is_some_and(|record| !matches!(record.what, What::Done { .. }))
    }

    /// Writes a record; when this returns it is on disk.
    ///
    /// # Errors
    /// The write or the sync failed: the step must not be taken. Nothing of the record is left.
    pub fn write(&mut self, at_ms: u64, what: What) -> Result<(), JournalError> {
        if self.torn {
            return Err(JournalError::Torn { path: self.path.clone() });
        }
        let record = Record { at_ms, what };
        let mut line = serde_json::to_vec(&record).expect("strings and numbers are always JSON");
        line.push(b'\n');
        self.append(&line).map_err(|source| JournalError::Write { path: self.path.clone(), source })?;
        self.records.push(record);
        Ok(())
    }

    /// All of it, or nothing: half a line on a full disk would make the next one damage.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            self.torn = self.file.set_len(before).is_err();
        }
        written
    }

    /// Keeps the cluster's line and the last record of each step.
    fn shorten(&mut self) -> Result<(), JournalError> {
        let mut kept: Vec<Record> = Vec::new();
        for record in self.records.iter().rev() {
            if !kept.iter().any(|k| k.what.subject() == record.what.subject()) {
                kept.push(record.clone());
            }
        }
        kept.reverse();
        let first = kept.iter().position(|r| matches!(r.what, What::Cluster { .. }));
        if let Some(first) = first {
            kept[..=first].rotate_right(1);
        }
        let mut bytes = Vec::new();
        for record in &kept {
            serde_json::to_writer(&mut bytes, record).expect("strings and numbers are always JSON");
            bytes.push(b'\n');
        }
        let write = |source| JournalError::Write { path: self.path.clone(), source };
        crate::context::replace_file(&self.path, &bytes, 0o600).map_err(write)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(write)?;
        self.records = kept;
        Ok(())
    }
}

impl What {
    fn subject(&self) -> &str {
        match self {
            What::Cluster { .. } => "",
            What::Begin { step } | What::Done { step, .. } | What::Failed { step, .. } => step,
        }
    }
}

/// A new file's name is on disk only when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> What {
        What::Cluster { id: "00000000000000ff".into(), name: "c".into(), provider: "local".into() }
    }
    /// What a step gave the last time it was done.
    fn result_of<'a>(journal: &'a Journal, wanted: &str) -> Option<&'a str> {
        journal.records.iter().rev().find_map(|r| match &r.what {
            What::Done { step, result } if step == wanted => Some(result.as_str()),
            _ => None,
        })
    }
    fn begin(step: &str) -> What {
        What::Begin { step: step.into() }
    }
    fn done(step: &str) -> What {
        What::Done { step: step.into(), result: "r".into() }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        for what in [cluster(), begin("start_instance"), done("start_instance"), begin("scale")] {
            journal.write(7, what).unwrap();
        }
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.cluster(), Some((ClusterId(255), "c", "local")));
        assert_eq!(result_of(&again, "start_instance"), Some("r"));
        assert_eq!(again.interrupted(), ["scale"]);
        assert!(again.is_unfinished("scale") && !again.is_unfinished("start_instance") && !again.is_unfinished("join"));
        assert_eq!(again.warning(), None);
    }

    #[test]
    fn a_write_cut_anywhere_leaves_the_records_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.write(1, cluster()).unwrap();
        let before = fs::metadata(&path).unwrap().len() as usize;
        journal.write(2, begin("scale")).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in before..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut again = Journal::open(&path).unwrap();
            assert_eq!(again.records.len(), 1, "cut at {cut}");
            assert_eq!(again.warning().is_some(), cut > before, "cut at {cut}");
            again.write(3, done("scale")).unwrap();
            assert_eq!(result_of(&Journal::open(&path).unwrap(), "scale"), Some("r"), "cut at {cut}");
        }
    }

    #[test]
    fn nothing_is_written_behind_half_a_line() {
        let full = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&full).unwrap();
        let mut journal = Journal { path: full, file, records: Vec::new(), warning: None, torn: false };
        assert!(matches!(journal.write(1, begin("scale")), Err(JournalError::Write { .. })));
        // What is no file cannot be cut back either.
        assert!(matches!(journal.write(2, begin("scale")), Err(JournalError::Torn { .. })));
        assert!(journal.records.is_empty());
    }

    #[test]
    fn damage_before_the_end_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        fs::write(&path, "{\"at_ms\":1,\"record\":\"begin\",\"step\":\"x\"}\nnonsense\n{}\n").unwrap();
        let error = Journal::open(&path).err().expect("line 2 is no record").to_string();
        assert!(error.contains("line 2 is not a record"), "{error}");
    }

    #[test]
    fn a_long_journal_is_shortened_to_what_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut line = String::new();
        line += "{\"at_ms\":1,\"record\":\"cluster\",\"id\":\"00000000000000ff\",\"name\":\"c\",\"provider\":\"local\"}\n";
        while (line.len() as u64) < BYTES_KEPT {
            line += "{\"at_ms\":1,\"record\":\"begin\",\"step\":\"scale\"}\n{\"at_ms\":1,\"record\":\"done\",\"step\":\"scale\",\"result\":\"3\"}\n";
        }
        fs::write(&path, &line).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.write(2, begin("join")).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 1024);
        let again = Journal::open(&path).unwrap();
        assert_eq!(
            (result_of(&again, "scale"), again.cluster().map(|c| c.0), again.interrupted()),
            (Some("3"), Some(ClusterId(255)), vec!["join"])
        );
    }
}
