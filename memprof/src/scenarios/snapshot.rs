//! A follower is away while more is written than the log keeps, and comes back: it is given the state as a whole.
//!
//! The state is nearly as large as keys may make it, so this is about the most that a snapshot costs either side.

use super::{Outcome, ScenarioError};
use crate::{
    cluster::{Cluster, Status},
    load::{self, Plan},
    watch,
};
use std::{path::Path, thread, time::Duration};

pub(super) const SENT: &str = "snapshot-sent";
pub(super) const TAKEN: &str = "snapshot-taken";
pub(super) const AFTER: &str = "after-snapshot";

/// 64 keys of 14 KB: 0.9 MB of state (limits.rs, KV_BYTES_MAX, is 1 MiB), written about six times over: 5.7 MB of log.
const PLAN: Plan = Plan { connections: 4, requests_per_second: 40, one_write_in: 1, value_bytes: 14_000, seconds: 10 };
/// Memory is given back 10 s after the last request, and so is the log that nobody needs.
const SETTLE: Duration = Duration::from_secs(20);
/// From its being ready on: what is in flight then is still part of the peak.
const LINGER: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(5);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let status = cluster.status()?;
    let leader = cluster.leader()?;
    let away = status.nodes.iter().find(|node| !node.leader).expect("three nodes, one of them leads");
    let instance = away.instance.clone().unwrap_or_default();
    cluster.disco(&["instance", "stop", &instance])?;
    cluster.wait_for("the follower's being away", |now| now.nodes.iter().any(|node| node.id == away.id && node.state == "lost"))?;

    let [ca, certificate, key] = cluster.admin_files()?;
    let report = load::run(&leader.address, &load::Identity { ca, certificate, key }, &PLAN)?;
    if report.refused > 0 {
        return Err(ScenarioError::Spoilt(format!("not all was written: {report}")));
    }
    thread::sleep(SETTLE);
    let snapshots_before = snapshots(&cluster.log_of(&instance)?);
    let (back, seen) = watch::during(&cluster.dir(), || {
        cluster.disco(&["instance", "start", &instance])?;
        let back = cluster.wait_for("the follower's return", Status::is_whole);
        thread::sleep(LINGER);
        back
    });
    if back?.leader.as_ref() != Some(&leader.id) {
        return Err(ScenarioError::Spoilt("the leader changed".to_owned()));
    }
    let told = snapshots(&cluster.log_of(&instance)?);
    let Some(snapshot) = told.get(snapshots_before.len()) else {
        return Err(ScenarioError::Spoilt("the follower came back without a snapshot".to_owned()));
    };
    let sides = [(SENT, leader.instance.as_deref().unwrap_or_default()), (TAKEN, &instance)];
    let mut outcomes = Vec::new();
    for (who, _, measured) in seen {
        if let Some((phase, _)) = sides.iter().find(|(_, instance)| *instance == who) {
            outcomes.push(Outcome { phase, who, measured, note: snapshot.clone() });
        }
    }

    thread::sleep(SETTLE);
    let ((), after) = watch::during(&cluster.dir(), || thread::sleep(WINDOW));
    let note = format!("{} s later", (SETTLE + LINGER).as_secs());
    outcomes.extend(after.into_iter().map(|(who, _, measured)| Outcome { phase: AFTER, who, measured, note: note.clone() }));
    Ok(outcomes)
}

/// What a node's log says of snapshots that it took.
fn snapshots(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.find("took over the state").map(|at| line[at..].to_owned()));
    lines.collect()
}
