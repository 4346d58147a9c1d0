//! Idle follower and idle leader: what a node costs nearly all its life.

use super::{Outcome, ScenarioError};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{path::Path, thread, time::Duration};

pub(super) const FOLLOWER: &str = "idle-follower";
pub(super) const LEADER: &str = "idle-leader";

/// Bootstrapping ends, and memory is given back 10 s after its last request.
const SETTLE: Duration = Duration::from_secs(15);
/// Long enough that one hundredth of a second of CPU is a tenth of the budget.
const WINDOW: Duration = Duration::from_secs(15);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let status = cluster.status()?;
    thread::sleep(SETTLE);
    let mut samplers = Vec::new();
    for node in &status.nodes {
        samplers.push((node, Sampler::start(cluster.process_of(node)?)));
    }
    thread::sleep(WINDOW);
    let outcomes = samplers.into_iter().map(|(node, sampler)| Outcome {
        phase: if node.leader { LEADER } else { FOLLOWER },
        who: node.instance.clone().unwrap_or_default(),
        measured: Measured::of(&sampler.finish()),
        note: String::new(),
    });
    let outcomes: Vec<Outcome> = outcomes.collect();
    let after = cluster.status()?;
    if after.leader != status.leader || !after.is_whole() {
        return Err(ScenarioError::Spoilt(format!("the idle cluster did not stay as it was: {after:?}")));
    }
    Ok(outcomes)
}
