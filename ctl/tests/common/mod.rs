//! A project folder with a real cluster in it, and the ways to hurt it. Ends everything it started when dropped.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub const DISCO: &str = env!("CARGO_BIN_EXE_disco");

/// The scripts a new user starts from.
const CLIENT_JS: &str = include_str!("../../../scripts/examples/local/client.js");
const CLUSTER_JS: &str = include_str!("../../../scripts/examples/local/cluster.js");
const SERVER_JS: &str = include_str!("../../../scripts/examples/local/server.js");

pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    pub fn new() -> Project {
        let project = Project { folder: tempfile::tempdir().expect("a temporary folder") };
        project.write("client.js", CLIENT_JS);
        project.write("cluster.js", CLUSTER_JS);
        project.write("server.js", SERVER_JS);
        project
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(DISCO);
        command.args(args).arg("--dir").arg(self.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    pub fn disco(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("disco starts")
    }

    /// Runs it and requires that it ends well; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.disco(args);
        assert!(output.status.success(), "disco {}: {}\n{}{}", args.join(" "), output.status, text(&output.stdout), self.explain(&output));
        text(&output.stdout)
    }

    /// What the cluster says of itself, and its daemons' last lines: for the message of a failed test.
    pub fn tell(&self) -> String {
        let output = self.disco(&["status"]);
        format!("{}{}", text(&output.stdout), self.explain(&output))
    }

    fn explain(&self, output: &Output) -> String {
        let mut all = text(&output.stderr);
        for log in self.logs() {
            let whole = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = whole.lines().rev().take(15).collect();
            all.push_str(&format!("--- {}\n{}\n", log.display(), tail.into_iter().rev().collect::<Vec<_>>().join("\n")));
        }
        all
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.instances().into_iter().map(|i| i.join("discod.log")).collect()
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("disco starts")
    }

    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.disco(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Folders of the instances that exist.
    pub fn instances(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join(".disco/instances")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir() && !name(p).starts_with('.')).collect();
        folders.sort();
        folders
    }

    /// Addresses of the instances that exist, without ports.
    pub fn addresses(&self) -> Vec<String> {
        memprof::addresses(self.path())
    }

    /// The process id of an instance's daemon, if it runs.
    pub fn pid(&self, instance: &str) -> Option<u32> {
        let record = fs::read_to_string(self.path().join(".disco/instances").join(instance).join("pid")).ok()?;
        let pid: u32 = record.split_whitespace().next()?.parse().ok()?;
        is_running(pid).then_some(pid)
    }

    pub fn running(&self) -> Vec<(String, u32)> {
        self.instances().iter().filter_map(|p| Some((name(p), self.pid(&name(p))?))).collect()
    }

    /// The leader's instance, if the cluster answers and knows one.
    pub fn leader_instance(&self) -> Option<String> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array()?;
        nodes.iter().find(|n| n["leader"] == true)?["instance"].as_str().map(String::from)
    }

    /// Ready managers, if the cluster answers.
    pub fn ready_managers(&self) -> usize {
        let Some(status) = self.status() else { return 0 };
        let good = |n: &&serde_json::Value| n["state"] == "ready" && n["role"] == "manager";
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(good).count())
    }

    /// Nodes that answer a linearizable read at their own door, which takes a leader and a majority.
    pub fn answering(&self) -> usize {
        let answers = |folder: &PathBuf| {
            let socket = folder.join("data/control.sock");
            let output = Command::new(DISCO).args(["status", "--json", "--socket"]).arg(socket).stdin(Stdio::null()).output();
            output.is_ok_and(|o| o.status.success())
        };
        self.instances().iter().filter(|f| answers(f)).count()
    }

    pub fn wait_for_managers(&self, count: usize, within: Duration) -> Duration {
        let began = Instant::now();
        let exact = || {
            let total = self.status().and_then(|s| s["nodes"].as_array().map(Vec::len)).unwrap_or(0);
            self.ready_managers() == count && total == count && self.answering() == count
        };
        wait_until(within, &format!("{count} ready managers and no other node"), exact, || self.tell());
        began.elapsed()
    }
}

impl Project {
    /// Every acknowledged write of [`Writing`] is there.
    pub fn has_all(&self, acknowledged: &[String]) {
        for key in acknowledged {
            let value = self.ok(&["kv", "get", key]);
            assert_eq!(value.trim_end(), format!("v{}", key[1..].parse::<u32>().expect("a number")), "{key}");
        }
    }
}

/// Time as this machine gives it to a process that has little to do, as a daemon: it asks for a hundredth of a second after the
/// other and counts those it got. On a machine with nothing else to do that is the wall's time; where every process waits for
/// its turn it is less, by as much as the daemons' own timers are late.
struct Beat {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

const BEAT: Duration = Duration::from_millis(10);

impl Beat {
    fn start() -> Beat {
        let beat = Beat { count: Arc::default(), stop: Arc::default() };
        let (count, stop) = (beat.count.clone(), beat.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let due = Instant::now() + BEAT;
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        beat
    }

    fn now(&self) -> Duration {
        BEAT * self.count.load(Ordering::Relaxed) as u32
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Somebody who writes one key after the other, each until it is acknowledged. Ends with the test, also when that fails:
/// it holds the project, which ends the daemons when it goes.
pub struct Writing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Vec<String>, Duration)>>,
}

impl Writing {
    pub fn start(project: Arc<Project>) -> Writing {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let beat = Beat::start();
            let (mut acknowledged, mut longest, mut last) = (Vec::new(), Duration::ZERO, beat.now());
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("w{n:05}");
                if project.disco(&["kv", "set", &key, &format!("v{n}")]).status.success() {
                    longest = longest.max(beat.now() - last);
                    last = beat.now();
                    acknowledged.push(key);
                }
            }
            (acknowledged, longest)
        });
        Writing { stop, thread: Some(thread) }
    }

    /// What was acknowledged, and the longest gap, in time that the machine gave.
    pub fn end(mut self) -> (Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it ends once").join().expect("the writer")
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Whatever state the test left: end each process by its own record.
        let addresses = self.addresses();
        for _ in 0..3 {
            for (_, pid) in self.running() {
                kill(pid);
            }
        }
        // Tasks outlive their daemon, but not their test; nor does what the kernel keeps of them.
        for instance in self.instances() {
            let _ = agent::drivers::runtime::end_recorded(&instance.join("data/tasks"), Duration::ZERO);
        }
        for task in memprof::tasks_of(&addresses) {
            kill(task);
        }
    }
}

pub fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits on a condition with a bound; what it waited for is in the message.
pub fn wait_until(within: Duration, what: &str, mut condition: impl FnMut() -> bool, explain: impl Fn() -> String) {
    let until = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < until, "not within {within:?}: {what}\n{}", explain());
        std::thread::yield_now();
    }
}

pub fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How often a random test goes round: few in CI, many in `scripts/soak`.
pub fn rounds(in_ci: usize) -> usize {
    std::env::var("DISCO_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(in_ci)
}

/// A small generator for tests that pick moments: the seed is printed, so that a run can be repeated.
pub struct Chance(u64);

impl Chance {
    pub fn new() -> Chance {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let seed = std::env::var("DISCO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(now);
        println!("DISCO_SEED={seed}");
        Chance(seed | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
