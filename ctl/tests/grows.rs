//! From one node to five and back with real processes: nobody says anything but `scale`, whatever dies on the way.

mod common;

use common::{Chance, Project, Writing, kill, text, wait_until};
use serde_json::Value;
use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

/// One node to begin with, and as many managers as it may become.
const INIT_JS: &str = "
export async function init() {
  return new Cluster({ name: 'grows', provider: await LocalProvider.init({ name: 'local' }), managers: 5 });
}";
const BOOTSTRAP_JS: &str = "
export async function bootstrap(cluster) {
  await cluster.start_instance();
  await cluster.attach_ip();
  await cluster.ssh_install();
}";
/// Tasks come and go with the nodes they are on.
const CONFIGURE_JS: &str = "
export function configure(cluster) { cluster.service('calm', { command: ['sleep', '1000000'], replicas: 'every-node' }); }";

/// As many ready nodes, all of them managers, each with an instance that runs; and nothing is amiss.
fn until_it_is(project: &Project, nodes: usize) {
    let is = || {
        let Some(status) = project.status() else { return false };
        let list = status["nodes"].as_array().cloned().unwrap_or_default();
        let ready = list.iter().filter(|n| n["state"] == "ready").count();
        let managers = list.iter().filter(|n| n["role"] == "manager").count();
        let calm = status["problems"].as_array().is_some_and(Vec::is_empty);
        list.len() == nodes && ready == nodes && managers == nodes && calm && project.running().len() == nodes
    };
    wait_until(SOON, &format!("{nodes} ready managers"), is, || project.tell());
}

fn events(project: &Project) -> Vec<Value> {
    project.status().and_then(|status| status["events"].as_array().cloned()).unwrap_or_default()
}

#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_to_one_with_no_command_but_scale() {
    let mut chance = Chance::new();
    let project = Arc::new(Project::new());
    project.write("client.js", &[INIT_JS, BOOTSTRAP_JS].concat());
    project.write("cluster.js", &[INIT_JS, CONFIGURE_JS].concat());
    project.ok(&["bootstrap", "--yes"]);
    until_it_is(&project, 1);
    let writing = Writing::start(project.clone());
    for (nodes, deaths) in [(5, 2), (3, 1), (1, 0), (5, 1), (1, 0)] {
        let began = Instant::now();
        let mut scale = project.command(&["scale", &nodes.to_string()]);
        let scale = scale.stderr(Stdio::piped()).spawn().expect("disco starts");
        // In the middle of it, whoever chance says; but what is left must be a majority, so not before three vote.
        for _ in 0..deaths {
            let three_vote = || project.status().is_some_and(|status| status["cluster"]["voters"].as_u64() >= Some(3));
            wait_until(SOON, "three that vote", three_vote, || project.tell());
            let (moment, since) = (Duration::from_millis(chance.below(400)), Instant::now());
            wait_until(moment + SOON, "its moment", || since.elapsed() >= moment, String::new);
            let running = project.running();
            let (instance, pid) = &running[chance.below(running.len() as u64) as usize];
            println!("kills {instance}, {:.2?} after `scale {nodes}`", began.elapsed());
            kill(*pid);
            // One death at a time: nobody promises anything about two of three.
            let gone = || project.pid(instance).is_none_or(|now| now != *pid);
            wait_until(SOON, "it to be gone", gone, || project.tell());
            let back = || nodes < 5 || project.pid(instance).is_some();
            wait_until(SOON, "it to be started again", back, || project.tell());
        }
        let scaled = scale.wait_with_output().expect("it is our child");
        assert!(scaled.status.success(), "`scale {nodes}` says when it is done, not: {}", text(&scaled.stderr));
        until_it_is(&project, nodes);
        println!("scale {nodes}: as wanted after {:.2?}", began.elapsed());
    }
    let (acknowledged, longest) = writing.end();
    println!("{} writes acknowledged, longest gap {longest:.2?}", acknowledged.len());
    project.has_all(&acknowledged);
    let recovered = events(&project).iter().any(|event| event["name"] == "cluster.recovered");
    assert!(!recovered, "nobody gave anything up");
    project.ok(&["destroy", "--yes"]);
}
