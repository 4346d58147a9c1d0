//! The leader of one, as released, while it launches three machines in the test cloud: a named peak, with a budget.
//! Needs the release build's folder in DISCO_BIN: `scripts/test aws` sees to it.

use crate::cloud::{Cloud, Project};
use memprof::{Budgets, Measured, Sampler};
use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn a_leader_that_launches_three_machines_stays_within_its_budget() {
    let bin = PathBuf::from(std::env::var_os("DISCO_BIN").expect("DISCO_BIN is the folder of the release build"));
    let cloud = Cloud::start();
    let project = Project::new(&cloud).with(&fs::canonicalize(bin.join("disco")).expect("disco was built"));
    project.write("client.js", &project.read("client.js").replace("scale(3)", "scale(1)"));
    project.ok(&["bootstrap", "--yes"]);
    let leader = Sampler::start(daemon());
    project.ok(&["scale", "4"]);
    let measured = Measured::of(&leader.finish());
    println!(
        "launching-machines: footprint {:.1} MB at most, median {:.1}, peak {:.1}; {} samples",
        mega(measured.footprint),
        mega(measured.footprint_median),
        mega(measured.peak),
        measured.samples
    );
    assert_eq!((project.ready(), project.possessions()[0]), (4, 4));
    let budgets = Budgets::shipped();
    let breaches = budgets.of("launching-machines").expect("it has a budget").judge("launching-machines", &measured);
    assert!(breaches.is_empty(), "{breaches:?}");
    project.ok(&["destroy", "--yes"]);
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The one discod that was installed on a machine, seen from outside; its executor runs under another name.
fn daemon() -> u32 {
    let installed = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words == b"/usr/local/bin/discod\0--config\0/etc/disco/disco.toml\0"
    };
    let all = fs::read_dir(Path::new("/proc")).expect("proc(5)").flatten();
    let found: Vec<u32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(installed).collect();
    assert_eq!(found.len(), 1, "one machine runs one: {found:?}");
    found[0]
}
