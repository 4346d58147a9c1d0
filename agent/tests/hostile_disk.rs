//! A data dir that was damaged, robbed or filled up: the daemon says what is wrong with which file, touches nothing, and
//! never starts afresh.

mod common;

use agent::drivers::pki::{self, KeyFiles, pem, random_bytes};
use common::{
    Daemon,
    intruder::{now_ms, stolen_authority},
    until,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names and bytes of all files, but for the lock, whose pid is the last starter's.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("readable").path());
    let plain = entries.filter(|path| path.is_file() && !path.ends_with("lock"));
    plain.map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect()
}

fn restore(folder: &Path, all: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in files(folder).into_keys().filter(|path| !all.contains_key(path)) {
        fs::remove_file(path).expect("it is ours");
    }
    for (path, bytes) in all {
        fs::write(path, bytes).expect("it is ours");
    }
}

/// What is done to a file.
enum Harm {
    Remove,
    Cut(usize),
    /// One byte in the middle.
    Flip,
    Random(usize),
    Empty,
    Folder,
    /// What is whole and somebody else's.
    Other(Vec<u8>),
}

impl Harm {
    fn hurt(&self, path: &Path) {
        let mut bytes = fs::read(path).expect("it is there");
        match self {
            Harm::Remove | Harm::Folder => fs::remove_file(path).expect("it is ours"),
            Harm::Cut(left) => bytes.truncate(*left),
            Harm::Flip => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
            }
            Harm::Random(count) => bytes = (0..*count).flat_map(|_| random_bytes::<1>()).collect(),
            Harm::Empty => bytes.clear(),
            Harm::Other(others) => bytes.clone_from(others),
        }
        match self {
            Harm::Remove => {}
            Harm::Folder => fs::create_dir(path).expect("it is ours"),
            _ => fs::write(path, bytes).expect("it is ours"),
        }
    }
}

#[test]
fn a_damaged_or_missing_file_is_named_and_nothing_is_made_up_for_it() {
    let mut node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    for n in 0..20 {
        node.set(&format!("k{n}"), &"v".repeat(2000)).expect("a leader writes");
    }
    let before = node.picture();
    assert_eq!(node.stop().code(), Some(0));
    let whole = files(&node.data());
    let (own_key, other_key) = (KeyFiles::new(&node.data()).key().expect("it is whole"), pki::new_key());
    let own_public = pki::public_key(&own_key).expect("it is whole");
    let misnamed = stolen_authority(&node).sign_node(pki::node_of(b"another"), &own_public, now_ms()).expect("32 bytes");
    let misnamed = pem::certificate_to_pem(&misnamed).into_bytes();
    let other_key = pem::key_to_pem(&other_key).into_bytes();
    let table: Vec<(&str, Harm, &str)> = vec![
        ("store.redb", Harm::Remove, "is missing, but this node has an identity"),
        ("store.redb", Harm::Empty, "is damaged: it is empty"),
        ("store.redb", Harm::Cut(5), "is damaged: it is cut off"),
        ("store.redb", Harm::Cut(5000), "is damaged"),
        ("store.redb", Harm::Random(9000), "is not a store of discod"),
        ("store.redb", Harm::Folder, "is not a store of discod"),
        ("node.key", Harm::Remove, "is missing"),
        ("node.key", Harm::Flip, "is damaged"),
        ("node.key", Harm::Random(300), "is damaged"),
        ("node.key", Harm::Empty, "is damaged"),
        ("node.crt", Harm::Remove, "is missing"),
        ("node.crt", Harm::Random(300), "is damaged"),
        ("node.crt", Harm::Cut(200), "is damaged"),
        ("node.crt", Harm::Other(misnamed), "node.crt is for node"),
        ("node.key", Harm::Other(other_key), "does not belong to its certificate"),
        ("ca.crt", Harm::Remove, "is missing"),
        ("ca.crt", Harm::Random(300), "is damaged"),
        ("keyring", Harm::Remove, "is missing"),
        ("keyring", Harm::Cut(20), "is damaged"),
        ("keyring", Harm::Random(300), "is damaged"),
        ("keyring", Harm::Folder, "cannot read"),
        ("identity.toml", Harm::Empty, "is damaged"),
        ("identity.toml", Harm::Cut(30), "is damaged"),
        ("identity.toml", Harm::Random(300), "identity.toml"),
        // Its store has somebody's promises in it: it must not become somebody else.
        ("identity.toml", Harm::Remove, "holds data, but this node has no identity"),
    ];
    for (number, (name, harm, words)) in table.iter().enumerate() {
        let path = node.data().join(name);
        harm.hurt(&path);
        // To learn whether there should be a keyring the store has to be opened, and redb writes in what it opens.
        let opened = *name == "keyring";
        let untouched = || {
            let mut files = files(&node.data());
            files.retain(|path, _| !(opened && path.ends_with("store.redb")));
            files
        };
        let hurt = untouched();
        let output = node.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("discod starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "row {number}, {name}: {said}");
        assert!(
            said.contains("error: ")
                && (said.contains("hint: ") || matches!(harm, Harm::Folder))
                && said.contains(name)
                && said.contains(words),
            "row {number}, {name}: `{words}` is not in: {said}"
        );
        assert!(!said.contains("panicked") && said.chars().all(|c| c == '\n' || !c.is_control()), "row {number}: {said:?}");
        assert!(untouched() == hurt, "row {number}, {name}: a file was changed or made");
        if matches!(harm, Harm::Folder) {
            fs::remove_dir(&path).expect("it is empty");
        }
        restore(&node.data(), &whole);
    }
    node.start();
    node.until("it leads again", |status| status.leader.is_some());
    assert_eq!(node.picture(), before, "all was restored");
}

#[test]
fn a_flipped_byte_in_the_store_is_found_or_did_not_matter() {
    let mut node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    for n in 0..10 {
        node.set(&format!("k{n}"), &"v".repeat(500)).expect("a leader writes");
    }
    let before = node.picture();
    assert_eq!(node.stop().code(), Some(0));
    let whole = files(&node.data());
    let path = node.data().join("store.redb");
    let length = whole[&path].len();
    for turn in 0..12 {
        let mut bytes = whole[&path].clone();
        let at = usize::try_from(u64::from_be_bytes(random_bytes()) % length as u64).expect("within the file");
        bytes[at] ^= 1 << (turn % 8);
        fs::write(&path, &bytes).expect("it is ours");
        node.start();
        // Either it says that the store is damaged, or it is the node that it was: never a third.
        let back = until("an end or a leader", common::BOUND, || {
            if !node.is_running() {
                return Some(false);
            }
            node.status().is_ok_and(|status| status.leader.is_some()).then_some(true)
        });
        if back {
            assert_eq!(node.picture(), before, "byte {at}");
            node.stop();
        } else {
            assert_eq!(node.ended().code(), Some(2), "byte {at}");
            assert!(node.log().contains("store.redb"), "byte {at}: {}", node.log());
        }
        restore(&node.data(), &whole);
    }
}

#[test]
fn a_node_with_a_full_disk_stops_and_comes_back_when_there_is_room() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let second = Daemon::join("m2", &first.token("manager"), &[&first.address]);
    let mut poor = Daemon::new(&format!("name = \"poor\"\ntoken = \"{}\"\nseeds = [\"{}\"]\n", first.token("manager"), first.address));
    let disk = Disk::make(&poor.data());
    poor.start();
    first.until("three voters", |status| status.voters.len() == 3 && status.nodes.iter().all(|node| node.state == "ready"));
    // What a small disk has no room for: values that come back as log and as snapshots.
    let value = "x".repeat(60_000);
    let hog = disk.fill();
    until("the node with the full disk to stop", common::BOUND * 2, || {
        first.set("big", &value).expect("two of three write on");
        (!poor.is_running()).then_some(())
    });
    assert_eq!(poor.ended().code(), Some(2));
    let said = poor.log();
    let last = said.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
    assert!(last.contains("store.redb") && (last.contains("No space left") || last.contains("too large")), "{said}");
    first.set("after", "1").expect("two of three write on");
    first.until("the poor node is missed", |status| status.nodes.iter().any(|node| node.name == "poor" && node.state == "lost"));

    // Still full: it may fail again, in words, but must not lose what it has.
    drop(hog);
    poor.start();
    first.until("it is back", |status| status.nodes.len() == 3 && status.nodes.iter().all(|node| node.state == "ready"));
    let digests = || [&first, &second, &poor].map(|node| node.read(true, member_query()).ok().map(digest));
    until("all three to hold the same", common::BOUND, || {
        let all = digests();
        (all[0].is_some() && all[0] == all[1] && all[1] == all[2]).then_some(())
    });
    assert_eq!(poor.value("after").expect("it answers").as_deref(), Some("1"));
    poor.stop();
    drop(disk);
}

fn member_query() -> proto::v1::read_request::Query {
    proto::v1::read_request::Query::Member(proto::v1::MemberQuery {})
}

/// Position and digest of a node's own copy.
fn digest(reply: proto::v1::ReadReply) -> (u64, u64) {
    match reply.result {
        Some(proto::v1::read_reply::Result::Member(member)) => (member.applied, member.digest),
        other => panic!("asked for the member, got {other:?}"),
    }
}

/// A data dir on a small disk of its own. Mounting takes root; without it the test's part is left to `prlimit`.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    const SIZE: &str = "size=6m";

    fn make(folder: &Path) -> Disk {
        fs::create_dir_all(folder).expect("the disk works");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", Disk::SIZE, "tmpfs"]).arg(folder).stderr(Stdio::null()).status();
        assert!(mount.is_ok_and(|status| status.success()), "mount");
        Disk { folder: folder.to_owned() }
    }

    /// Takes all room there is, until dropped.
    fn fill(&self) -> Hog {
        let path = self.folder.join("hog");
        let mut file = fs::File::create(&path).expect("the disk works");
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        Hog { path }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still runs in it keeps it until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

struct Hog {
    path: PathBuf,
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
