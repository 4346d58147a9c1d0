//! Nodes join and leave, again and again: what they left behind on those that stay must not add up.

use super::{Outcome, ScenarioError, lowest, repeated};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{
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
    let mark = cycles.div_ceil(4);
    let mut samplers: Vec<(String, Sampler, u64)> = Vec::new();
    let began = Instant::now();
    let mut resting = Duration::ZERO;
    for cycle in 1..=cycles {
        cluster.disco(&["scale", "4"])?;
        cluster.wait_for("a fourth node", |status| status.has_ready(4))?;
        cluster.disco(&["scale", "3"])?;
        cluster.wait_for("three nodes again", |status| status.has_ready(3) && cluster.processes().len() == 3)?;
        if cycle == mark {
            thread::sleep(SETTLE);
            for (who, pid) in cluster.processes() {
                samplers.push((who, Sampler::start(pid), lowest(pid)?));
            }
            resting = SETTLE;
        }
    }
    let took = (began.elapsed() - resting).as_secs_f64();
    thread::sleep(SETTLE);
    let mut outcomes = Vec::new();
    for (who, sampler, first) in samplers {
        if !cluster.processes().iter().any(|(_, pid)| *pid == sampler.pid()) {
            // It left: the newest goes first, but the leader may have been the one that could not.
            continue;
        }
        let last = lowest(sampler.pid())?;
        let mut measured = Measured::of(&sampler.finish());
        measured.growth = last.saturating_sub(first);
        let note = format!("{cycles} nodes joined and left in {took:.0} s; growth from the {mark}th on");
        outcomes.push(Outcome { phase: PHASE, who, measured, note });
    }
    if outcomes.is_empty() {
        return Err(ScenarioError::Spoilt("none of the first three nodes stayed".to_owned()));
    }
    Ok(outcomes)
}
