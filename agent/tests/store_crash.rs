//! The store against what happens to disks and processes: kill -9, damage, truncation, no space.
//!
//! The writer is this same test program, started again with `STORE_CRASH_CHILD` set: its only test then is `child`, which
//! writes batches until it is killed or fails, and prints each number once it is acknowledged.

use agent::{
    drivers::{
        store::{Expect, Store, StoreError, spawn},
        syscall::{self, Resource},
    },
    model::{
        ids::MemberId,
        io::{Batch, LogRecord, Restored, Seat, SnapshotRecord},
    },
};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
};

const CHILD: &str = "STORE_CRASH_CHILD";
const FILE_BYTES_MAX: &str = "STORE_CRASH_FILE_BYTES_MAX";
const SNAPSHOT_EVERY: u64 = 50;

/// What batch `number` holds: one entry, its hard state, and now and then a snapshot that compacts the log.
fn batch(number: u64) -> Batch {
    let snapshot = number.is_multiple_of(SNAPSHOT_EVERY).then(|| SnapshotRecord {
        index: number - 5,
        meta: number.to_le_bytes().to_vec(),
        data: Arc::new(vec![number as u8; 70_000 + number as usize % 1000]),
        reset_log: false,
    });
    Batch {
        seat: (number == 1).then_some(Seat::Take(MemberId(7))),
        snapshot,
        entries: vec![LogRecord { index: number, bytes: entry(number) }],
        hard_state: Some(number.to_le_bytes().to_vec()),
    }
}

fn entry(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(64 + (number * 37 % 900) as usize, number as u8);
    bytes
}

/// The number of the last batch a store holds, having checked that it holds exactly what all batches up to it leave.
fn last_batch(restored: &Restored) -> u64 {
    let Some(hard_state) = &restored.hard_state else {
        assert_eq!(*restored, Restored::default(), "a store without hard state holds nothing");
        return 0;
    };
    let last = u64::from_le_bytes(hard_state.as_slice().try_into().expect("batches write 8 bytes"));
    assert_eq!(restored.member, Some(MemberId(7)));
    let compacted = last / SNAPSHOT_EVERY * SNAPSHOT_EVERY;
    let first = if compacted == 0 { 1 } else { compacted - 4 };
    match &restored.snapshot {
        None => assert_eq!(compacted, 0),
        Some(snapshot) => assert_eq!(Some(snapshot), batch(compacted).snapshot.as_ref()),
    }
    let expected: Vec<LogRecord> = (first..=last).map(|index| LogRecord { index, bytes: entry(index) }).collect();
    assert_eq!(restored.entries, expected, "the log is gapless and whole");
    last
}

/// The body of the writing process: nothing to do unless it was started as one.
#[test]
fn child() {
    let Ok(path) = env::var(CHILD) else { return };
    if let Ok(bytes) = env::var(FILE_BYTES_MAX) {
        syscall::ignore_file_size_signal();
        syscall::set_soft_limit(Resource::FileSize, bytes.parse().expect("the test writes a number")).expect("lowering a limit is allowed");
    }
    let path = Path::new(&path);
    let expect = if path.exists() { Expect::Existing } else { Expect::New };
    let mut store = Store::open(path, expect).expect("the store opens");
    let (tell, told) = mpsc::channel();
    let mut number = last_batch(&store.load());
    let store = spawn(store, Box::new(move |result| tell.send(result).expect("the loop below listens"))).expect("a thread starts");
    loop {
        number += 1;
        store.persist(number, batch(number));
        match told.recv().expect("each batch is answered") {
            Ok(persisted) => say(&format!("acknowledged {persisted}")),
            Err(why) => return say(&format!("failed {why}")),
        }
    }
}

/// One write a line, past the test harness's own buffer.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).expect("the parent reads");
}

/// A running writer; killed when dropped.
struct Writer {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(store: &Path, file_bytes_max: Option<u64>) -> Writer {
        let mut command = Command::new(env::current_exe().expect("a test knows its own program"));
        command.args(["child", "--exact", "--nocapture"]).env(CHILD, store).stdout(Stdio::piped());
        if let Some(bytes) = file_bytes_max {
            command.env(FILE_BYTES_MAX, bytes.to_string());
        }
        let mut process = command.spawn().expect("the test program starts again");
        let lines = BufReader::new(process.stdout.take().expect("it is piped"));
        Writer { process, lines }
    }

    /// The next thing it says; `None` once it is gone.
    fn next(&mut self) -> Option<Said> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).expect("a pipe can be read") == 0 {
                return None;
            }
            // What the harness prints around the first of our lines may stand on the same line.
            if let Some((_, number)) = line.trim().rsplit_once("acknowledged ") {
                return Some(Said::Acknowledged(number.parse().expect("a whole line is written at once")));
            }
            if let Some((_, why)) = line.trim().split_once("failed ") {
                return Some(Said::Failed(why.into()));
            }
        }
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is ours and not yet waited for");
        self.process.wait().expect("it is ours");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

enum Said {
    Acknowledged(u64),
    Failed(String),
}

/// xorshift64*: chance is a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

/// A folder with a store of `batches` batches in it.
fn filled(batches: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("store.redb");
    let mut store = Store::open(&path, Expect::New).expect("a new store");
    for number in 1..=batches {
        store.write(&batch(number)).expect("the disk works");
    }
    drop(store);
    (folder, path)
}

fn reopened(path: &Path) -> u64 {
    last_batch(&Store::open(path, Expect::Existing).expect("the store opens").load())
}

#[test]
fn kill_9_at_any_moment_loses_nothing_acknowledged() {
    let mut chance = Chance(20_260_801);
    let (_folder, path) = filled(0);
    for round in 0..30 {
        let mut writer = Writer::start(&path, None);
        let mut acknowledged = 0;
        for _ in 0..=chance.below(60) {
            match writer.next() {
                Some(Said::Acknowledged(number)) => acknowledged = number,
                Some(Said::Failed(why)) => panic!("round {round}: {why}"),
                None => panic!("round {round}: the writer ended"),
            }
        }
        // Somewhere inside one of the next writes.
        for _ in 0..chance.below(20_000) {
            std::thread::yield_now();
        }
        writer.kill();
        while let Some(Said::Acknowledged(number)) = writer.next() {
            acknowledged = number;
        }
        let held = reopened(&path);
        assert!(held >= acknowledged, "round {round}: {acknowledged} was acknowledged, the store ends at {held}");
    }
}

#[test]
fn a_missing_store_is_an_error_not_a_fresh_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("store.redb");
    let error = Store::open(&path, Expect::Existing).expect_err("there is none");
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().expect("plain")), "{error}");
    assert!(!path.exists(), "and none was made");
}

#[test]
fn a_new_store_is_refused_where_one_holds_data() {
    let (_folder, path) = filled(3);
    let before = fs::read(&path).expect("readable");
    let error = Store::open(&path, Expect::New).expect_err("it holds data");
    assert!(matches!(error, StoreError::Unexpected { .. }), "{error}");
    assert_eq!(fs::read(&path).expect("readable"), before);
    // A store made by a start that died before it had an identity is as good as none, and so is half of one.
    let (_folder, path) = filled(0);
    fs::write(path.with_extension("new"), b"half").expect("writable");
    assert_eq!(last_batch(&Store::open(&path, Expect::New).expect("it is empty").load()), 0);
}

/// The store of a killed process, so that redb has something to repair, and one closed in order.
fn unclean_and_clean() -> Vec<(tempfile::TempDir, PathBuf)> {
    let unclean = filled(0);
    let mut writer = Writer::start(&unclean.1, None);
    while !matches!(writer.next().expect("it writes"), Said::Acknowledged(60..)) {}
    writer.kill();
    vec![unclean, filled(60)]
}

#[test]
fn a_damaged_byte_is_an_error_or_harmless_and_changes_nothing() {
    let mut chance = Chance(42);
    for (folder, path) in unclean_and_clean() {
        let whole = fs::read(&path).expect("readable");
        let copy = folder.path().join("damaged.redb");
        let true_last = {
            fs::write(&copy, &whole).expect("writable");
            reopened(&copy)
        };
        let (mut refused, mut unharmed) = (0, 0);
        let positions: Vec<usize> = (0..320).chain((0..500).map(|_| chance.below(whole.len() as u64) as usize)).collect();
        for position in positions {
            // Bit 0 of byte 9 says which of two commits is the newest, without a checksum: both are valid, so nobody can tell.
            let flip = if position == 9 { 0xFE } else { 0xFF };
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            fs::write(&copy, &damaged).expect("writable");
            match Store::open(&copy, Expect::Existing) {
                Ok(mut store) => {
                    let last = last_batch(&store.load());
                    // The other bits of byte 9 say how to choose between the two commits. Where the kill came between writing
                    // a commit and making it the newest, they may bring forward one that is whole but was not acknowledged.
                    let brought_forward = position == 9 && last == true_last + 1;
                    assert!(last == true_last || brought_forward, "byte {position}: {last} instead of {true_last}");
                    unharmed += 1;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Foreign { .. }), "byte {position}: {error}");
                    assert!(error.to_string().contains("damaged.redb"), "{error}");
                    assert!(fs::read(&copy).expect("readable") == damaged, "byte {position}: the file was changed");
                    refused += 1;
                }
            }
        }
        println!("{refused} refused, {unharmed} in bytes that nothing uses");
        assert!(refused > 50, "{refused} refused, {unharmed} unharmed");
    }
}

#[test]
fn a_truncated_store_is_an_error() {
    for (folder, path) in unclean_and_clean() {
        let whole = fs::read(&path).expect("readable");
        let last = reopened(&path);
        let copy = folder.path().join("short.redb");
        for len in
            [0, 1, 8, 9, 100, 320, 4095, 4096, 8192, whole.len() / 2, whole.len() / 2 / 4096 * 4096, whole.len() - 4096, whole.len() - 1]
        {
            fs::write(&copy, &whole[..len]).expect("writable");
            match Store::open(&copy, Expect::Existing) {
                Ok(mut store) => assert_eq!(last_batch(&store.load()), last, "cut at {len}"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "cut at {len}: {error}");
                    assert!(fs::read(&copy).expect("readable") == whole[..len], "cut at {len}: the file was changed");
                }
            }
        }
    }
}

#[test]
fn other_files_are_not_taken_for_a_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let foreign = |name: &str, make: &dyn Fn(&Path)| {
        let path = folder.path().join(name);
        make(&path);
        let error = Store::open(&path, Expect::Existing).expect_err(name);
        assert!(matches!(error, StoreError::Foreign { .. }), "{name}: {error}");
    };
    foreign("text", &|path| fs::write(path, "name = \"n1\"\n".repeat(1000)).expect("writable"));
    foreign("folder", &|path| fs::create_dir(path).expect("creatable"));
    foreign("redb of another program", &|path| {
        let database = redb::Database::create(path).expect("creatable");
        let transaction = database.begin_write().expect("writable");
        transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).expect("creatable");
        transaction.commit().expect("writable");
    });

    let (_folder, path) = filled(3);
    {
        let database = redb::Database::open(&path).expect("readable");
        let transaction = database.begin_write().expect("writable");
        transaction
            .open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))
            .and_then(|mut t| Ok(t.insert("format", [9].as_slice()).map(|_| ())?))
            .expect("writable");
        transaction.commit().expect("writable");
    }
    let error = Store::open(&path, Expect::Existing).expect_err("of a later build");
    assert!(matches!(error, StoreError::Version { found: 9, .. }), "{error}");
}

/// The disk's end is a limit on the file's size (RLIMIT_FSIZE) in the writing process: no mount, no root.
#[test]
fn a_full_disk_is_reported_and_loses_nothing() {
    let (_folder, path) = filled(10);
    let size = fs::metadata(&path).expect("there").len();
    let mut writer = Writer::start(&path, Some(size));
    let mut acknowledged = 10;
    let why = loop {
        match writer.next().expect("it says how it ended") {
            Said::Acknowledged(number) => acknowledged = number,
            Said::Failed(why) => break why,
        }
    };
    assert!(why.contains("cannot write the store") && why.contains("store.redb"), "{why}");
    assert!(why.contains("File too large") || why.contains("No space left"), "{why}");
    drop(writer);
    assert!(reopened(&path) >= acknowledged, "with room again everything acknowledged is there");
}

#[test]
fn a_batch_follows_its_contract() {
    let (_folder, path) = filled(9);
    let held = |store: Store| {
        drop(store);
        Store::open(&path, Expect::Existing).expect("the store opens")
    };
    let entries =
        |range: std::ops::RangeInclusive<u64>, fill: u8| range.map(|index| LogRecord { index, bytes: vec![fill; 3] }).collect::<Vec<_>>();
    let mut store = Store::open(&path, Expect::Existing).expect("the store opens");

    store.write(&Batch { entries: entries(6..=7, 1), ..Batch::default() }).expect("entries at or after the first are replaced");
    let mut store = held(store);
    let restored = store.load();
    assert_eq!(restored.entries.last(), Some(&LogRecord { index: 7, bytes: vec![1; 3] }));
    assert_eq!(restored.entries.len(), 7);

    let snapshot = SnapshotRecord { index: 5, meta: b"m".to_vec(), data: Arc::new(vec![]), reset_log: true };
    store
        .write(&Batch { snapshot: Some(snapshot.clone()), entries: entries(6..=6, 2), ..Batch::default() })
        .expect("a received snapshot voids the log");
    let mut store = held(store);
    let restored = store.load();
    assert_eq!((restored.entries, restored.snapshot), (entries(6..=6, 2), Some(SnapshotRecord { reset_log: false, ..snapshot })));

    store.write(&Batch { seat: Some(Seat::Leave), ..Batch::default() }).expect("leaving deletes all");
    let mut store = held(store);
    assert_eq!(store.load(), Restored::default());

    let error = store.write(&Batch { entries: [entries(1..=1, 1), entries(3..=3, 1)].concat(), ..Batch::default() }).expect_err("a hole");
    assert!(matches!(error, StoreError::Batch { .. }), "{error}");
    assert!(matches!(store.write(&Batch::default()).expect_err("it failed"), StoreError::Broken { .. }));
    assert_eq!(held(store).load(), Restored::default());
}

#[test]
fn the_file_stays_small_under_endless_writes() {
    let (_folder, path) = filled(0);
    let mut store = Store::open(&path, Expect::New).expect("an empty one");
    let mut size_max = 0;
    for last in (10..=20_000).step_by(10) {
        // Ten entries at a time: a disk that takes its time to sync should not take ours.
        let entries = (last - 9..=last).map(|index| LogRecord { index, bytes: entry(index) }).collect();
        store.write(&Batch { entries, ..batch(last) }).expect("the disk works");
        size_max = size_max.max(fs::metadata(&path).expect("there").len());
    }
    println!("largest file: {} KiB", size_max / 1024);
    assert!(size_max < 4 * 1024 * 1024, "{size_max} bytes for at most 55 entries and a snapshot of 70 KB");
}
