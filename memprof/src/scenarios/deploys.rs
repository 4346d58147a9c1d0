//! Deploy after deploy: no process, no file and no memory may be left of the versions before.

use super::{GIVEN_BACK_AFTER, Outcome, ScenarioError, lowest, repeated, with_rest};
use crate::{Sampler, cluster::Cluster};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

pub(super) const PHASE: &str = "deploys";

const COPIES: usize = 3;
/// By then everything that the state keeps a bounded number of (events, answers, the log) is full.
const FULL_AFTER: usize = 260;
/// The log grows until it is cut: of two looks so many deploys apart the lower one counts, before and after.
const LOOKS_APART: usize = 30;
/// What a node keeps of tasks that are gone (limits.rs, TASK_LOGS_KEPT), and its own few files.
const FILES_MAX: usize = 16 * 3 + 32;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let cycles = repeated("DISCO_DEPLOYS", 360).max(FULL_AFTER + 2 * LOOKS_APART);
    let mark = FULL_AFTER;
    let nodes: Vec<(String, u32)> = cluster.processes();
    let began = Instant::now();
    let mut deployed = 0;
    let mut until = |cycles: usize| -> Result<Vec<u64>, ScenarioError> {
        for cycle in deployed + 1..=cycles {
            cluster.apply(&declared(cycle))?;
        }
        deployed = cycles;
        // Before anything is asked again: what a request needs is no growth.
        thread::sleep(GIVEN_BACK_AFTER);
        nodes.iter().map(|(_, pid)| lowest(*pid)).collect()
    };
    let lower = |one: Vec<u64>, other: Vec<u64>| one.into_iter().zip(other).map(|(one, other)| one.min(other)).collect::<Vec<u64>>();
    let first = lower(until(mark)?, until(mark + LOOKS_APART)?);
    let samplers: Vec<Sampler> = nodes.iter().map(|(_, pid)| Sampler::start(*pid)).collect();
    let left = lower(until(cycles)?, until(cycles + LOOKS_APART)?);
    let took = began.elapsed();
    let status = cluster.wait_for("the last version alone", |status| {
        let running = status.services.iter().flat_map(|s| &s.tasks).count();
        status.is_whole() && running == COPIES
    })?;
    let tasks: Vec<u32> = status.services.iter().flat_map(|s| &s.tasks).map(|t| t.pid).collect();
    nothing_stray(&cluster, &tasks)?;
    let mut outcomes = Vec::new();
    for (((who, _), sampler), (first, last)) in nodes.into_iter().zip(samplers).zip(first.into_iter().zip(left)) {
        let mut measured = with_rest(&sampler.finish());
        measured.growth = last.saturating_sub(first);
        let note = format!("{deployed} deploys in {:.0} s; growth from the {mark}th on", took.as_secs_f64());
        outcomes.push(Outcome { phase: PHASE, who, measured, note });
    }
    Ok(outcomes)
}

fn declared(cycle: usize) -> String {
    format!(
        r#"
export function configure(cluster) {{
    cluster.service("web", {{
        command: ["sleep", "1000000"], env: {{ CYCLE: "{cycle}" }}, replicas: {COPIES}, ports: [8080],
        health: {{ grace: "10ms" }}, stop: {{ timeout: "2s" }}, update: {{ parallel: 3 }},
    }});
}}
"#
    )
}

/// What runs from this cluster's tasks, and what lies in its nodes' folders, is what belongs to the last version.
fn nothing_stray(cluster: &Cluster, tasks: &[u32]) -> Result<(), ScenarioError> {
    let stray: Vec<u32> = cluster.task_processes().into_iter().filter(|pid| !tasks.contains(pid)).collect();
    if !stray.is_empty() {
        return Err(ScenarioError::Spoilt(format!("processes of earlier versions still run: {stray:?}")));
    }
    for (instance, _) in cluster.processes() {
        let folder = cluster.dir().join(".disco/instances").join(&instance);
        let files = count_files(&folder);
        if files > FILES_MAX {
            return Err(ScenarioError::Spoilt(format!("{files} files lie in the folder of {instance}, at most {FILES_MAX} belong there")));
        }
    }
    Ok(())
}

fn count_files(folder: &PathBuf) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { count_files(&entry.path()) } else { 1 }).sum()
}
