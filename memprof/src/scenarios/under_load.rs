//! The leader under 32 mTLS connections and 1,000 requests a second, one in ten a write, and what it gives back.

use super::{Outcome, ScenarioError, repeated};
use crate::{
    Measured, Sampler,
    cluster::{Cluster, Node},
    load::{self, Plan, Report},
    sampler::INTERVAL,
    verdict::Budgets,
};
use std::{path::Path, thread, time::Duration};

pub(super) const LOADED: &str = "leader-under-load";
pub(super) const AFTER: &str = "leader-after-load";

pub(super) const PLAN: Plan = Plan { connections: 32, requests_per_second: 1_000, one_write_in: 10, value_bytes: 64, seconds: 15 };
/// The promise: back under the usual budget within this.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(30);
/// Less than this share of the planned rate is no load to measure under.
const RATE_MIN: f64 = 0.9;

/// The load, with the rate that this machine is asked for: an emulated one cannot do what a real one can.
pub(super) fn plan(seconds: u32) -> Plan {
    let per_second = repeated("DISCO_REQUESTS_PER_SECOND", PLAN.requests_per_second as usize);
    Plan { requests_per_second: u32::try_from(per_second).unwrap_or(u32::MAX), seconds, ..PLAN }
}

/// Asks the leader as planned; less than that is no load to measure under.
pub(super) fn ask(cluster: &Cluster, leader: &Node, plan: &Plan) -> Result<Report, ScenarioError> {
    let [ca, certificate, key] = cluster.admin_files()?;
    let report = load::run(&leader.address, &load::Identity { ca, certificate, key }, plan)?;
    if cluster.leader()?.id != leader.id {
        return Err(ScenarioError::Spoilt("the leader changed under load".to_owned()));
    }
    if report.rate() < RATE_MIN * f64::from(plan.requests_per_second) || report.refused > 0 {
        return Err(ScenarioError::Spoilt(format!("the load did not come about: {report}")));
    }
    Ok(report)
}

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let leader = cluster.leader()?;
    let who = leader.instance.clone().unwrap_or_default();
    let pid = cluster.process_of(&leader)?;

    let sampler = Sampler::start(pid);
    let report = ask(&cluster, &leader, &plan(PLAN.seconds))?;
    let measured = Measured::of(&sampler.finish());
    let loaded = Outcome { phase: LOADED, who: who.clone(), measured, note: report.to_string() };

    let budget = Budgets::shipped().of(AFTER).ok().and_then(|budget| budget.footprint_max).unwrap_or(u64::MAX);
    let sampler = Sampler::start(pid);
    let back = sampler.wait_for(GIVES_BACK_WITHIN, |sample| sample.footprint <= budget);
    let note = match &back {
        Some((_, took)) => format!("under its budget after {:.1} s", took.as_secs_f64()),
        None => format!("not under its budget within {} s", GIVES_BACK_WITHIN.as_secs()),
    };
    // A dip is not a return: it has to stay there.
    thread::sleep(20 * INTERVAL);
    let samples = sampler.finish();
    let from = back.map(|(sample, _)| sample.at).or(samples.last().map(|sample| sample.at)).unwrap_or_default();
    let stayed: Vec<_> = samples.into_iter().filter(|sample| sample.at >= from).collect();
    let after = Outcome { phase: AFTER, who, measured: Measured::of(&stayed), note };
    Ok(vec![loaded, after])
}
