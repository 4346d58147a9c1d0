//! What a node finds on its disk after something went wrong there: it says what, stops, and changes nothing.

mod common;

use common::Daemon;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

fn formed() -> Daemon {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    node.set("kept", "yes").expect("it leads");
    node
}

/// A file of the data dir, what happens to it, and the words that must name it.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: [Damage; 7] = [
    ("store.redb", |file| fs::remove_file(file).expect("it is there"), "store.redb"),
    ("store.redb", |file| cut(file, 0), "store.redb"),
    ("store.redb", |file| cut(file, 10_000), "store.redb"),
    ("store.redb", |file| fs::write(file, b"not a store at all").expect("writable"), "store.redb"),
    ("keyring", |file| fs::remove_file(file).expect("it is there"), "keyring"),
    ("node.key", |file| fs::write(file, b"-----BEGIN NONSENSE-----").expect("writable"), "node.key"),
    ("identity.toml", |file| fs::write(file, b"node = 7").expect("writable"), "identity.toml"),
];

fn cut(file: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(file).expect("it is there").set_len(length).expect("writable");
}

/// Every file of a data dir with a digest of its bytes. Opening a whole store may tidy it, so the store itself counts
/// only where it was what was damaged; sockets and the lock never do.
fn contents(folder: &Path, with_store: bool) -> Vec<(PathBuf, u64)> {
    let counts = |path: &PathBuf| path.is_file() && !path.ends_with("lock") && (with_store || !path.ends_with("store.redb"));
    let digest = |bytes: Vec<u8>| bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let paths = fs::read_dir(folder).expect("the data dir").flatten().map(|entry| entry.path()).filter(counts);
    let mut found: Vec<_> = paths.map(|path| (path.clone(), digest(fs::read(&path).expect("readable")))).collect();
    found.sort();
    found
}

#[test]
fn damaged_and_missing_files_are_named_the_node_stops_and_nothing_is_reset() {
    let mut node = formed();
    assert!(node.stop().success());
    for (name, damage, words) in DAMAGES {
        let file = node.data().join(name);
        let whole = fs::read(&file).expect("it is there");
        damage(&file);
        let of_store = name == "store.redb";
        let before = contents(&node.data(), of_store);
        fs::write(node.folder().join("discod.log"), b"").expect("the log is ours");

        node.start();
        let ended = node.ended();
        let log = node.log();
        assert_eq!(ended.code(), Some(2), "{name}: {log}");
        assert!(log.contains("error: ") && log.contains(words), "{name}: {log}");
        assert!(!log.contains("panicked"), "{name}: {log}");
        assert_eq!(contents(&node.data(), of_store), before, "{name}: the node changed its data dir");

        fs::write(&file, whole).expect("writable");
    }
    node.start();
    node.until("it leads again", |status| status.leader.is_some());
    assert_eq!(node.value("kept").expect("it answers").as_deref(), Some("yes"));
}

/// A small file system of its own for one data dir; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> SmallDisk {
        fs::create_dir_all(folder).expect("the disk works");
        mount(&["-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs"], folder);
        SmallDisk(folder.into())
    }

    /// Leaves no more than a few pages free.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).expect("there is room");
        while filler.write_all(&[7; 4096]).is_ok() {}
    }

    fn grow(&self) {
        mount(&["-o", "remount,size=32m"], &self.0);
    }
}

fn mount(args: &[&str], folder: &Path) {
    let done = Command::new("mount").args(args).arg(folder).status().expect("mount(8) is there");
    assert!(done.success(), "mount {args:?} {}", folder.display());
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Mounting takes root, which CI has; elsewhere `store_crash` fills a disk by a limit on the file's size.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

#[test]
fn a_full_disk_stops_the_node_and_loses_nothing_it_acknowledged() {
    if !is_root() {
        println!("not root: no file system to fill");
        return;
    }
    let mut node = Daemon::new("originate = true\ncluster_name = \"test\"\nname = \"n1\"\n");
    let disk = SmallDisk::mount(&node.data());
    node.start();
    node.until("it leads", |status| status.leader.is_some());
    let value = "x".repeat(30_000);
    node.set("k0", "0 first").expect("there is room");
    disk.fill();
    let mut acknowledged = vec![("k0".to_owned(), 0)];
    for n in 1..400 {
        let key = format!("k{}", n % 30);
        match node.set(&key, &format!("{n} {value}")) {
            Ok(_) => acknowledged.push((key, n)),
            Err(_) => break,
        }
    }
    assert_eq!(node.ended().code(), Some(2), "{}", node.log());
    assert!(node.log().contains("the store failed"), "{}", node.log());
    disk.grow();
    node.start();
    node.until("it leads again", |status| status.leader.is_some());
    for (key, n) in acknowledged.iter().rev().take(30) {
        let found = node.value(key).expect("it answers").expect("it was acknowledged");
        let number: u32 = found.split(' ').next().and_then(|n| n.parse().ok()).expect("a number first");
        assert!(number >= *n, "{key}: {number} is older than the acknowledged {n}");
    }
    node.kill();
    drop(disk);
}
