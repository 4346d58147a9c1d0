//! A real three-node cluster in a temporary folder, made by the binaries under test.
//!
//! The binaries are copied into the folder first: PSS divides a page among all processes that map the same file,
//! so a second cluster on this machine would make the first one look smaller than it is.

use crate::watch::{addresses, instances, tasks_of};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a step of a cluster may take before the scenario gives up.
const STEP_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
const COPY_BYTES: usize = 16 * 1024;
/// The cluster of `disco init`'s client.js.
const INIT_JS: &str = r#"
export async function init() {
    const provider = await LocalProvider.init({ name: "local" });
    return new Cluster({ name: "example", provider });
}
"#;

/// A client.js that bootstraps one node.
const ONE_JS: &str = r#"
export async function bootstrap(cluster) {
    await cluster.start_instance();
    await cluster.attach_ip();
    await cluster.ssh_install();
}
"#;

/// What went wrong with the cluster, not with its size.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file of the folder.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `disco` said no.
    #[error("`disco {args}` ended with {status}: {stderr}")]
    Disco {
        /// Its arguments.
        args: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// `status --json` is not what we know.
    #[error("`disco status --json` printed something else: {0}")]
    Status(#[from] serde_json::Error),
    /// A state did not come about.
    #[error("still waiting after {}s for {what}; last seen: {seen}", limit.as_secs())]
    Late {
        /// For what.
        what: &'static str,
        /// How long.
        limit: Duration,
        /// What there was instead.
        seen: String,
    },
    /// Between two leaders, where one was to be measured.
    #[error("the cluster has no leader")]
    Leaderless,
    /// A process is not where the folder says.
    #[error("no process of {0} is on record")]
    NoProcess(String),
}

/// What `disco status --json` says, as far as we look.
#[derive(Debug, Default, Deserialize)]
pub struct Status {
    /// Node id of the leader.
    pub leader: Option<String>,
    /// Members of the cluster.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// What runs on it.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// One service of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// As declared.
    pub name: String,
    /// Copies that run.
    pub running: u32,
    /// Its copies.
    pub tasks: Vec<Task>,
}

/// One task of a [`Service`].
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// Node id.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// running, stopping, …
    pub state: String,
}

/// One node of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Node id.
    pub id: String,
    /// host:port
    pub address: String,
    /// manager or worker
    pub role: String,
    /// joining, ready, lost …
    pub state: String,
    /// Whether it leads.
    pub leader: bool,
    /// The provider's name for its machine.
    pub instance: Option<String>,
}

impl Status {
    /// Three ready managers, one of them the leader.
    pub fn is_whole(&self) -> bool {
        let ready = |node: &&Node| node.state == "ready" && node.role == "manager";
        self.nodes.len() == 3 && self.nodes.iter().filter(ready).count() == 3 && self.leading().is_some()
    }

    /// So many members, each of them ready, and a leader.
    pub fn has_ready(&self, nodes: usize) -> bool {
        self.nodes.len() == nodes && self.nodes.iter().all(|node| node.state == "ready") && self.leading().is_some()
    }

    /// The leader's entry.
    pub fn leading(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.leader && self.leader.as_ref() == Some(&node.id))
    }
}

/// The cluster; dropping it ends its processes and removes its folder.
pub struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// A folder with copies of `disco` and `discod` from `bin_dir`, and the starting scripts of `disco init`.
    pub fn init(bin_dir: &Path) -> Result<Cluster, ClusterError> {
        let folder = tempfile::Builder::new().prefix("disco-memprof-").tempdir();
        let folder = folder.map_err(|source| file("make a folder in", &std::env::temp_dir(), source))?;
        let cluster = Cluster { folder };
        fs::create_dir(cluster.bin()).map_err(|source| file("make", &cluster.bin(), source))?;
        fs::create_dir(cluster.dir()).map_err(|source| file("make", &cluster.dir(), source))?;
        for name in ["disco", "discod"] {
            copy_program(&bin_dir.join(name), &cluster.bin().join(name)).map_err(|source| file("copy", &bin_dir.join(name), source))?;
        }
        cluster.disco(&["init", "--provider", "local"])?;
        // The starting scripts run a service that people can see; here each state says itself what runs.
        cluster.write_script("")?;
        Ok(cluster)
    }

    /// The same, with a client.js that bootstraps one node and leaves it at that.
    pub fn init_for_one(bin_dir: &Path) -> Result<Cluster, ClusterError> {
        let cluster = Cluster::init(bin_dir)?;
        cluster.write("client.js", ONE_JS)?;
        Ok(cluster)
    }

    /// Writes a cluster.js with these functions beside its init().
    pub fn write_script(&self, functions: &str) -> Result<(), ClusterError> {
        self.write("cluster.js", functions)
    }

    fn write(&self, name: &str, functions: &str) -> Result<(), ClusterError> {
        self.write_file(name, &format!("{INIT_JS}{functions}"))
    }

    fn write_file(&self, name: &str, text: &str) -> Result<(), ClusterError> {
        let path = self.dir().join(name);
        fs::write(&path, text).map_err(|source| file("write", &path, source))
    }

    /// Writes a cluster.js and loads it; everything it declares runs when this returns.
    pub fn apply(&self, functions: &str) -> Result<(), ClusterError> {
        self.write_script(functions)?;
        self.disco(&["apply", "--yes"]).map(drop)
    }

    /// Writes and loads a cluster.js that declares nothing, in a cluster with these settings too (`name: value`).
    pub fn configure(&self, settings: &str) -> Result<(), ClusterError> {
        self.write_file("cluster.js", &INIT_JS.replace("provider });", &format!("provider, {settings} }});")))?;
        self.disco(&["apply", "--yes"]).map(drop)
    }

    /// A folder as of [`Cluster::init`], bootstrapped: three ready managers.
    pub fn bootstrap(bin_dir: &Path) -> Result<Cluster, ClusterError> {
        let cluster = Cluster::init(bin_dir)?;
        cluster.disco(&["bootstrap", "--yes"])?;
        cluster.wait_for("three ready managers", Status::is_whole)?;
        Ok(cluster)
    }

    /// The project folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// Runs `disco` in the folder to its end.
    pub fn disco(&self, args: &[&str]) -> Result<Output, ClusterError> {
        let output = self.output(args)?;
        if output.status.success() { Ok(output) } else { Err(refused(args, &output)) }
    }

    fn output(&self, args: &[&str]) -> Result<Output, ClusterError> {
        self.command(args).stdin(Stdio::null()).output().map_err(|source| file("run", &self.bin().join("disco"), source))
    }

    /// `disco` with these arguments, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin().join("disco"));
        command.args(args).current_dir(self.dir()).env_remove("DISCO_DIR").env_remove("DISCO_DISCOD");
        command
    }

    /// What the cluster says of itself now, linearizable.
    pub fn status(&self) -> Result<Status, ClusterError> {
        // `disco status` says by its exit code whether all is well, and prints how it is either way.
        let args = ["status", "--json"];
        let output = self.output(&args)?;
        if output.stdout.is_empty() {
            return Err(refused(&args, &output));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Asks until `wanted` holds, at most two minutes.
    pub fn wait_for(&self, what: &'static str, wanted: impl Fn(&Status) -> bool) -> Result<Status, ClusterError> {
        let began = Instant::now();
        loop {
            // While leaders change nobody may answer for a moment: that is a state, not a failure.
            let seen = match self.status() {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) => format!("{status:?}"),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > STEP_LIMIT {
                return Err(ClusterError::Late { what, limit: STEP_LIMIT, seen });
            }
            thread::sleep(POLL);
        }
    }

    /// Instances and their processes.
    pub fn processes(&self) -> Vec<(String, u32)> {
        instances(&self.dir())
    }

    /// The process of a node.
    pub fn process_of(&self, node: &Node) -> Result<u32, ClusterError> {
        let instance = node.instance.clone().unwrap_or_default();
        let found = self.processes().into_iter().find(|(name, _)| *name == instance);
        found.map(|(_, pid)| pid).ok_or_else(|| ClusterError::NoProcess(format!("{} ({instance})", node.id)))
    }

    /// What a node wrote to its log.
    pub fn log_of(&self, instance: &str) -> Result<String, ClusterError> {
        let path = self.dir().join(".disco/instances").join(instance).join("discod.log");
        fs::read_to_string(&path).map_err(|source| file("read", &path, source))
    }

    /// kill -9.
    pub fn kill(&self, pid: u32) {
        if self.owns(pid)
            && let Some(pid) = Pid::from_raw(pid.cast_signed())
        {
            // Gone already is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// The node that leads now.
    pub fn leader(&self) -> Result<Node, ClusterError> {
        self.status()?.leading().cloned().ok_or(ClusterError::Leaderless)
    }

    /// Processes of tasks of this cluster, known or not.
    pub fn task_processes(&self) -> Vec<u32> {
        tasks_of(&addresses(&self.dir()))
    }

    /// The administrator's files: CA, certificate, key (PEM).
    pub fn admin_files(&self) -> Result<[Vec<u8>; 3], ClusterError> {
        let read = |name: &str| {
            let path = self.dir().join(".disco").join(name);
            fs::read(&path).map_err(|source| file("read", &path, source))
        };
        Ok([read("ca.crt")?, read("admin.crt")?, read("admin.key")?])
    }

    /// A pid file may outlive its process: only what runs from our own folder is ours to end.
    fn owns(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(self.folder.path()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let tasks = self.task_processes();
        // A cluster that cannot be asked any more is ended by hand below.
        let _ = self.disco(&["destroy", "--yes"]);
        for pid in tasks.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let running = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in running.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            self.kill(pid);
        }
    }
}

/// As a node copies its own binary: in small writes. The kernel caches one write as one block and maps whole blocks,
/// so how a file was written decides how much of it a process that runs it holds.
pub(crate) fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    let mut target = File::create_new(to)?;
    for block in fs::read(from)?.chunks(COPY_BYTES) {
        target.write_all(block)?;
    }
    target.set_permissions(fs::metadata(from)?.permissions())
}

fn refused(args: &[&str], output: &Output) -> ClusterError {
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ClusterError::Disco { args: args.join(" "), status: output.status.to_string(), stderr }
}

fn file(doing: &'static str, path: &Path, source: io::Error) -> ClusterError {
    ClusterError::File { doing, path: path.to_owned(), source }
}
