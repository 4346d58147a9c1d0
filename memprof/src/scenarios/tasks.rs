//! Sixty small programs on three nodes, twenty on each: no process of ours more, and little memory.

use super::{Outcome, ScenarioError, each_node};
use crate::cluster::Cluster;
use std::{path::Path, thread, time::Duration};

pub(super) const PHASE: &str = "node-with-20-tasks";

const ON_EACH: usize = 20;
/// The deploy ends, and memory is given back 10 s after its last request.
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(10);

const SLEEPERS_JS: &str = r#"
export function configure(cluster) {
    cluster.service("sleepers", { command: ["sleep", "1000000"], replicas: 60, ports: [8080], health: { grace: "100ms" } });
}
"#;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    cluster.apply(SLEEPERS_JS)?;
    let spread = cluster.wait_for("sixty running tasks, twenty on each node", |status| {
        let on = |node: &str| status.services.iter().flat_map(|s| &s.tasks).filter(|t| t.node == node && t.state == "running").count();
        status.is_whole() && status.nodes.iter().all(|node| on(&node.id) == ON_EACH)
    })?;
    thread::sleep(SETTLE);
    each_node(&cluster, &spread, WINDOW, |node| (PHASE, if node.leader { "leads".to_owned() } else { String::new() }))
}
