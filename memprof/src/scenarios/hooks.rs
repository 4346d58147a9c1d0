//! The leader while its script runs now and then, while it runs call after call, and once it has nothing to do.

use super::{Outcome, ScenarioError, growth, lowest, repeated};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(super) const STEADY: &str = "leader-with-script";
pub(super) const PHASE: &str = "ten-thousand-hooks";
pub(super) const AFTER: &str = "leader-after-script";

/// Functions that one changed key calls.
const AT_ONCE: usize = 50;
/// By then caches and free lists are full, and so is what the state keeps a bounded number of: each `disco kv set` is a client
/// of its own, of which 256 are kept (limits.rs, CLIENTS_MAX).
const WARM_CALLS: usize = 13_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// The executor idles out, and memory is given back 10 s after the last request.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(30);

/// Five times a second: the executor never rests, and never goes.
const STEADY_JS: &str = r#"
export function configure(cluster) {
    every("200ms", async () => {
        const seen = [];
        for (let n = 0; n < 200; n++) seen.push({ n, text: `entry ${n}` });
        const before = Number((await cluster.key("ticks").get()) ?? 0);
        await cluster.key("ticks").set(String(before + 1));
    });
}
"#;
const STEADY_FOR: Duration = Duration::from_secs(15);

/// Each call makes some objects, reads and (the last one) writes the cluster's state.
const HOOKS_JS: &str = r#"
export function configure(cluster) {
    for (let i = 0; i < 50; i++)
        cluster.key("tick").on("change", async (value) => {
            const seen = [];
            for (let n = 0; n < 200; n++) seen.push({ n, text: `entry ${n} of ${value}` });
            if (seen.length !== 200) throw new Error("what was pushed is not there");
            if (i === 49) await cluster.key("done").set(value);
        });
}
"#;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    let leader = cluster.leader()?;
    let who = leader.instance.clone().unwrap_or_default();
    let pid = cluster.process_of(&leader)?;

    cluster.apply(STEADY_JS)?;
    wait_for_key(&cluster, "ticks", |ticks| ticks.parse::<u32>().is_ok_and(|ticks| ticks >= 5))?;
    let sampler = Sampler::start(pid);
    thread::sleep(STEADY_FOR);
    let measured = Measured::of(&sampler.finish());
    if measured.processes < 2 {
        return Err(ScenarioError::Spoilt("the script did not run while it was measured".to_owned()));
    }
    let steady = Outcome { phase: STEADY, who: who.clone(), measured, note: "five calls a second".to_owned() };

    cluster.apply(HOOKS_JS)?;
    let measured_calls = repeated("DISCO_HOOK_CALLS", 10_000);
    // Where few are asked for (a virtual machine has a fifth of a core), it is the peak that counts.
    let mark = WARM_CALLS.min(2 * measured_calls).div_ceil(AT_ONCE);
    let each = measured_calls.div_ceil(AT_ONCE);
    let rounds = mark + 2 * each;
    let sampler = Sampler::start(pid);
    let (mut first, mut middle) = (0, 0);
    let began = Instant::now();
    for round in 1..=rounds {
        let value = round.to_string();
        cluster.disco(&["kv", "set", "tick", &value])?;
        wait_for_key(&cluster, "done", |done| done == value)?;
        if round == mark {
            first = lowest(pid)?;
        } else if round == mark + each {
            middle = lowest(pid)?;
        }
    }
    let took = began.elapsed();
    let last = lowest(pid)?;
    let mut measured = Measured::of(&sampler.finish());
    measured.growth = growth(&[first, middle, last]);
    if cluster.leader()?.id != leader.id {
        return Err(ScenarioError::Spoilt("the leader changed while its script ran".to_owned()));
    }
    let calls = rounds * AT_ONCE;
    let note =
        format!("{calls} calls in {:.1} s; growth over {} from call {} on, twice", took.as_secs_f64(), each * AT_ONCE, mark * AT_ONCE);
    let running = Outcome { phase: PHASE, who: who.clone(), measured, note };

    let sampler = Sampler::start(pid);
    let alone = sampler.wait_for(GIVES_BACK_WITHIN, |sample| sample.processes == 1);
    let Some((_, idle)) = alone else {
        return Err(ScenarioError::Spoilt(format!("the executor was still there after {} s", GIVES_BACK_WITHIN.as_secs())));
    };
    thread::sleep(GIVES_BACK_WITHIN / 2);
    drop(sampler);
    let sampler = Sampler::start(pid);
    thread::sleep(Duration::from_secs(3));
    let note = format!("the executor was gone after {:.1} s", idle.as_secs_f64());
    Ok(vec![steady, running, Outcome { phase: AFTER, who, measured: Measured::of(&sampler.finish()), note }])
}

fn wait_for_key(cluster: &Cluster, key: &str, wanted: impl Fn(&str) -> bool) -> Result<(), ScenarioError> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Before its first time the key is not there, and `kv get` says so by its exit code.
        let seen = cluster.disco(&["kv", "get", key]).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        match seen {
            Ok(seen) if wanted(&seen) => return Ok(()),
            seen if Instant::now() > until => {
                return Err(ScenarioError::Spoilt(format!("key {key} is not as wanted after {} s: {seen:?}", PATIENCE.as_secs())));
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}
