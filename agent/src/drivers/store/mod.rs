//! What the node must remember to keep its promises: Raft's log, hard state and snapshot, in one redb file.
//!
//! Rules that the rest relies on:
//! - One `Batch` is one durable transaction: after kill -9 or a power cut it is there whole or not at all.
//! - Two-phase commit: with redb's cheaper commit, damage to the newest transaction would be "repaired" by going
//!   back one, which un-says a vote. This way damage is an error.
//! - A file that should be there and is not, or does not hold what was written, is an error: a node that starts
//!   over with an empty store votes twice. So opening first checks every page through `Overlay`, which keeps
//!   all writes in memory, and only then opens the file itself: whatever is wrong with it, it stays as it was.
//! - Any failed write is the end: nobody knows what reached the disk. The node stops (`Input::StoreFailed`).

mod error;
mod overlay;
mod thread;

pub use error::StoreError;
pub use thread::{StoreHandle, spawn};

use crate::model::{
    ids::MemberId,
    io::{Batch, LogRecord, Restored, Seat, SnapshotRecord},
    limits,
};
use overlay::Overlay;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError, WriteTransaction,
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot");

/// Keys of `META`.
const FORMAT: &str = "format";
const MEMBER: &str = "member";
const HARD_STATE: &str = "hard_state";
const SNAPSHOT_HEAD: &str = "snapshot";

/// What this build writes and reads.
const FORMAT_KNOWN: u8 = 1;
/// Page cache of redb. The log in use lives in memory anyway; the store is read once, at start.
const CACHE_BYTES: usize = 64 * 1024;
/// A snapshot is stored in pieces, so that neither writing nor reading holds it twice. A piece fits
/// in a 64 KiB page with redb's own header.
const PIECE_BYTES: usize = 60 * 1024;
/// redb's first bytes.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

// The byte after the magic ("god byte" in redb's design.md): bit 0 names the newest of two commits.
const STATE_AT: u64 = MAGIC.len() as u64;
/// It was not closed in order: redb walks all pages, checksums first, before it trusts any.
const STATE_UNCLEAN: u8 = 2;
/// The last commit had two phases: if it is damaged, the one before is no substitute.
const STATE_TWO_PHASE: u8 = 4;

/// Whether this node has been here before: its identity says so, not the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No identity yet: there must be no store, or one that was never written to.
    New,
    /// The node has an identity: its store must be there and whole.
    Existing,
}

/// The open file. Dropping it closes it cleanly.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Database,
    restored: Restored,
    broken: bool,
}

impl Store {
    /// Opens (or, for `Expect::New`, makes) the store at `path`, having checked all of it.
    ///
    /// # Errors
    /// Every variant of [`StoreError`] but `Batch`; the file is as it was before.
    pub fn open(path: &Path, expect: Expect) -> Result<Store, StoreError> {
        match (fs::symlink_metadata(path), expect) {
            (Ok(_), _) => {}
            (Err(e), Expect::New) if e.kind() == ErrorKind::NotFound => create(path)?,
            (Err(e), Expect::Existing) if e.kind() == ErrorKind::NotFound => return Err(StoreError::Missing { path: path.into() }),
            (Err(e), _) => return Err(StoreError::io("look at", path, e)),
        }
        let restored = verify(path)?;
        if expect == Expect::New && restored != Restored::default() {
            return Err(StoreError::Unexpected { path: path.into() });
        }
        let database = builder().open(path).map_err(|e| StoreError::engine("open", path, e))?;
        Ok(Store { path: path.into(), database, restored, broken: false })
    }

    /// What the file held when it was opened. A second call, or one after a write, answers nothing.
    pub fn load(&mut self) -> Restored {
        std::mem::take(&mut self.restored)
    }

    /// Makes `batch` durable, whole, before it returns.
    ///
    /// # Errors
    /// `Batch` when it would leave a hole in the log (nothing was written, and the caller has a bug); else the disk failed, and
    /// from then on every call does: what is on the disk is either the state before or after this batch.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Broken { path: self.path.clone() });
        }
        let result = transact(&self.database, &self.path, |transaction| apply(transaction, batch));
        self.broken = result.is_err();
        result
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes an empty store under another name and renames it: at `path` there is never half a store.
fn create(path: &Path) -> Result<(), StoreError> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", &unfinished, e)),
        _ => {}
    }
    let database = builder().create(&unfinished).map_err(|e| StoreError::engine("create", &unfinished, e))?;
    transact(&database, &unfinished, |transaction| {
        transaction.open_table(LOG)?;
        transaction.open_table(SNAPSHOT)?;
        transaction.open_table(META)?.insert(FORMAT, [FORMAT_KNOWN].as_slice())?;
        Ok(())
    })?;
    drop(database);
    fs::rename(&unfinished, path).map_err(|e| StoreError::io("rename to", path, e))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::io("sync the folder of", path, e))
}

/// One durable transaction, in two phases (see the top).
fn transact(database: &Database, path: &Path, work: impl FnOnce(&WriteTransaction) -> Result<(), Trouble>) -> Result<(), StoreError> {
    let in_engine = |e: redb::Error| StoreError::engine("write", path, e);
    let mut transaction = database.begin_write().map_err(|e| in_engine(e.into()))?;
    transaction.set_durability(Durability::Immediate).map_err(|e| in_engine(e.into()))?;
    transaction.set_two_phase_commit(true);
    match work(&transaction) {
        Ok(()) => transaction.commit().map_err(|e| in_engine(e.into())),
        Err(trouble) => {
            // What went wrong matters more than whether giving up went well.
            let _ = transaction.abort();
            Err(match trouble {
                Trouble::Engine(e) => in_engine(*e),
                Trouble::Batch(what) => StoreError::Batch { what },
            })
        }
    }
}

enum Trouble {
    Engine(Box<redb::Error>),
    Batch(String),
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble::Engine(Box::new(error.into()))
    }
}

/// The order of `Batch`'s contract: seat, snapshot, entries, hard state.
fn apply(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Trouble> {
    let mut meta = transaction.open_table(META)?;
    let mut log = transaction.open_table(LOG)?;
    let mut pieces = transaction.open_table(SNAPSHOT)?;
    if let Some(seat) = batch.seat {
        log.retain(|_, _| false)?;
        pieces.retain(|_, _| false)?;
        meta.remove(SNAPSHOT_HEAD)?;
        meta.remove(HARD_STATE)?;
        match seat {
            Seat::Take(member) => meta.insert(MEMBER, member.0.to_le_bytes().as_slice())?,
            Seat::Leave => meta.remove(MEMBER)?,
        };
    }
    if let Some(snapshot) = &batch.snapshot {
        pieces.retain(|_, _| false)?;
        for (number, piece) in (0u32..).zip(snapshot.data.chunks(PIECE_BYTES)) {
            pieces.insert(number, piece)?;
        }
        meta.insert(SNAPSHOT_HEAD, snapshot_head(snapshot).as_slice())?;
        if snapshot.reset_log {
            log.retain(|_, _| false)?;
        } else {
            log.retain_in(..=snapshot.index, |_, _| false)?;
        }
    }
    if let Some(first) = batch.entries.first() {
        log.retain_in(first.index.., |_, _| false)?;
        let stands_at = meta.get(SNAPSHOT_HEAD)?.and_then(|head| SnapshotHead::parse(head.value()).map(|head| head.index));
        let mut last = log.last()?.map(|(index, _)| index.value()).or(stands_at);
        // What the snapshot covers need not be kept.
        for entry in batch.entries.iter().filter(|entry| stands_at.is_none_or(|index| entry.index > index)) {
            if last.is_some_and(|last| last + 1 != entry.index) {
                return Err(Trouble::Batch(format!("entry {} does not follow {}", entry.index, last.unwrap_or_default())));
            }
            log.insert(entry.index, entry.bytes.as_slice())?;
            last = Some(entry.index);
        }
    }
    if let Some(hard_state) = &batch.hard_state {
        meta.insert(HARD_STATE, hard_state.as_slice())?;
    }
    Ok(())
}

/// Reads all of a store, every page's checksum included, without changing the file.
fn verify(path: &Path) -> Result<Restored, StoreError> {
    let mut file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
    let about = file.metadata().map_err(|e| StoreError::io("look at", path, e))?;
    if !about.is_file() {
        return Err(StoreError::Foreign { path: path.into() });
    }
    if about.len() == 0 {
        return Err(StoreError::corrupt(path, "it is empty"));
    }
    let mut magic = [0; MAGIC.len() + 1];
    match file.read_exact(&mut magic) {
        Ok(()) if magic.starts_with(&MAGIC) => {}
        Ok(()) => return Err(StoreError::Foreign { path: path.into() }),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            return Err(StoreError::corrupt(path, format!("it is cut off after {} bytes", about.len())));
        }
        Err(e) => return Err(StoreError::io("read", path, e)),
    }
    let state = magic[MAGIC.len()];
    if state & STATE_UNCLEAN == 0 {
        // redb trusts a file that was closed in order and would stumble over damage in it: let it check this one, too.
        // What it does once a page proved wrong (go back one transaction) is what we refuse.
        let overlay = overlay_of(path)?;
        overlay.write(STATE_AT, &[(state | STATE_UNCLEAN) & !STATE_TWO_PHASE]).map_err(|e| StoreError::io("read", path, e))?;
        let mut builder = builder();
        builder.set_repair_callback(|repair| {
            if repair.progress() > 0.0 && repair.progress() < 0.5 {
                repair.abort();
            }
        });
        drop(builder.create_with_backend(overlay).map_err(|e| StoreError::engine("check", path, e))?);
    }
    let database = builder().create_with_backend(overlay_of(path)?).map_err(|e| StoreError::engine("check", path, e))?;
    let transaction = database.begin_read().map_err(|e| StoreError::engine("read", path, e))?;
    read(&transaction, path)
}

fn overlay_of(path: &Path) -> Result<Overlay, StoreError> {
    File::open(path).and_then(Overlay::over).map_err(|e| StoreError::io("open", path, e))
}

/// All records, checked against each other.
fn read(transaction: &ReadTransaction, path: &Path) -> Result<Restored, StoreError> {
    let table_trouble = |e: TableError| match e {
        TableError::Storage(e) => StoreError::engine("read", path, e),
        // Another program's tables, or none: it is a redb file, but not ours.
        _ => StoreError::Foreign { path: path.into() },
    };
    let trouble = |e: redb::StorageError| StoreError::engine("read", path, e);
    let meta = transaction.open_table(META).map_err(table_trouble)?;
    let value = |key: &str| Ok(meta.get(key).map_err(trouble)?.map(|v| v.value().to_vec()));

    match value(FORMAT)?.as_deref() {
        Some([FORMAT_KNOWN]) => {}
        Some([found]) => return Err(StoreError::Version { path: path.into(), found: *found, known: FORMAT_KNOWN }),
        _ => return Err(StoreError::Foreign { path: path.into() }),
    }
    let member = match value(MEMBER)? {
        None => None,
        Some(bytes) => Some(MemberId(number(&bytes).ok_or_else(|| StoreError::corrupt(path, "its member id is malformed"))?)),
    };
    let snapshot = match value(SNAPSHOT_HEAD)? {
        None => None,
        Some(bytes) => {
            let head = SnapshotHead::parse(&bytes).ok_or_else(|| StoreError::corrupt(path, "its snapshot's head is malformed"))?;
            let pieces = transaction.open_table(SNAPSHOT).map_err(table_trouble)?;
            let mut data = Vec::with_capacity(head.bytes);
            for piece in pieces.iter().map_err(trouble)? {
                data.extend_from_slice(piece.map_err(trouble)?.1.value());
            }
            if data.len() != head.bytes {
                return Err(StoreError::corrupt(path, format!("its snapshot has {} bytes of {}", data.len(), head.bytes)));
            }
            Some(SnapshotRecord { index: head.index, meta: head.meta.to_vec(), data: Arc::new(data), reset_log: false })
        }
    };
    let log = transaction.open_table(LOG).map_err(table_trouble)?;
    let mut entries: Vec<LogRecord> = Vec::new();
    let mut last = snapshot.as_ref().map(|s| s.index);
    for record in log.iter().map_err(trouble)? {
        let (index, bytes) = record.map_err(trouble)?;
        let index = index.value();
        if last.is_some_and(|last| last + 1 != index) {
            return Err(StoreError::corrupt(path, format!("entry {index} follows {} in its log", last.unwrap_or_default())));
        }
        last = Some(index);
        entries.push(LogRecord { index, bytes: bytes.value().to_vec() });
    }
    Ok(Restored { member, snapshot, entries, hard_state: value(HARD_STATE)? })
}

/// What is kept of a snapshot besides its pieces: index, length of the data, metadata.
struct SnapshotHead<'a> {
    index: u64,
    bytes: usize,
    meta: &'a [u8],
}

impl SnapshotHead<'_> {
    fn parse(head: &[u8]) -> Option<SnapshotHead<'_>> {
        let (index, rest) = head.split_at_checked(8)?;
        let (bytes, meta) = rest.split_at_checked(8)?;
        let bytes = usize::try_from(number(bytes)?).ok().filter(|bytes| *bytes <= limits::SNAPSHOT_BYTES_MAX)?;
        Some(SnapshotHead { index: number(index)?, bytes, meta })
    }
}

fn snapshot_head(snapshot: &SnapshotRecord) -> Vec<u8> {
    let mut head = Vec::with_capacity(16 + snapshot.meta.len());
    head.extend_from_slice(&snapshot.index.to_le_bytes());
    head.extend_from_slice(&(snapshot.data.len() as u64).to_le_bytes());
    head.extend_from_slice(&snapshot.meta);
    head
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}
