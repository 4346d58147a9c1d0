//! Machines that exist: real sshd, real installing, real nodes. Needs root and Debian's packages (`scripts/test hosts`).

mod common;

use agent::drivers::provider::unit;
use common::{Chance, Project, rounds, text, wait_until};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(60);
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cloud/machine");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/examples/hosts");

/// Test machines and a project whose scripts list them. All of it ends with this.
struct Lab {
    folder: tempfile::TempDir,
    project: Project,
    /// The first three numbers of every machine's address.
    net: String,
    kinds: Vec<Vec<&'static str>>,
}

impl Lab {
    /// One machine for each entry: what `scripts/cloud/machine start` is told besides.
    fn new(kinds: &[&[&'static str]]) -> Lab {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on a real disk");
        let pid = std::process::id();
        static LABS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let lab = LABS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let net = format!("127.{}.{}", 32 + (pid / 250 + lab) % 32, pid % 250);
        let lab = Lab { folder, project: Project::new(), net, kinds: kinds.iter().map(|kind| kind.to_vec()).collect() };
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(lab.key()).status();
        assert!(made.expect("ssh-keygen runs").success());
        fs::remove_file(lab.project.path().join("server.js")).expect("it was just written");
        (1..=kinds.len()).for_each(|number| lab.start(number));
        lab.write_scripts();
        lab
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn address(&self, number: usize) -> String {
        format!("{}.{number}", self.net)
    }

    fn machine(&self, arguments: &[&str]) -> Output {
        let output = Command::new(MACHINE).args(arguments).env("DISCO_MACHINES", self.folder.path()).stdin(Stdio::null()).output();
        output.expect("python3 runs it")
    }

    fn machine_ok(&self, arguments: &[&str]) -> String {
        let output = self.machine(arguments);
        assert!(output.status.success(), "machine {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    fn start(&self, number: usize) {
        let key = format!("{}.pub", self.key().display());
        let (name, address) = (format!("m{number}"), self.address(number));
        let fixed = ["start", &name, &address, "--authorized-key", &key];
        self.machine_ok(&[&fixed, self.kinds[number - 1].as_slice()].concat());
    }

    /// What a machine that is no node any more, or not yet, has of ours: nothing.
    fn is_clean(&self, number: usize) {
        let look = "ls -d /etc/disco /var/lib/disco /usr/local/bin/* /etc/systemd/system/disco* 2>/dev/null; id -un disco 2>/dev/null; \
                    for exe in /proc/[0-9]*/exe; do readlink $exe; done | grep discod";
        let left = text(&self.machine(&["run", &format!("m{number}"), "sh", "-c", look]).stdout);
        assert_eq!(left, "", "machine {number}");
    }

    fn host_key(&self, number: usize) -> String {
        let key = fs::read_to_string(self.folder.path().join(format!("m{number}/host_key.pub"))).expect("its first boot wrote it");
        key.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// The example as it ships, with these machines in its list.
    fn write_scripts(&self) {
        for name in ["client.js", "cluster.js"] {
            self.project.write(name, &fs::read_to_string(Path::new(EXAMPLE).join(name)).expect("the example is there"));
        }
        let user = |kind: &[&str]| if kind.contains(&"root") { "root" } else { "admin" };
        let host = |(at, kind): (usize, &Vec<&'static str>)| {
            format!("{{ address: '{}', user: '{}', host_key: '{}' }}", self.address(at + 1), user(kind), self.host_key(at + 1))
        };
        let hosts: Vec<String> = self.kinds.iter().enumerate().map(host).collect();
        self.project.write("hosts.js", &format!("export const hosts = [{}];", hosts.join(", ")));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        command.env("SSH_KEY", self.key()).env_remove("SSH_AUTH_SOCK").env("HOME", self.folder.path());
        command
    }

    fn disco(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("disco starts")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.disco(arguments);
        let words = text(&output.stderr);
        assert!(output.status.success(), "disco {}: {}\n{words}\n{}", arguments.join(" "), output.status, self.tell());
        words
    }

    /// It fails within five seconds more than `disco` itself takes; its words.
    fn refused(&self, arguments: &[&str]) -> String {
        let began = Instant::now();
        let output = self.disco(arguments);
        assert!(!output.status.success(), "disco {}: {}", arguments.join(" "), text(&output.stderr));
        assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
        text(&output.stderr)
    }

    fn tell(&self) -> String {
        let log = |number: usize| text(&self.machine(&["run", &format!("m{number}"), "journalctl", "-u", "disco", "-n", "8"]).stdout);
        (1..=self.kinds.len()).map(|number| format!("--- m{number}\n{}", log(number))).collect()
    }

    /// Addresses of the nodes in this state.
    fn nodes(&self, state: &str) -> Vec<String> {
        let status = self.project.status().unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let here = nodes.iter().filter(|node| node["state"] == state).filter_map(|node| node["address"].as_str().map(String::from));
        let mut here: Vec<String> = here.collect();
        here.sort();
        here
    }

    /// Nodes that are ready and managers.
    fn voting(&self) -> usize {
        let status = self.project.status().unwrap_or_default();
        let votes = |node: &&serde_json::Value| node["state"] == "ready" && node["role"] == "manager";
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(votes).count())
    }

    fn are_nodes(&self, count: usize) {
        let wanted: Vec<String> = (1..=count).map(|number| format!("{}:5080", self.address(number))).collect();
        assert_eq!(self.nodes("ready"), wanted, "{}", self.tell());
        let total = self.project.status().and_then(|s| s["nodes"].as_array().map(Vec::len));
        assert_eq!(total, Some(count), "no other node: {}", self.tell());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.machine(&["end-all"]);
    }
}

#[test]
fn three_machines_become_a_cluster_that_is_mended_and_leaves_nothing_behind() {
    // Under Debian's own systemd: what the unit asks for is asked of the real one.
    let lab = Lab::new(&[&["--systemd", "real"] as &[_]; 3]);
    let began = Instant::now();
    lab.ok(&["bootstrap", "--yes"]);
    println!("bootstrapped in {:.1?}", began.elapsed());
    lab.are_nodes(3);
    let unit =
        lab.machine_ok(&["run", "m2", "sh", "-c", "systemctl is-active disco; stat -c '%U %a' /etc/disco/disco.toml /var/lib/disco"]);
    assert_eq!(unit, "active\nroot 640\ndisco 700\n");

    let began = Instant::now();
    let words = lab.ok(&["bootstrap", "--yes"]);
    assert!(!words.contains("installed"), "nothing was missing: {words}");
    println!("again in {:.1?}", began.elapsed());

    // The disk of one is gone, and its host key with it.
    lab.machine_ok(&["remove", "m2"]);
    wait_until(SOON, "the lost host is told of", || lab.nodes("lost").len() == 1, || lab.tell());
    lab.start(2);
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("shows another host key") && words.contains("hint:"), "{words}");
    lab.is_clean(2);
    lab.write_scripts();
    lab.ok(&["bootstrap", "--yes"]);
    lab.are_nodes(3);

    // The power is cut for all.
    for number in 1..=3 {
        lab.machine_ok(&["stop", &format!("m{number}")]);
    }
    (1..=3).for_each(|number| lab.start(number));
    lab.ok(&["bootstrap", "--yes"]);
    lab.are_nodes(3);

    lab.ok(&["scale", "1"]);
    lab.are_nodes(1);
    lab.is_clean(3);
    lab.ok(&["scale", "3"]);
    lab.are_nodes(3);

    // One is off: it is named, and comes back without a word.
    lab.machine_ok(&["stop", "m3"]);
    wait_until(SOON, "the lost host is told of", || lab.nodes("lost").len() == 1, || lab.tell());
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains(&format!("cannot get onto host {}", lab.address(3))), "{words}");
    lab.start(3);
    wait_until(SOON, "it is back", || lab.nodes("ready").len() == 3, || lab.tell());

    // A machine that gets another name in the list (to getaddrinfo(3) it is one address) is a node as before.
    let hosts = fs::read_to_string(lab.project.path().join("hosts.js")).expect("it is there");
    let renamed = format!("'0x7f{}'", lab.address(2).strip_prefix("127").expect("it is a loopback address"));
    lab.project.write("hosts.js", &hosts.replace(&format!("'{}'", lab.address(2)), &renamed));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains(&format!("known as {}:5080", lab.address(2))) && words.contains("hint: list it as"), "{words}");
    lab.are_nodes(3);
    lab.write_scripts();
    lab.ok(&["bootstrap", "--yes"]);
    lab.are_nodes(3);

    // A machine that ends up in another project's list is left alone.
    let other = Project::new();
    for name in ["client.js", "cluster.js", "hosts.js"] {
        other.write(name, &fs::read_to_string(lab.project.path().join(name)).expect("it is there"));
    }
    let stranger =
        other.command(&["bootstrap", "--yes"]).env("SSH_KEY", lab.key()).env("HOME", lab.folder.path()).output().expect("it starts");
    assert!(text(&stranger.stderr).contains("is a node of another cluster"), "{}", text(&stranger.stderr));
    lab.are_nodes(3);

    lab.ok(&["destroy", "--yes"]);
    (1..=3).for_each(|number| lab.is_clean(number));
    assert!(!lab.project.path().join(".disco").exists());
}

#[test]
fn a_lost_certificate_makes_no_second_cluster_and_a_dead_machine_stops_no_scale() {
    let lab = Lab::new(&[&[], &[], &[]]);
    lab.ok(&["bootstrap", "--yes"]);
    lab.ok(&["kv", "set", "kept", "yes"]);

    // The first listed machine has nothing on it any more, and this folder nothing that lets it in.
    lab.machine_ok(&["remove", "m1"]);
    lab.start(1);
    lab.write_scripts();
    let certificate = lab.project.path().join(".disco/admin.crt");
    fs::remove_file(&certificate).expect("it was there");
    (2..=3).for_each(|number| drop(lab.machine_ok(&["stop", &format!("m{number}")])));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("cannot tell whether this cluster runs already") && words.contains("hint:"), "{words}");
    lab.is_clean(1);
    (2..=3).for_each(|number| lab.start(number));
    // Until the cluster has noticed that the first one's node is gone, it is healthy, and there is nothing to do.
    let is_installed = || lab.machine(&["run", "m1", "systemctl", "is-active", "disco"]).stdout == b"active\n";
    wait_until(
        SOON,
        "the first one is a node again",
        || lab.disco(&["bootstrap", "--yes"]).status.success() && is_installed(),
        || lab.tell(),
    );
    wait_until(SOON, "all three vote", || lab.voting() == 3, || lab.tell());
    lab.are_nodes(3);
    assert_eq!(lab.project.ok(&["kv", "get", "kept"]), "yes\n", "it is the cluster that was there");

    // One died for good: it is taken out, named, and waited for no more.
    lab.machine_ok(&["stop", "m3"]);
    wait_until(SOON, "the lost host is told of", || lab.nodes("lost").len() == 1, || lab.tell());
    for _ in 0..2 {
        let words = lab.ok(&["scale", "2"]);
        assert!(words.contains(&format!("cannot get onto host {}", lab.address(3))), "{words}");
        lab.are_nodes(2);
    }
    lab.start(3);
    lab.ok(&["scale", "3"]);
    lab.are_nodes(3);
    lab.ok(&["destroy", "--yes"]);
    (1..=3).for_each(|number| lab.is_clean(number));
}

#[test]
fn a_bootstrap_killed_anywhere_and_run_again_ends_as_if_nothing_had_been() {
    let mut chance = Chance::new();
    let lab = Lab::new(&[&[], &[], &[]]);
    let began = Instant::now();
    lab.ok(&["bootstrap", "--yes"]);
    let whole = u64::try_from(began.elapsed().as_millis()).expect("less than an age");
    lab.ok(&["destroy", "--yes"]);
    for round in 1..=rounds(5) {
        let mut moments = Vec::new();
        for _ in 0..2 {
            let moment = Duration::from_millis(chance.below(whole));
            let mut child = lab.command(&["bootstrap", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            let began = Instant::now();
            let over = || began.elapsed() >= moment || child.try_wait().expect("it is ours").is_some();
            wait_until(SOON, "its moment", over, String::new);
            let _ = child.kill();
            child.wait().expect("it is ours");
            moments.push(moment);
        }
        lab.ok(&["bootstrap", "--yes"]);
        lab.are_nodes(3);
        lab.ok(&["destroy", "--yes"]);
        (1..=3).for_each(|number| lab.is_clean(number));
        println!("round {round}: killed after {moments:?}");
    }
}

#[test]
fn every_way_in_that_ssh_has_and_none_that_it_has_not() {
    let lab = Lab::new(&[&["--become", "doas"], &["--become", "none", "--user", "root"], &["--become", "none"], &["--systemd", "0"]]);
    let write_one = |number: usize, user: &str, key: Option<String>| {
        let host_key = key.map_or(String::new(), |key| format!(", host_key: '{key}'"));
        let host = format!("{{ address: '{}', user: '{user}'{host_key} }}", lab.address(number));
        lab.project.write("hosts.js", &format!("export const hosts = [{host}];"));
    };
    let ends = |lab: &Lab, number: usize| {
        lab.ok(&["destroy", "--yes"]);
        lab.is_clean(number);
    };

    // doas, by the key's fingerprint; systemd of the stand-in is new enough for delegation.
    let public = lab.folder.path().join("m1/host_key.pub");
    let told = Command::new("ssh-keygen").arg("-lf").arg(&public).output().expect("ssh-keygen runs");
    write_one(1, "admin", text(&told.stdout).split(' ').nth(1).map(String::from));
    lab.ok(&["bootstrap", "--yes"]);
    lab.are_nodes(1);
    ends(&lab, 1);

    // Somebody else has the user's name: nobody is taken over, logged in as, or removed.
    lab.machine_ok(&["run", "m1", "useradd", "--create-home", "disco"]);
    write_one(1, "admin", Some(lab.host_key(1)));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("there is a user `disco` on host") && words.contains("its home is /home/disco"), "{words}");
    write_one(1, "disco", Some(lab.host_key(1)));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains(&format!("cannot log in to host {} as `disco`", lab.address(1))), "{words}");
    lab.ok(&["destroy", "--yes"]);
    let set_up = lab.machine(&["run", "m1", "sh", "-c", &unit::setup()]);
    assert!(text(&set_up.stderr).contains("there is a user `disco` on this machine that is not ours"), "{}", text(&set_up.stderr));
    assert!(lab.machine(&["run", "m1", "sh", "-c", unit::REMOVAL]).status.success());
    assert_eq!(lab.machine_ok(&["run", "m1", "id", "-un", "disco"]), "disco\n");

    // Nobody said which key it has: it is not spoken to, and its key is told.
    write_one(2, "root", None);
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("is not known; it shows SHA256:"), "{words}");

    // known_hosts with a hashed name, the key from an agent.
    let ssh = lab.folder.path().join(".ssh");
    fs::create_dir(&ssh).expect("the folder is ours");
    fs::write(ssh.join("known_hosts"), format!("{} {}\n", lab.address(2), lab.host_key(2))).expect("the folder is ours");
    let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(ssh.join("known_hosts")).output().expect("ssh-keygen runs");
    assert!(hashed.status.success() && fs::read_to_string(ssh.join("known_hosts")).is_ok_and(|text| text.starts_with("|1|")));
    let agent = Agent::start(lab.folder.path());
    agent.add(&lab.key());
    let output =
        lab.command(&["bootstrap", "--yes"]).env_remove("SSH_KEY").env("SSH_AUTH_SOCK", &agent.socket).output().expect("it starts");
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), lab.tell());
    let output = lab.command(&["destroy", "--yes"]).env_remove("SSH_KEY").env("SSH_AUTH_SOCK", &agent.socket).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    lab.is_clean(2);

    // No way to become root, no systemd, no key that fits.
    write_one(3, "admin", Some(lab.host_key(3)));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("neither sudo nor doas"), "{words}");
    write_one(4, "admin", Some(lab.host_key(4)));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("systemd does not run on this machine"), "{words}");
    write_one(1, "nobody", Some(lab.host_key(1)));
    let words = lab.refused(&["bootstrap", "--yes"]);
    assert!(words.contains("does not let us in with") && words.contains("hint:"), "{words}");
}

/// An ssh-agent of our own.
struct Agent {
    process: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Agent {
        let socket = folder.join("agent.sock");
        let process = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("ssh-agent runs");
        let agent = Agent { process, socket };
        wait_until(SOON, "the agent listens", || agent.socket.exists(), String::new);
        agent
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).status();
        assert!(added.expect("ssh-add runs").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
