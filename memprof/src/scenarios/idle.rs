//! From nothing to three nodes, then idle follower and idle leader: what a node costs nearly all its life.

use super::{Outcome, ScenarioError, at_rest, each_node};
use crate::{
    cluster::{Cluster, Node, Status},
    watch,
};
use std::{path::Path, thread, time::Duration};

pub(super) const BOOTSTRAP: &str = "bootstrap";
pub(super) const FOLLOWER: &str = "idle-follower";
pub(super) const LEADER: &str = "idle-leader";

/// Bootstrapping ends, and memory is given back 10 s after its last request.
const SETTLE: Duration = Duration::from_secs(15);
/// Long enough that one hundredth of a second of CPU is a tenth of the budget.
const WINDOW: Duration = Duration::from_secs(15);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::init(bin_dir)?;
    let (status, starting) = watch::during(&cluster.dir(), || {
        cluster.disco(&["bootstrap", "--yes"])?;
        let status = cluster.wait_for("three ready managers", Status::is_whole)?;
        at_rest(&cluster).map(|()| status)
    });
    let status = status?;
    let bootstrap = |(who, _, measured)| Outcome { phase: BOOTSTRAP, who, measured, note: String::new() };
    let mut outcomes: Vec<Outcome> = starting.into_iter().map(bootstrap).collect();
    thread::sleep(SETTLE);
    let name = |node: &Node| (if node.leader { LEADER } else { FOLLOWER }, String::new());
    outcomes.extend(each_node(&cluster, &status, WINDOW, name)?);
    let after = cluster.status()?;
    if after.leader != status.leader || !after.is_whole() {
        return Err(ScenarioError::Spoilt(format!("the idle cluster did not stay as it was: {after:?}")));
    }
    Ok(outcomes)
}
