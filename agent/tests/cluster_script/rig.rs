//! One node that runs a script.

use crate::common::{BOUND, Daemon, block_on, until};
use proto::{Channel, ChannelLimits, v1};
use std::{collections::HashMap, fs};

/// A node that leads.
pub fn leader() -> Daemon {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some() && status.nodes.iter().all(|node| node.state == "ready"));
    node
}

/// A cluster.js that begins as all do: `rest` follows its init().
pub fn script(rest: &str) -> String {
    format!(
        "export async function init() {{ return new Cluster({{ name: \"test\", provider: await LocalProvider.init({{ name: \"l\" }}) }}); }}\n{rest}\n"
    )
}

fn files(cluster_js: &str) -> HashMap<String, String> {
    HashMap::from([("cluster.js".to_owned(), cluster_js.to_owned())])
}

pub fn push(node: &Daemon, cluster_js: &str) {
    node.write(v1::write_request::Op::ModulesPut(v1::ModulesPut { files: files(cluster_js) })).expect("it leads");
}

/// Pushes them and waits until they are carried out.
pub fn load(node: &Daemon, cluster_js: &str) -> v1::Status {
    push(node, cluster_js);
    node.until("the script is carried out", |status| {
        status.script_applied == status.script_version && status.script_version > 0 && status.script_error.is_empty()
    })
}

/// Waits until a service has so many running tasks.
pub fn until_runs(node: &Daemon, name: &str, tasks: u32) -> v1::Service {
    let has = |status: &v1::Status| status.services.iter().find(|s| s.name == name).filter(|s| s.running == tasks).cloned();
    has(&node.until(&format!("{tasks} of {name} run"), |status| has(status).is_some())).expect("just seen")
}

pub fn until_key(node: &Daemon, key: &str, wanted: &str) {
    until(&format!("`{key}` is `{wanted}`; the log: {}", node.log()), BOUND, || {
        (node.value(key).ok()?.as_deref() == Some(wanted)).then_some(())
    });
}

pub fn eval(node: &Daemon, expression: &str) -> v1::EvalReply {
    let path = node.data().join("control.sock");
    block_on(async |spawner| {
        let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
        disco.eval(v1::EvalRequest { expression: expression.into() }).await.expect("it leads").into_inner()
    })
}

pub fn plan(node: &Daemon, cluster_js: &str) -> v1::PlanReply {
    let path = node.data().join("control.sock");
    block_on(async |spawner| {
        let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
        disco.plan(v1::PlanRequest { files: files(cluster_js), rollback: false }).await.expect("it leads").into_inner()
    })
}

/// Pids of its script executors.
pub fn executors(node: &Daemon) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.pid())).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"disco-script"))).collect()
}

/// KiB of a line of proc_pid_status(5).
pub fn status_kb(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).expect("a line of proc_pid_status(5)");
    found.trim().trim_end_matches(" kB").parse().expect("a number")
}
