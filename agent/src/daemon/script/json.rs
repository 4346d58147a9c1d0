//! The state as scripts see it: the shapes `Node`, `ServiceStatus` and `TaskStatus` of `docs/disco.d.ts`.

use crate::model::{
    node::{NodeRecord, Role},
    query::{ServiceView, StatusView},
    task::{Exit, TaskRecord, TaskState},
};
use serde_json::{Map, Value, json};

pub fn node(record: &NodeRecord, status: &StatusView) -> Value {
    let votes = record.member.is_some_and(|member| status.voters.contains(&member));
    let mut node = json!({
        "id": record.id.to_string(),
        "name": record.name,
        "address": record.address,
        "role": if votes { Role::Manager } else { Role::Worker }.as_str(),
        "state": record.state.as_str(),
        "leader": status.leader == Some(record.id),
        "cpus": record.cpus,
        "memory": record.memory,
        "labels": record.labels,
    });
    if let Some(instance) = &record.instance {
        node["instance"] = instance.as_str().into();
    }
    node
}

pub fn service(view: &ServiceView, status: &StatusView) -> Value {
    let running = view.tasks.iter().filter(|task| task.wanted && task.seen.state == TaskState::Running).count();
    json!({
        "name": view.record.name,
        "desired": view.desired,
        "running": running,
        "healthy": running,
        "version": view.record.version,
        "tasks": view.tasks.iter().map(|record| task(record, status)).collect::<Vec<_>>(),
    })
}

fn task(record: &TaskRecord, status: &StatusView) -> Value {
    let mut task = json!({
        "id": format!("{}.{}", record.service, record.number.0),
        "service": record.service,
        "node": record.node.to_string(),
        "state": record.seen.state.as_str(),
        "ports": record.seen.ports.iter().map(|(declared, assigned)| (declared.to_string(), json!(assigned))).collect::<Map<_, _>>(),
    });
    match record.seen.exit {
        Some(Exit::Code(code)) => task["exit"] = json!({ "code": code }),
        Some(Exit::Signal(signal)) => task["exit"] = json!({ "signal": signal }),
        Some(Exit::Unknown) => task["exit"] = json!({}),
        None => {}
    }
    if !record.seen.error.is_empty() {
        task["last_error"] = record.seen.error.as_str().into();
    }
    let node = status.nodes.iter().find(|node| node.id == record.node);
    if let Some((host, _)) = node.and_then(|node| node.address.rsplit_once(':')) {
        task["address"] = host.into();
    }
    task
}
