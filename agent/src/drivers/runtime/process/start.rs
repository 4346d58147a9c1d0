//! From an order to a running program: ports, user, environment; fork, record, go.
//!
//! The copy that fork makes waits until its pid, its start time and the boot they count from are durable. So whatever
//! dies when, a program that runs is recorded, and one that is not recorded never ran.

use super::{
    cgroup::Cgroups,
    ports,
    record::{TaskFile, Tasks, id_of},
    user::{self, User},
};
use crate::{
    drivers::{
        process::ProcessRecord,
        syscall::{self, ExecFailure, HeldChild, ProcessHandle, Program, Step},
    },
    model::{ids::NodeId, service::ServiceSpec, task::TaskOrder},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of a task with a cpu limit that no cgroup can hold it to.
const NICE: i32 = 10;

/// What a task needs to know of the node it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    pub node: NodeId,
    pub name: String,
    /// The host others reach this node at.
    pub host: String,
}

/// A program that runs and is recorded.
#[derive(Debug)]
pub struct Started {
    pub task: TaskFile,
    pub process: ProcessHandle,
}

/// Starts a task's program. It blocks: on the disk, and until exec has succeeded or failed.
///
/// # Errors
/// Why it does not run, for a person; nothing of it is left running.
pub fn start(
    here: &Here,
    tasks: &Tasks,
    cgroups: Option<&Cgroups>,
    order: TaskOrder,
    restarts: u32,
    taken: &BTreeSet<u16>,
) -> Result<Started, String> {
    let spec = &order.spec;
    let user = spec.user.as_deref().map(user::find).transpose()?;
    let before = tasks.read(order.number).ok().flatten().map(|task| task.ports).unwrap_or_default();
    let ports = ports::assign(&here.host, &spec.ports, &before, taken)?;
    let environment = environment(here, &order, user.as_ref(), &ports);
    let cwd = PathBuf::from(spec.cwd.as_deref().unwrap_or("/"));
    let path = resolve(spec, &environment, &cwd)?;
    let can_limit = cgroups.is_some_and(Cgroups::limits);
    let program = Program {
        path: c_string(path.to_string_lossy().into_owned())?,
        arguments: spec.command.iter().cloned().map(c_string).collect::<Result<_, _>>()?,
        environment: environment.iter().map(|(name, value)| c_string(format!("{name}={value}"))).collect::<Result<_, _>>()?,
        cwd: c_string(cwd.to_string_lossy().into_owned())?,
        identity: user.as_ref().and_then(|user| user.to_become(syscall::effective_uid())),
        data_bytes_max: spec.memory.filter(|_| !can_limit),
        nice: if spec.cpus_milli.is_some() && !can_limit { NICE } else { 0 },
    };
    let disk = |error: io::Error| format!("cannot write its record: {error}");
    let mut log = tasks.log_to_append(order.number).map_err(disk)?;
    if !can_limit && (spec.memory.is_some() || spec.cpus_milli.is_some()) && restarts == 0 {
        let _ = log.write_all(without_cgroups(spec).as_bytes());
    }
    let null = File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
    let child = HeldChild::fork(&program, &null, &log).map_err(|error| format!("cannot fork: {error}"))?;
    let gone = || "it ended before it began".to_owned();
    let record = ProcessRecord::of(child.pid).map_err(|error| error.to_string())?.ok_or_else(gone)?;
    let process = ProcessHandle::open(record.pid, record.started).map_err(|error| error.to_string())?.ok_or_else(gone)?;
    spare_nothing(child.pid);
    let mut cgroup = None;
    if let Some(cgroups) = cgroups {
        let name = order.number.0.to_string();
        match cgroups.enclose(&name, child.pid, spec.memory, spec.cpus_milli) {
            Ok((path, limited)) => {
                if can_limit && !limited && restarts == 0 {
                    let _ = log.write_all(b"disco: this node could not set the limits of this task's cgroup: it runs without them\n");
                }
                cgroup = Some(path.to_string_lossy().into_owned());
            }
            Err(error) if can_limit => return Err(format!("cannot make its cgroup: {error}")),
            Err(_) => {}
        }
    }
    let ProcessRecord { pid, started, boot } = record;
    let task = TaskFile { node: here.node, order, restarts, pid, started, boot, ports, cgroup: cgroup.clone(), exit: None };
    let done =
        tasks.write(&task).map_err(disk).and_then(|()| child.release().map_err(|failure| words(&failure, &task.order.spec, &path, &cwd)));
    match done {
        Ok(()) => Ok(Started { task, process }),
        Err(why) => {
            if let (Some(cgroups), Some(leaf)) = (cgroups, cgroup) {
                let _ = cgroups.remove(Path::new(&leaf));
            }
            Err(why)
        }
    }
}

/// The service manager may have been told to spare the daemon when memory runs out (`OOMScoreAdjust=`, proc_pid_oom_score_adj(5)),
/// which a copy of it inherits: a task that eats the memory must go before us. One that is to go early is left so.
fn spare_nothing(pid: u32) {
    let path = format!("/proc/{pid}/oom_score_adj");
    let spared = fs::read_to_string(&path).is_ok_and(|text| text.trim().parse().is_ok_and(|score: i32| score < 0));
    if spared && let Err(error) = fs::write(&path, "0") {
        log::warn!("cannot write {path}: {error}");
    }
}

fn without_cgroups(spec: &ServiceSpec) -> String {
    let mut text = "disco: this node may not use cgroups:".to_owned();
    if let Some(bytes) = spec.memory {
        text.push_str(&format!(" each process of this task may use {bytes} bytes (RLIMIT_DATA), instead of all together;"));
    }
    if spec.cpus_milli.is_some() {
        text.push_str(&format!(" `cpus` is not enforced, the task gives way to others (nice {NICE});"));
    }
    text.pop();
    text.push('\n');
    text
}

/// Where the program is: as `execvp` would look, with the task's own PATH and folder.
fn resolve(spec: &ServiceSpec, environment: &BTreeMap<String, String>, cwd: &Path) -> Result<PathBuf, String> {
    let name = spec.command.first().filter(|name| !name.is_empty()).ok_or("its command is empty")?;
    if name.contains('/') {
        return Ok(cwd.join(name));
    }
    let path = environment.get("PATH").map_or(PATH, String::as_str);
    let runs = |file: &PathBuf| fs::metadata(file).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    path.split(':')
        .map(|folder| cwd.join(folder).join(name))
        .find(runs)
        .ok_or_else(|| format!("`{name}` is in none of the {} folders of this node's PATH", path.split(':').count()))
}

/// Only what is said here: a task must not depend on how its daemon was started.
fn environment(here: &Here, order: &TaskOrder, user: Option<&User>, ports: &BTreeMap<u16, u16>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    let ours = |name: &str, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    set("PATH", ours("PATH", PATH));
    set("LANG", ours("LANG", "C.UTF-8"));
    match user {
        None => set("HOME", ours("HOME", "/")),
        Some(user) => {
            set("USER", user.name.clone());
            set("LOGNAME", user.name.clone());
            set("HOME", user.home.clone())
        }
    };
    for (name, value) in &order.spec.env {
        set(name, value.clone());
    }
    for (declared, port) in ports {
        set(&format!("DISCO_PORT_{declared}"), port.to_string());
    }
    if let Some(port) = order.spec.ports.first().and_then(|first| ports.get(&first.port)) {
        set("PORT", port.to_string());
    }
    // Last: `sweep` knows a task's processes by these.
    set("DISCO_SERVICE", order.service.clone());
    set("DISCO_TASK", id_of(order));
    set("DISCO_NODE", here.node.to_string());
    set("DISCO_NODE_NAME", here.name.clone());
    set("DISCO_ADDRESS", here.host.clone());
    variables
}

fn c_string(text: String) -> Result<CString, String> {
    CString::new(text).map_err(|error| format!("{:?} holds a NUL byte", String::from_utf8_lossy(&error.into_vec())))
}

fn words(failure: &ExecFailure, spec: &ServiceSpec, path: &Path, cwd: &Path) -> String {
    let why = &failure.source;
    match failure.step {
        Step::Session => format!("cannot start a session: {why}"),
        Step::Descriptors => format!("cannot close descriptors: {why}"),
        Step::Limits => format!("cannot set its limits: {why}"),
        Step::Identity => format!("cannot become user `{}`: {why}", spec.user.as_deref().unwrap_or_default()),
        Step::Cwd => format!("cannot enter {}: {why}", cwd.display()),
        Step::Exec => format!("cannot run {}: {why}", path.display()),
    }
}
