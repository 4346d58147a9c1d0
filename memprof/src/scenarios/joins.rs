//! Nodes join and leave, again and again: what they left behind on those that stay must not add up.

use super::{Outcome, ScenarioError, growth, lowest, repeated, with_rest};
use crate::{Sampler, cluster::Cluster};
use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(super) const PHASE: &str = "joins-and-leaves";

/// These and the first three are the ten launches that a cluster makes within an hour.
const JOINS_IN_CI: usize = 7;
/// The most that a cluster can be allowed within an hour is a thousand, these and the first three.
const JOINS_MAX: usize = 990;
/// Memory is given back 10 s after the last request, and each minute by those that nobody asks, as followers are while
/// others join; giving back takes 10 s.
const SETTLE: Duration = Duration::from_secs(75);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let cycles = repeated("DISCO_JOINS", JOINS_IN_CI).clamp(2, JOINS_MAX);
    if cycles > JOINS_IN_CI {
        // The brake on spending would hold this up.
        cluster.configure(&format!("max_launches_per_hour: {}", cycles + JOINS_IN_CI))?;
    }
    // Of many, by then all that is kept of a bounded number of nodes is full.
    let mark = cycles.div_ceil(4);
    let mut took = join_and_leave(&cluster, mark)?;
    let mut looks = vec![rest(&cluster)?];
    let samplers: Vec<(String, Sampler)> = cluster.processes().into_iter().map(|(who, pid)| (who, Sampler::start(pid))).collect();
    // Few leave nothing behind at all; of many, what stays twice (see `growth`).
    let left = cycles - mark;
    let pieces = if cycles > JOINS_IN_CI { vec![left / 2, left.div_ceil(2)] } else { vec![left] };
    for piece in pieces {
        took += join_and_leave(&cluster, piece)?;
        looks.push(rest(&cluster)?);
    }
    let mut outcomes = Vec::new();
    for (who, sampler) in samplers {
        let seen: Option<Vec<u64>> = looks.iter().map(|look| look.get(&sampler.pid()).copied()).collect();
        let mut measured = with_rest(&sampler.finish());
        // Else it left: the newest goes first, but the leader may have been the one that could not.
        let Some(seen) = seen else { continue };
        measured.growth = growth(&seen);
        let mb: Vec<String> = seen.iter().map(|bytes| format!("{:.3}", *bytes as f64 / 1e6)).collect();
        let (took, mb) = (took.as_secs_f64(), mb.join(", "));
        let note = format!("{cycles} nodes joined and left in {took:.0} s; {mb} MB at rest from the {mark}th on");
        outcomes.push(Outcome { phase: PHASE, who, measured, note });
    }
    if outcomes.is_empty() {
        return Err(ScenarioError::Spoilt("none of the first three nodes stayed".to_owned()));
    }
    Ok(outcomes)
}

/// So many nodes join and leave, one after the other; how long that took.
fn join_and_leave(cluster: &Cluster, cycles: usize) -> Result<Duration, ScenarioError> {
    let began = Instant::now();
    for _ in 0..cycles {
        cluster.disco(&["scale", "4"])?;
        cluster.wait_for("a fourth node", |status| status.has_ready(4))?;
        cluster.disco(&["scale", "3"])?;
        cluster.wait_for("three nodes again", |status| status.has_ready(3) && cluster.processes().len() == 3)?;
    }
    Ok(began.elapsed())
}

/// What each process keeps of anonymous memory once nothing is asked of it.
fn rest(cluster: &Cluster) -> Result<BTreeMap<u32, u64>, ScenarioError> {
    thread::sleep(SETTLE);
    cluster.processes().into_iter().map(|(_, pid)| Ok((pid, lowest(pid)?))).collect()
}
