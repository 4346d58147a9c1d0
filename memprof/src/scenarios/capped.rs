//! One node in a control group of 16 MB, with a script, under more connections than it needs: it sheds and lives.
//!
//! Needs a v2 hierarchy that is ours: `scripts/footprint` brings one along.

use super::{Outcome, ScenarioError, spoilt};
use crate::{
    Measured, Sampler,
    cluster::Cluster,
    load::{self, Plan},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) const PHASE: &str = "node-capped-at-16-mb";

const CAP_BYTES: u64 = 16_000_000;
const TOP: &str = "/sys/fs/cgroup";
/// More than the sixteen it grants when room is short. No rate is promised here; in an emulated machine none could be.
const PLAN: Plan = Plan { connections: 64, requests_per_second: 200, one_write_in: 4, value_bytes: 64, seconds: 20 };

/// Of those 4,000 it has to answer so many: it takes on more again once there is room. One that has a megabyte less room does not.
const ANSWERED_MIN: u64 = 1_800;

/// Keeps its executor busy, and would take far more than the cap if it were let.
const GREEDY_JS: &str = r#"
export function configure(cluster) {
    const kept = [];
    every(500, () => { for (let i = 0; i < 20000; i++) kept.push({ i, text: `entry ${i}` }); });
}
"#;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let group = Group::make()?;
    // One node: nobody else is in the group.
    let cluster = Cluster::init_for_one(bin_dir)?;
    // What starts inside stays inside, and so does the memory that it takes.
    group.inside(|| cluster.disco(&["bootstrap", "--yes"]))??;
    let status = cluster.wait_for("its one node", |status| status.leading().is_some_and(|node| node.state == "ready"))?;
    let node = status.leading().expect("just seen").clone();
    let pid = cluster.process_of(&node)?;
    group.cap()?;
    // Where the project lies in memory (tmpfs), its files fill half the cap: a script that is ended at once is shed already.
    let _ = cluster.apply(GREEDY_JS);

    let [ca, certificate, key] = cluster.admin_files()?;
    let sampler = Sampler::start(pid);
    let report = load::run(&node.address, &load::Identity { ca, certificate, key }, &PLAN)?;
    let measured = Measured::of(&sampler.finish());

    if cluster.process_of(&node).ok() != Some(pid) || fs::metadata(format!("/proc/{pid}")).is_err() {
        return Err(ScenarioError::Spoilt(format!("the node was killed under its cap: {}", group.told()?)));
    }
    cluster.disco(&["kv", "set", "after", "the load"])?;
    // What it let go of, in its own words: a node that was never short proves nothing.
    let log = cluster.dir().join(".disco/instances").join(node.instance.as_deref().unwrap_or_default()).join("discod.log");
    let text = fs::read_to_string(&log).map_err(|error| spoilt("read", &log, &error))?;
    let shed = text.lines().filter(|line| line.contains("bytes are in use")).count();
    if shed == 0 {
        return Err(ScenarioError::Spoilt(format!("it was never short of memory: {report}; {}", group.told()?)));
    }
    if report.answered < ANSWERED_MIN {
        return Err(ScenarioError::Spoilt(format!("it sheds for good: less than {ANSWERED_MIN} answered: {report}; {}", group.told()?)));
    }
    let note = format!("{report}; {}; took on less or more {shed} times", group.told()?);
    Ok(vec![Outcome { phase: PHASE, who: node.instance.unwrap_or_default(), measured, note }])
}

/// Removed with its scenario; whoever is still inside moves back to the top first.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Group, ScenarioError> {
        let controllers = Path::new(TOP).join("cgroup.subtree_control");
        fs::write(&controllers, "+memory").map_err(|error| spoilt("hand on memory in", &controllers, &error))?;
        let group = Group(Path::new(TOP).join(format!("memprof-{}", std::process::id())));
        fs::create_dir(&group.0).map_err(|error| spoilt("make", &group.0, &error))?;
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), ScenarioError> {
        let path = self.0.join(file);
        fs::write(&path, text).map_err(|error| spoilt("write", &path, &error))
    }

    /// Does something that starts processes as one of the group.
    fn inside<T>(&self, act: impl FnOnce() -> T) -> Result<T, ScenarioError> {
        // 0: whoever writes.
        self.write("cgroup.procs", "0")?;
        let done = act();
        let top = Path::new(TOP).join("cgroup.procs");
        fs::write(&top, "0").map_err(|error| spoilt("go back to", &top, &error))?;
        Ok(done)
    }

    fn cap(&self) -> Result<(), ScenarioError> {
        // Where there is no swap there is no such file, and nothing to forbid.
        let _ = fs::write(self.0.join("memory.swap.max"), "0");
        self.write("memory.max", &CAP_BYTES.to_string())
    }

    /// What the kernel did to keep the group below its cap.
    fn told(&self) -> Result<String, ScenarioError> {
        let path = self.0.join("memory.events");
        let events = fs::read_to_string(&path).map_err(|error| spoilt("read", &path, &error))?;
        let count = |name: &str| events.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
        Ok(format!("at the cap {} times, {} processes killed (scripts)", count("max "), count("oom_kill ")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(Path::new(TOP).join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
