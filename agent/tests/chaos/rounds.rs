//! A round: something goes wrong under writers, ends, and everything is looked at. And what all rounds came to.

use crate::{
    cluster::Cluster,
    faults::Plan,
    writers::{Told, Writers},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What one round showed.
pub struct Seen {
    pub told: Told,
    pub healthy_after: Duration,
}

/// Strikes, lets it last, heals, and looks.
///
/// # Errors
/// What was promised and is not so.
pub fn play(plan: &Plan, cluster: &mut Cluster, writers: &Writers) -> Result<(String, Seen), String> {
    let leader = cluster.leader();
    let before = cluster.copies();
    writers.go_on();
    let whom = plan.strike(cluster, leader);
    outlast(plan.lasts);
    cluster.heal();
    let seen = look(cluster, writers)?;
    let after = cluster.copies();
    if plan.leaves_tasks() && after != before {
        return Err(format!("tasks did not stay as they were: processes {before:?} became {after:?}"));
    }
    Ok((whom, seen))
}

/// Lets the writers write meanwhile.
pub fn outlast(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// After the heal: healthy in time, nothing lost, one state everywhere, and each task once.
///
/// # Errors
/// What is not so.
pub fn look(cluster: &Cluster, writers: &Writers) -> Result<Seen, String> {
    let healthy_after = cluster.until_healthy()?;
    let told = writers.rest()?;
    cluster.agree()?;
    cluster.until_each_task_runs_once()?;
    // One door is enough: the digests are equal.
    writers.compare(cluster.leader())?;
    Ok(Seen { told, healthy_after })
}

/// What many rounds came to.
pub struct Summary {
    began: Instant,
    kinds: BTreeMap<&'static str, u64>,
    acknowledged: u64,
    /// Only where a majority was never apart.
    pauses: Vec<Duration>,
    healthy: Vec<Duration>,
}

impl Summary {
    pub fn new() -> Summary {
        Summary { began: Instant::now(), kinds: BTreeMap::new(), acknowledged: 0, pauses: Vec::new(), healthy: Vec::new() }
    }

    pub fn add(&mut self, plan: &Plan, managers: usize, seen: &Seen) {
        for kind in plan.kinds() {
            *self.kinds.entry(kind.name()).or_default() += 1;
        }
        self.acknowledged += seen.told.acknowledged;
        self.healthy.push(seen.healthy_after);
        if plan.leaves_a_majority(managers) {
            self.pauses.push(seen.told.pause);
        }
    }

    pub fn rounds(&self) -> usize {
        self.healthy.len()
    }

    pub fn print(&self) {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!();
        println!("rounds           {} in {:.0} s", self.rounds(), self.began.elapsed().as_secs_f64());
        println!("kinds            {}", kinds.join(", "));
        println!("writes           {} acknowledged, 0 lost", self.acknowledged);
        println!("longest pause    {} (a majority being there)", tell(&self.pauses));
        println!("time to healthy  {}", tell(&self.healthy));
    }
}

fn tell(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |part: usize| sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default();
    format!("p50 {:.2} s, p90 {:.2} s, max {:.2} s", at(50).as_secs_f64(), at(90).as_secs_f64(), at(100).as_secs_f64())
}
