//! A control group (v2) per task, where this node may make them.
//!
//! It does two things: it limits memory and cpu, and it holds every process that a task started, also those that left
//! its session. The second needs no controllers, so a group is made even where only that is to be had.
//!
//! Outside rule (kernel, Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"): controllers are
//! passed down only by groups without processes of their own. So the daemon moves itself into a leaf beside its tasks,
//! if nobody else is in its group.

use crate::model::ids::NodeId;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// The leaf the daemon moves to.
const OWN_LEAF: &str = "disco-daemon";
/// cpu.max counts in periods of this many microseconds.
const PERIOD_US: u64 = 100_000;
/// How long a group may count a process that has ended, and how often one looks.
const SETTLED_WITHIN: Duration = Duration::from_millis(200);
const SETTLES_IN: Duration = Duration::from_millis(2);
/// A task that runs as root may make groups inside its own: so many levels of them are looked through, for so many processes at once.
const LEVELS_MAX: usize = 16;
const MEMBERS_MAX: usize = 4096;
/// The kernel refuses less (`min_cfs_quota_period`).
const QUOTA_US_MIN: u64 = 1_000;

/// The group that holds the tasks' groups.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    tasks: PathBuf,
    /// Making a leaf and removing an empty parent exclude each other.
    turn: Mutex<()>,
}

impl Cgroups {
    /// `None`: there is no v2 hierarchy, or this process may not make groups in its own.
    pub fn find(node: NodeId) -> Option<Cgroups> {
        let mut base = own()?;
        if base.ends_with(OWN_LEAF) {
            base.pop();
        }
        let cgroups = Cgroups { tasks: base.join(name_of(node)), base, turn: Mutex::new(()) };
        cgroups.with_parent(|_| Ok(())).ok()?;
        // A daemon that was killed may have left some.
        remove_empty(&cgroups.tasks);
        Some(cgroups)
    }

    /// Whether memory and cpu can be limited here.
    pub fn limits(&self) -> bool {
        self.with_parent(|_| Ok(has(&self.base, "cgroup.subtree_control"))).unwrap_or(false)
    }

    /// Makes a group with these limits, as far as they can be set, and puts a process into it.
    /// Answers its path and whether the limits hold.
    ///
    /// # Errors
    /// The group cannot be made or entered.
    pub fn enclose(&self, name: &str, pid: u32, memory: Option<u64>, cpus_milli: Option<u32>) -> io::Result<(PathBuf, bool)> {
        let leaf = self.tasks.join(name);
        self.with_parent(|_| {
            // One that is left from before may have groups inside, and would take no process.
            remove_if_empty(&leaf);
            match fs::create_dir(&leaf) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        })?;
        let mut limited = true;
        if let Some(bytes) = memory {
            limited &= fs::write(leaf.join("memory.max"), bytes.to_string()).is_ok();
            // Without this a task would swap instead of ending; where there is no swap there is no such file.
            let _ = fs::write(leaf.join("memory.swap.max"), "0");
        }
        if let Some(milli) = cpus_milli {
            let quota_us = (u64::from(milli) * PERIOD_US / 1000).max(QUOTA_US_MIN);
            limited &= fs::write(leaf.join("cpu.max"), format!("{quota_us} {PERIOD_US}")).is_ok();
        }
        fs::write(leaf.join("cgroup.procs"), pid.to_string())?;
        Ok((leaf, limited))
    }

    /// Removes an empty group with those inside it, and the parent if it was the last.
    ///
    /// # Errors
    /// Something still runs in it.
    pub fn remove(&self, leaf: &Path) -> io::Result<()> {
        let _turn = self.turn.lock().expect("no code that holds this lock can panic");
        remove(leaf)?;
        // Refused while a task's group is in it, which is what we want.
        let _ = fs::remove_dir(&self.tasks);
        Ok(())
    }

    fn with_parent<T>(&self, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let _turn = self.turn.lock().expect("no code that holds this lock can panic");
        if let Err(error) = fs::create_dir(&self.tasks)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        if pass_down(&self.base).is_ok() {
            let _ = pass_down(&self.tasks);
        }
        act(&self.tasks)
    }
}

fn name_of(node: NodeId) -> String {
    format!("disco-{node}")
}

/// The node's group around a task's; none if the task's is not where a node would have made it.
pub fn around(leaf: &Path, node: NodeId) -> Option<&Path> {
    leaf.parent().filter(|group| group.ends_with(name_of(node)))
}

/// Removes the group of a task of which nothing runs any more, and those it made inside.
///
/// # Errors
/// Something still runs in it.
pub fn remove(leaf: &Path) -> io::Result<()> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        remove_inside(leaf, LEVELS_MAX);
        match fs::remove_dir(leaf) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // What was just killed counts until the kernel has switched away from it for the last time.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => thread::sleep(SETTLES_IN),
            removed => return removed,
        }
    }
}

/// Removes of a node's group what nothing runs in, and the group itself if nothing is left in it.
pub fn remove_empty(node: &Path) {
    inside(node).for_each(|leaf| remove_if_empty(&leaf));
    let _ = fs::remove_dir(node);
}

/// Whole or not at all: a task that runs keeps also those of its groups that are empty now.
fn remove_if_empty(leaf: &Path) {
    if members(leaf).is_empty() {
        remove_inside(leaf, LEVELS_MAX);
        // Refused where something runs after all: that is what the groups are for.
        let _ = fs::remove_dir(leaf);
    }
}

/// The innermost first: a group with others inside cannot be removed.
fn remove_inside(group: &Path, levels: usize) {
    for inner in inside(group) {
        if levels > 1 {
            remove_inside(&inner, levels - 1);
        }
        let _ = fs::remove_dir(inner);
    }
}

/// The groups right inside a group; none if there is no such group.
fn inside(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Gives a group's children the memory and cpu controllers.
fn pass_down(group: &Path) -> io::Result<()> {
    if !has(group, "cgroup.controllers") {
        return Err(io::Error::new(ErrorKind::Unsupported, "no memory and cpu controllers here"));
    }
    if has(group, "cgroup.subtree_control") {
        return Ok(());
    }
    let control = group.join("cgroup.subtree_control");
    if fs::write(&control, "+memory +cpu").is_ok() {
        return Ok(());
    }
    let inside = fs::read_to_string(group.join("cgroup.procs"))?;
    let own = std::process::id().to_string();
    if inside.lines().eq([own.as_str()]) {
        let leaf = group.join(OWN_LEAF);
        fs::create_dir_all(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), own)?;
    }
    fs::write(&control, "+memory +cpu")
}

fn has(group: &Path, file: &str) -> bool {
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    ["memory", "cpu"].iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted))
}

/// The folder of the group this process is in; `None` where there is no v2 hierarchy.
pub fn own() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounted_at(&fs::read_to_string("/proc/self/mountinfo").ok()?, own)
}

/// Where the group `own` is in the file system: proc_pid_mountinfo(5).
fn mounted_at(mounts: &str, own: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root.trim_end_matches('/'))?;
        Some(Path::new(at).join(below.trim_start_matches('/')))
    })
}

/// Processes of a group and of those inside it, not all if there are very many; none if there is no such group.
pub fn members(group: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    gather(group, LEVELS_MAX, &mut found);
    found
}

fn gather(group: &Path, levels: usize, found: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let room = MEMBERS_MAX - found.len();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    for inner in inside(group) {
        if levels == 0 || found.len() == MEMBERS_MAX {
            return;
        }
        gather(&inner, levels - 1, found);
    }
}

/// Kills all of a group at once (Linux 5.14).
///
/// # Errors
/// The kernel has no `cgroup.kill`, or we may not.
pub fn kill(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.kill"), "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_under_its_mount() {
        let mounts =
            "25 30 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n42 25 0:39 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_at(mounts, "/a/b"), Some(PathBuf::from("/sys/fs/cgroup/unified/a/b")));
        assert_eq!(mounted_at(mounts, "/"), Some(PathBuf::from("/sys/fs/cgroup/unified/")));
        let in_a_container = "42 25 0:39 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_at(in_a_container, "/box/a"), Some(PathBuf::from("/sys/fs/cgroup/a")));
        assert_eq!(mounted_at("25 30 0:23 / / rw - ext4 x rw\n", "/"), None);
    }

    #[test]
    fn groups_go_with_all_that_is_inside_and_not_at_all_where_something_runs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = folder.path().join("node");
        for made in ["1/a/b/c", "1/d", "2", "3/a/b", "3/c"] {
            fs::create_dir_all(node.join(made)).expect("the disk works");
        }
        // A plain folder with a file in it is kept as a group is that has a process.
        fs::write(node.join("3/a/b/cgroup.procs"), "7\n8\n").expect("the disk works");
        assert_eq!(members(&node.join("3")), [7, 8]);
        assert_eq!(members(&node.join("1")), [0; 0]);
        remove_empty(&node);
        assert!(node.join("3/c").exists(), "a task that runs keeps its groups");
        assert!(!node.join("1").exists() && !node.join("2").exists());
        fs::remove_file(node.join("3/a/b/cgroup.procs")).expect("the disk works");
        remove(&node.join("3")).expect("nothing runs in it");
        remove_empty(&node);
        assert!(!node.exists());
    }

    /// Ends with the test, however that ends.
    struct Task(std::process::Child);

    impl Drop for Task {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[test]
    fn a_task_that_made_groups_of_its_own_leaves_none_and_may_start_again() {
        let node = NodeId(u64::from(std::process::id()) << 32);
        // Where this machine lets us make none there is nothing to leave.
        let Some(cgroups) = Cgroups::find(node) else { return };
        let task = std::process::Command::new("sleep").arg("1000").spawn().map(Task).expect("sleep exists");
        for inner in ["a/b", "c"] {
            let pid = task.0.id();
            let leaf = cgroups.enclose("1", pid, None, None).expect("it takes a process").0;
            let deep = leaf.join(inner);
            fs::create_dir_all(&deep).expect("who may make a group may make more inside");
            fs::write(deep.join("cgroup.procs"), pid.to_string()).expect("who may make a group may fill it");
            assert_eq!(members(&leaf), [pid]);
            remove_empty(&cgroups.tasks);
            assert!(deep.exists(), "it runs");
            fs::write(cgroups.base.join("cgroup.procs"), pid.to_string()).expect("it came from there");
        }
        drop(task);
        cgroups.remove(&cgroups.tasks.join("1")).expect("nothing runs in it");
        assert!(!cgroups.tasks.exists());
    }
}
