//! Five leaders die, one after the other, and are started again: elections and repair must not add up.

use super::{Outcome, ScenarioError};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{collections::BTreeMap, path::Path, thread, time::Duration};

pub(super) const CHANGING: &str = "leader-changes";
pub(super) const AFTER: &str = "after-leader-changes";

const CHANGES: usize = 5;
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(5);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let mut samplers: BTreeMap<u32, (String, Sampler)> = BTreeMap::new();
    for _ in 0..CHANGES {
        let status = cluster.wait_for("three ready managers", crate::cluster::Status::is_whole)?;
        for (who, pid) in cluster.processes() {
            samplers.entry(pid).or_insert_with(|| (who, Sampler::start(pid)));
        }
        let leader = status.leading().expect("a whole cluster has a leader").clone();
        let killed = cluster.process_of(&leader)?;
        cluster.kill(killed);
        cluster.wait_for("another leader and the killed node's return", |now| {
            let repaired = cluster.processes().iter().all(|(_, pid)| *pid != killed);
            now.is_whole() && now.leader.as_ref() != Some(&leader.id) && repaired
        })?;
    }
    let mut outcomes: Vec<Outcome> = samplers
        .into_values()
        .map(|(who, sampler)| Outcome { phase: CHANGING, who, measured: Measured::of(&sampler.finish()), note: String::new() })
        .collect();
    outcomes.retain(|outcome| outcome.measured.samples > 0);

    thread::sleep(SETTLE);
    let samplers: Vec<_> = cluster.processes().into_iter().map(|(who, pid)| (who, Sampler::start(pid))).collect();
    thread::sleep(WINDOW);
    outcomes.extend(samplers.into_iter().map(|(who, sampler)| Outcome {
        phase: AFTER,
        who,
        measured: Measured::of(&sampler.finish()),
        note: format!("{CHANGES} leaders killed"),
    }));
    Ok(outcomes)
}
