//! The leader under 32 mTLS connections and 1,000 requests a second, one in ten a write, and what it gives back.

use super::{GIVEN_BACK_AFTER, Outcome, ScenarioError, repeated};
use crate::{
    Measured, Sampler,
    cluster::{Cluster, Node},
    load::{self, Plan, Report},
};
use std::{path::Path, thread, time::Duration};

pub(super) const LOADED: &str = "leader-under-load";
pub(super) const AFTER: &str = "leader-after-load";

pub(super) const PLAN: Plan = Plan { connections: 32, requests_per_second: 1_000, one_write_in: 10, value_bytes: 64, seconds: 15 };
/// With the time to give back this ends within the 30 s that are promised.
const STAYS_FOR: Duration = Duration::from_secs(5);
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

    thread::sleep(GIVEN_BACK_AFTER);
    let sampler = Sampler::start(pid);
    thread::sleep(STAYS_FOR);
    let note = format!("{} s after", GIVEN_BACK_AFTER.as_secs());
    let after = Outcome { phase: AFTER, who, measured: Measured::of(&sampler.finish()), note };
    Ok(vec![loaded, after])
}
