//! A cluster that grows from three nodes to nine, and its leader once a hundred tasks run there.

use super::{Outcome, ScenarioError, at_rest, each_node, while_scaling};
use crate::cluster::{Cluster, Node};
use std::{path::Path, thread, time::Duration};

pub(super) const LAUNCHING: &str = "launching-six-nodes";
pub(super) const LEADER: &str = "leader-of-nine";
pub(super) const OTHER: &str = "one-of-nine";

const NODES: usize = 9;
const TASKS: usize = 100;
/// The deploy ends, and memory is given back 10 s after its last request.
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(10);

const SLEEPERS_JS: &str = r#"
export function configure(cluster) {
    cluster.service("sleepers", { command: ["sleep", "1000000"], replicas: 100, ports: [8080], health: { grace: "100ms" } });
}
"#;

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    at_rest(&cluster)?;
    let launching = while_scaling(&cluster, NODES)?;
    let launched = |(who, _, measured)| Outcome { phase: LAUNCHING, who, measured, note: String::new() };
    let mut outcomes: Vec<Outcome> = launching.into_iter().map(launched).collect();

    cluster.apply(SLEEPERS_JS)?;
    let spread = cluster.wait_for("a hundred running tasks", |status| {
        let running = status.services.iter().flat_map(|s| &s.tasks).filter(|t| t.state == "running").count();
        status.has_ready(NODES) && running == TASKS
    })?;
    thread::sleep(SETTLE);
    let name = |node: &Node| (if node.leader { LEADER } else { OTHER }, node.role.clone());
    outcomes.extend(each_node(&cluster, &spread, WINDOW, name)?);
    if cluster.status()?.leader != spread.leader {
        return Err(ScenarioError::Spoilt("the leader changed while it was measured".to_owned()));
    }
    Ok(outcomes)
}
