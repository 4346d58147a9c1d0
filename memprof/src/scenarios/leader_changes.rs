//! Five leaders die, one after the other, and are started again: elections and repair must not add up.

use super::{Outcome, ScenarioError, at_rest, each_node};
use crate::{cluster::Cluster, watch};
use std::{path::Path, thread, time::Duration};

pub(super) const CHANGING: &str = "leader-changes";
pub(super) const AFTER: &str = "after-leader-changes";

const CHANGES: usize = 5;
/// Memory is given back 10 s after the last request, and each minute by those that nobody asks, as the last of the leaders;
/// giving back takes 10 s.
const SETTLE: Duration = Duration::from_secs(75);
const WINDOW: Duration = Duration::from_secs(5);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    // What the bootstrap left running is no part of this.
    at_rest(&cluster)?;
    let (changed, changing) = watch::during(&cluster.dir(), || {
        at_rest(&cluster)?;
        (0..CHANGES).try_for_each(|_| change(&cluster))
    });
    changed?;
    let changing = changing.into_iter().map(|(who, _, measured)| Outcome { phase: CHANGING, who, measured, note: String::new() });
    let mut outcomes: Vec<Outcome> = changing.collect();

    thread::sleep(SETTLE);
    outcomes.extend(each_node(&cluster, &cluster.status()?, WINDOW, |_| (AFTER, format!("{CHANGES} leaders killed")))?);
    Ok(outcomes)
}

/// From rest to rest, so that the middle of a process's samples is not that of the moment in which it died.
fn change(cluster: &Cluster) -> Result<(), ScenarioError> {
    let leader = cluster.leader()?;
    let killed = cluster.process_of(&leader)?;
    cluster.kill(killed);
    cluster.wait_for("another leader and the killed node's return", |now| {
        let repaired = cluster.processes().iter().all(|(_, pid)| *pid != killed);
        now.is_whole() && now.leader.as_ref() != Some(&leader.id) && repaired
    })?;
    at_rest(cluster)
}
