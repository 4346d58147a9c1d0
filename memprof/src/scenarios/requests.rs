//! Request after request for a while, then as many again: the leader must be no larger for it.

use super::{Outcome, ScenarioError, lowest, repeated, under_load};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{path::Path, thread, time::Duration};

pub(super) const PHASE: &str = "requests";

/// By then each key was written, each client is known, and as many requests as will ever wait at once have waited: what stays
/// lies where it found room among those, and after less the second time found a busier moment than the first.
const WARM_SECONDS: u32 = 30;
/// Memory is given back 10 s after the last request, and a request that came meanwhile is noticed only then.
const SETTLE: Duration = Duration::from_secs(22);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let leader = cluster.leader()?;
    let pid = cluster.process_of(&leader)?;
    let seconds = u32::try_from(repeated("DISCO_REQUESTS_SECONDS", 30)).unwrap_or(u32::MAX);

    under_load::ask(&cluster, &leader, &under_load::plan(WARM_SECONDS))?;
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
