//! Request after request for a while, then as many again: the leader must be no larger for it.

use super::{Outcome, ScenarioError, lowest, repeated, under_load};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{path::Path, thread, time::Duration};

pub(super) const PHASE: &str = "requests";

/// Loads before the first look. Each has 32 connections, which are clients of their own: after these the state keeps as many as
/// it ever will (limits.rs, CLIENTS_MAX: 256), each key was written, and as many requests have waited at once as ever will.
const WARM_LOADS: u32 = 8;
const WARM_SECONDS: u32 = 4;
/// Memory is given back 10 s after the last request, and a request that came meanwhile is noticed only then.
const SETTLE: Duration = Duration::from_secs(22);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let leader = cluster.leader()?;
    let pid = cluster.process_of(&leader)?;
    let seconds = u32::try_from(repeated("DISCO_REQUESTS_SECONDS", 30)).unwrap_or(u32::MAX);

    for _ in 0..WARM_LOADS {
        under_load::ask(&cluster, &leader, &under_load::plan(WARM_SECONDS))?;
    }
    thread::sleep(SETTLE);
    let first = lowest(pid)?;
    let sampler = Sampler::start(pid);
    let report = under_load::ask(&cluster, &leader, &under_load::plan(seconds))?;
    let mut measured = Measured::of(&sampler.finish());
    thread::sleep(SETTLE);
    let last = lowest(pid)?;
    measured.growth = last.saturating_sub(first);
    let note = format!("{report}; {:.3} MB before, {:.3} MB after", first as f64 / 1e6, last as f64 / 1e6);
    Ok(vec![Outcome { phase: PHASE, who: leader.instance.clone().unwrap_or_default(), measured, note }])
}
