//! A machine without Disco fetches it from a node, with curl, as a launch's user-data does.

mod common;

use agent::drivers::{artifacts::Digest, pki::pem};
use common::Daemon;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

struct Machine {
    folder: tempfile::TempDir,
    ca: PathBuf,
}

impl Machine {
    /// It believes the CA of this cluster.
    fn for_cluster_of(node: &Daemon) -> Machine {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = folder.path().join("ca.crt");
        let certificates = agent::drivers::pki::KeyFiles::new(&node.data()).certificates().expect("it originated");
        fs::write(&ca, pem::certificate_to_pem(&certificates.1)).expect("the disk works");
        Machine { folder, ca }
    }

    fn got(&self) -> PathBuf {
        self.folder.path().join("discod")
    }

    /// HTTP status, or curl's own complaint.
    fn fetch(&self, from: &str, path: &str, token: Option<&str>) -> Result<u16, String> {
        let header = self.folder.path().join("header");
        let shown = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\n"));
        fs::write(&header, shown).expect("the disk works");
        let asked = Command::new("curl")
            .args(["--http2", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--cacert"])
            .arg(&self.ca)
            .args(["--connect-to", &format!("node.disco:443:{from}"), "-w", "%{http_code}", "-H"])
            .arg(format!("@{}", header.display()))
            .arg("-o")
            .arg(self.got())
            .arg(format!("https://node.disco{path}"))
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        match asked.status.success() {
            true => Ok(text.trim().parse().expect("curl prints the status")),
            false => Err(String::from_utf8_lossy(&asked.stderr).into_owned()),
        }
    }
}

fn leader() -> Daemon {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    first
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_discod"))
}

/// Peak of what the process itself occupied, bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_machine_fetches_the_program_of_a_node_with_its_join_token_and_the_token_stays_good() {
    let first = leader();
    let machine = Machine::for_cluster_of(&first);
    let digest = Digest::of_file(program()).expect("it was built");
    let path = format!("/artifact/{}", digest.as_str());
    let token = first.token("worker");
    for _ in 0..2 {
        assert_eq!(machine.fetch(&first.address, &path, Some(&token)), Ok(200));
        assert_eq!(Digest::of_file(&machine.got()).expect("it was fetched"), digest);
    }
    let _second = Daemon::join("second", &token, &[&first.address]);
    first.until("the token still lets it in", |status| status.nodes.len() == 2);
}

#[test]
fn strangers_get_nothing_and_are_told_why() {
    let first = leader();
    let machine = Machine::for_cluster_of(&first);
    let digest = Digest::of_file(program()).expect("it was built");
    let path = format!("/artifact/{}", digest.as_str());
    let token = first.token("worker");
    let guess = format!("{}-{}", token.rsplit_once('-').expect("three parts").0, "t".to_owned() + &"0".repeat(40));
    let late = first.token_for("worker", Duration::from_millis(1));
    let other = format!("/artifact/{}", "0".repeat(64));
    let table = [
        (path.as_str(), None, 403, "show the join token"),
        (&path, Some(guess.as_str()), 403, "not of this cluster"),
        (&path, Some(late.as_str()), 403, "not of this cluster"),
        (&path, Some("DISCO1"), 403, "show the join token"),
        (&other, Some(token.as_str()), 404, "does not have that program"),
        ("/artifact/../../etc/passwd", Some(&token), 400, "SHA-256"),
        ("/artifact/", Some(&token), 400, "SHA-256"),
    ];
    for (path, shown, status, words) in table {
        let path = path.replace("..", "%2e%2e");
        assert_eq!(machine.fetch(&first.address, &path, shown), Ok(status), "{path} with {shown:?}");
        let said = fs::read_to_string(machine.got()).expect("a refusal is text");
        assert!(said.contains(words), "{path} with {shown:?}: {said}");
    }
    let stranger = leader();
    let complaint = machine.fetch(&stranger.address, &path, Some(&token)).expect_err("its CA is not ours");
    assert!(complaint.contains("certificate"), "{complaint}");
}

#[test]
fn many_who_fetch_at_once_cost_the_node_little_memory() {
    let first = leader();
    let digest = Digest::of_file(program()).expect("it was built");
    let path = format!("/artifact/{}", digest.as_str());
    let machines: Vec<Machine> = (0..4).map(|_| Machine::for_cluster_of(&first)).collect();
    let token = first.token("worker");
    // Its certificate, its code and its buffers are in memory after the first.
    assert_eq!(machines[0].fetch(&first.address, &path, Some(&token)), Ok(200));
    let before = peak(first.pid());
    let fetched: Vec<_> = std::thread::scope(|scope| {
        let fetches: Vec<_> = machines.iter().map(|machine| scope.spawn(|| machine.fetch(&first.address, &path, Some(&token)))).collect();
        fetches.into_iter().map(|fetch| fetch.join().expect("curl ends")).collect()
    });
    assert_eq!(fetched, [Ok(200), Ok(200), Ok(200), Ok(200)]);
    let grown = peak(first.pid()).saturating_sub(before);
    let size = fs::metadata(program()).expect("it was built").len();
    assert!(grown < 2 << 20, "four fetches of {size} bytes took {grown} bytes");
}
