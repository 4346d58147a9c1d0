//! Request after request for a while, then as many again, and again: the leader must be no larger for it.

use super::{GIVEN_BACK_AFTER, Outcome, ScenarioError, growth, lowest, repeated, under_load};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{path::Path, thread};

pub(super) const PHASE: &str = "requests";

/// Loads before the first look. Each has 32 connections, which are clients of their own: after these the state keeps as many as
/// it ever will (limits.rs, CLIENTS_MAX: 256), each key was written, and as many requests have waited at once as ever will.
const WARM_LOADS: u32 = 8;
const WARM_SECONDS: u32 = 4;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let leader = cluster.leader()?;
    let pid = cluster.process_of(&leader)?;
    let seconds = u32::try_from(repeated("DISCO_REQUESTS_SECONDS", 60)).unwrap_or(u32::MAX);

    for _ in 0..WARM_LOADS {
        under_load::ask(&cluster, &leader, &under_load::plan(WARM_SECONDS))?;
    }
    let rest = || {
        thread::sleep(GIVEN_BACK_AFTER);
        lowest(pid)
    };
    let first = rest()?;
    let sampler = Sampler::start(pid);
    under_load::ask(&cluster, &leader, &under_load::plan(seconds.div_ceil(2)))?;
    let middle = rest()?;
    let report = under_load::ask(&cluster, &leader, &under_load::plan(seconds.div_ceil(2)))?;
    let mut measured = Measured::of(&sampler.finish());
    let last = rest()?;
    measured.growth = growth(&[first, middle, last]);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let note = format!("{report}, the second time; {:.3} MB before, {:.3} MB after, {:.3} MB between", mb(first), mb(last), mb(middle));
    Ok(vec![Outcome { phase: PHASE, who: leader.instance.clone().unwrap_or_default(), measured, note }])
}
