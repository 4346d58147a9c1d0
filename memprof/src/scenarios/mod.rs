//! The states that the promise names, brought about with real binaries.
//!
//! Each scenario makes a cluster of its own and returns what it measured, phase by phase; judging is `verdict`'s.

mod capped;
mod deploys;
mod executor;
mod hooks;
mod idle;
mod joins;
mod launches;
mod leader_changes;
mod nine_nodes;
mod requests;
mod snapshot;
mod tasks;
mod under_load;

use crate::{
    cluster::{Cluster, ClusterError, Node, Status},
    load::LoadError,
    sampler::{INTERVAL, Measured, Sample, Sampler},
    watch,
};
use std::{io, path::Path, thread, time::Duration};

/// One measurement of one process, to be judged by the budget named like its phase.
#[derive(Debug, serde::Serialize)]
pub struct Outcome {
    /// Name of the state, a key of `budgets.toml`.
    pub phase: &'static str,
    /// Whose measurement: an instance, or `disco`.
    pub who: String,
    /// The numbers.
    pub measured: Measured,
    /// What else happened, in words.
    pub note: String,
}

/// Why a scenario could not be brought about. That is a failure too.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The cluster did not do its part.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load did not do its part.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state was not the one to be measured.
    #[error("{0}")]
    Spoilt(String),
}

/// One state, or a row of them.
pub struct Scenario {
    /// As `--scenario` takes it.
    pub name: &'static str,
    /// Brings it about; the argument is the folder with `disco` and `discod`.
    pub run: fn(&Path) -> Result<Vec<Outcome>, ScenarioError>,
}

/// Measures every node of the cluster for so long, all at once; `name` says the phase and a note.
fn each_node(
    cluster: &Cluster,
    status: &Status,
    window: Duration,
    name: impl Fn(&Node) -> (&'static str, String),
) -> Result<Vec<Outcome>, ScenarioError> {
    let mut samplers = Vec::new();
    for node in &status.nodes {
        samplers.push((node, Sampler::start(cluster.process_of(node)?)));
    }
    thread::sleep(window);
    let outcome = |(node, sampler): (&Node, Sampler)| {
        let (phase, note) = name(node);
        Outcome { phase, who: node.instance.clone().unwrap_or_default(), measured: Measured::of(&sampler.finish()), note }
    };
    Ok(samplers.into_iter().map(outcome).collect())
}

fn spoilt(doing: &str, path: &Path, error: &io::Error) -> ScenarioError {
    ScenarioError::Spoilt(format!("cannot {doing} {}: {error}", path.display()))
}

/// How often work is repeated that must leave nothing behind: few times in CI, many in `scripts/soak`.
fn repeated(variable: &str, in_ci: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(in_ci)
}

/// What stays of anonymous memory: the smallest of a second's samples, not what work in flight takes. Only of those with all
/// its processes: a script executor that is just being replaced is no memory given back. Not the footprint: how much code is
/// mapped hangs on what ran in the last second, and it cannot grow past the program.
fn lowest(pid: u32) -> Result<u64, ScenarioError> {
    let sampler = Sampler::start(pid);
    thread::sleep(Duration::from_secs(1));
    let samples = sampler.finish();
    let whole = samples.iter().map(|sample| sample.processes).max();
    let whole = samples.iter().filter(|sample| Some(sample.processes) == whole);
    whole.map(|sample| sample.anonymous).min().ok_or_else(|| ScenarioError::Spoilt(format!("process {pid} is gone")))
}

/// What equal pieces of work left behind each, by looks before, between and after them: the smallest. What leaks does so each
/// time. A log that was cut longer ago, or a heap that was in more pieces for once, is larger one time only.
fn growth(looks: &[u64]) -> u64 {
    looks.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min().unwrap_or_default()
}

/// A node that was asked gives memory back 10 s after the last request, and a request that came meanwhile is noticed only then.
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(22);

/// All of what was measured while work was repeated, but its median of the last seconds, at rest: over all of it, that would hang
/// on how often the work was repeated.
fn with_rest(samples: &[Sample]) -> Measured {
    let at_rest = samples.len().saturating_sub((REST.as_millis() / INTERVAL.as_millis()) as usize);
    let rested = Measured::of(&samples[at_rest..]);
    Measured { footprint_median: rested.footprint_median, anonymous_median: rested.anonymous_median, ..Measured::of(samples) }
}

/// A script that has nothing to do is gone after 5 s (limits.rs, SCRIPT_IDLE_MS).
const RESTS_WITHIN: Duration = Duration::from_secs(30);
/// Samples that outnumber those of a start, or of an election.
const REST: Duration = Duration::from_secs(5);

/// Waits until no node has a script running, and some seconds more. Work that is measured from rest to rest has a middle
/// sample that does not hang on how many were taken while it went on.
fn at_rest(cluster: &Cluster) -> Result<(), ScenarioError> {
    for (who, pid) in cluster.processes() {
        let alone = Sampler::start(pid).wait_for(RESTS_WITHIN, |sample| sample.processes == 1);
        alone.ok_or_else(|| ScenarioError::Spoilt(format!("{who} does not come to rest within {} s", RESTS_WITHIN.as_secs())))?;
    }
    thread::sleep(REST);
    Ok(())
}

/// Measures every process of the cluster while it grows to so many nodes and comes to rest.
fn while_scaling(cluster: &Cluster, nodes: usize) -> Result<Vec<(String, u32, Measured)>, ScenarioError> {
    let (scaled, seen) = watch::during(&cluster.dir(), || {
        cluster.disco(&["scale", &nodes.to_string()])?;
        cluster.wait_for("as many ready nodes as wanted", |status| status.has_ready(nodes))?;
        at_rest(cluster)
    });
    scaled?;
    Ok(seen)
}

/// Those that run anywhere, and without being named.
pub const USUAL: usize = ALL.len() - 1;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario { name: "idle", run: idle::run },
    Scenario { name: "executor", run: executor::run },
    Scenario { name: "load", run: under_load::run },
    Scenario { name: "leader-changes", run: leader_changes::run },
    Scenario { name: "tasks", run: tasks::run },
    Scenario { name: "nine", run: nine_nodes::run },
    Scenario { name: "launches", run: launches::run },
    Scenario { name: "snapshot", run: snapshot::run },
    Scenario { name: "hooks", run: hooks::run },
    Scenario { name: "deploys", run: deploys::run },
    Scenario { name: "joins", run: joins::run },
    Scenario { name: "requests", run: requests::run },
    // The last: it needs control groups of its own.
    Scenario { name: "capped", run: capped::run },
];

/// All phases that the scenarios measure: each needs a budget.
pub const PHASES: &[&str] = &[
    idle::BOOTSTRAP,
    idle::FOLLOWER,
    idle::LEADER,
    executor::PHASE,
    under_load::LOADED,
    under_load::AFTER,
    leader_changes::CHANGING,
    leader_changes::AFTER,
    tasks::PHASE,
    nine_nodes::LAUNCHING,
    nine_nodes::LEADER,
    nine_nodes::OTHER,
    launches::PHASE,
    snapshot::SENT,
    snapshot::TAKEN,
    snapshot::AFTER,
    hooks::STEADY,
    hooks::PHASE,
    hooks::AFTER,
    deploys::PHASE,
    joins::PHASE,
    requests::PHASE,
    capped::PHASE,
];

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn what_is_left_each_time_is_growth_and_what_is_left_once_is_not() {
        for (looks, expected) in [([100, 130, 160], 30), ([100, 190, 195], 5), ([100, 100, 190], 0), ([100, 80, 140], 0)] {
            assert_eq!(growth(&looks), expected, "{looks:?}");
        }
    }
}
