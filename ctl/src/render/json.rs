//! `--json`: stable fields, named as in `disco.d.ts`; `docs/json.md` lists them. A field is always there, `null` if unknown.

use proto::v1;
use serde_json::{Value, json};

/// `status --json`.
pub fn status(status: &v1::Status) -> Value {
    json!({
        "cluster": {
            "id": status.cluster_id,
            "name": status.cluster,
            "nodes": status.desired_nodes,
            "managers": status.managers,
            "voters": status.voters.len(),
        },
        "leader": status.leader,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "instances": status.instances.iter().map(instance).collect::<Vec<_>>(),
        "services": status.services.iter().map(service).collect::<Vec<_>>(),
        "script": { "version": status.script_version, "applied": status.script_applied, "error": some(&status.script_error) },
        "events": status.events.iter().map(event).collect::<Vec<_>>(),
        "problems": status.problems,
        "term": status.term,
        "answered_by": status.answered_by,
    })
}

pub fn node(node: &v1::Node) -> Value {
    let labels: std::collections::BTreeMap<_, _> = node.labels.iter().collect();
    json!({
        "id": node.id,
        "name": node.name,
        "address": node.address,
        "role": node.role,
        "state": node.state,
        "leader": node.leader,
        "cpus": node.cpus,
        "memory": node.memory,
        "labels": labels,
        "instance": node.instance,
        "joined_ms": node.joined_ms,
        "since_ms": node.since_ms,
        "reason": some(&node.reason),
        "preference": some(&node.preference),
    })
}

pub fn instance(instance: &v1::Instance) -> Value {
    json!({
        "id": instance.id,
        "address": instance.address,
        "private_address": instance.private_address,
        "state": instance.state,
        "desired": some(&instance.desired),
        "node": some(&instance.node),
        "problem": some(&instance.problem),
    })
}

/// `service ls --json` is a list of these.
pub fn service(service: &v1::Service) -> Value {
    json!({
        "name": service.name,
        "desired": service.desired,
        "running": service.running,
        "healthy": service.healthy,
        "version": service.version,
        "command": service.command,
        "roll": service.roll,
        "roll_problem": some(&service.roll_problem),
        "unplaced": service.unplaced,
        "scaled_by_hand": service.scaled_by_hand,
        "tasks": service.tasks.iter().map(|t| task(&service.name, t)).collect::<Vec<_>>(),
    })
}

fn task(service: &str, task: &v1::Task) -> Value {
    let exit = match (task.exit_code, task.exit_signal) {
        (None, None) => Value::Null,
        (code, signal) => json!({ "code": code, "signal": signal }),
    };
    let ports: std::collections::BTreeMap<_, _> = task.ports.iter().collect();
    json!({
        "id": task.id,
        "service": service,
        "node": task.node,
        "state": task.state,
        "exit": exit,
        "last_error": some(&task.last_error),
        "address": some(&task.address),
        "ports": ports,
        "version": task.version,
        "restarts": task.restarts,
        "pid": Some(task.pid).filter(|pid| *pid != 0),
        "wanted": task.wanted,
    })
}

/// `plan --json` is a list of these.
pub fn planned(change: &v1::PlannedChange) -> Value {
    json!({ "sign": change.sign, "subject": change.subject, "detail": change.detail })
}

/// What was changed behind the cluster's back, in the same list.
pub fn drift(line: &str) -> Value {
    json!({ "sign": "!", "subject": "drift", "detail": line })
}

/// `logs --json`, one a line.
pub fn log_line(line: &v1::LogLine) -> Value {
    let text = String::from_utf8_lossy(&line.text);
    json!({ "at_ms": line.at_ms, "task": line.task, "node": line.node, "text": text })
}

pub fn event(event: &v1::Event) -> Value {
    json!({ "id": event.id, "at_ms": event.at_ms, "name": event.name, "subject": event.subject, "text": event.text })
}

pub fn token(token: &v1::TokenInfo) -> Value {
    json!({ "id": token.id, "role": token.role, "created_ms": token.created_ms, "expires_ms": token.expires_ms, "uses_left": token.uses_left })
}

/// `value` as text if it is UTF-8; else `null`, and `hex` has its bytes.
pub fn kv(key: &str, value: Option<&[u8]>, version: u64) -> Value {
    let text = value.and_then(|v| std::str::from_utf8(v).ok());
    let mut object = json!({ "key": key, "value": text, "version": version });
    if let (None, Some(bytes)) = (text, value) {
        object["hex"] = super::hex(bytes).into();
    }
    object
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    fn sample() -> v1::Status {
        let mut web = samples::service("web", 2, "going", &[("running", 2, true), ("failed", 2, true)]);
        (web.tasks[1].exit_code, web.tasks[1].last_error) = (Some(3), "no luck".into());
        v1::Status {
            services: vec![web],
            script_version: 7,
            script_applied: 6,
            script_error: "cluster.js:3: no luck".into(),
            ..samples::status()
        }
    }

    #[test]
    fn status_has_these_fields_and_no_others() {
        let expected = json!({
            "cluster": { "id": "00000000000000ff", "name": "lab", "nodes": 3, "managers": 3, "voters": 2 },
            "leader": "0000000000000001",
            "nodes": [
                { "id": "0000000000000001", "name": "n1", "address": "127.80.3.1:5080", "role": "manager", "state": "ready", "leader": true,
                  "cpus": 2, "memory": 1073741824u64, "labels": {}, "instance": "i-1", "joined_ms": 1000, "since_ms": 0, "reason": null, "preference": null },
                { "id": "0000000000000002", "name": "n2", "address": "127.80.3.2:5080", "role": "manager", "state": "lost", "leader": false,
                  "cpus": 2, "memory": 1073741824u64, "labels": {}, "instance": "i-2", "joined_ms": 2000, "since_ms": 50000, "reason": "silent for 5 s", "preference": null },
            ],
            "instances": [
                { "id": "i-2", "address": "127.80.3.2", "private_address": "127.80.3.2", "state": "stopped", "desired": "running",
                  "node": "0000000000000002", "problem": "no\u{1b}[31m space" },
            ],
            "services": [
                { "name": "web", "desired": 2, "running": 1, "healthy": 1, "version": 2, "command": ["serve", "--port", "80"], "roll": "going",
                  "roll_problem": null, "unplaced": [], "scaled_by_hand": false, "tasks": [
                    { "id": "web.1", "service": "web", "node": "0000000000000001", "state": "running", "exit": null, "last_error": null,
                      "address": "127.80.3.1", "ports": { "80": 41001 }, "version": 2, "restarts": 0, "pid": 4001, "wanted": true },
                    { "id": "web.2", "service": "web", "node": "0000000000000001", "state": "failed", "exit": { "code": 3, "signal": null },
                      "last_error": "no luck", "address": "127.80.3.1", "ports": { "80": 41002 }, "version": 2, "restarts": 0, "pid": 4002, "wanted": true },
                ] },
            ],
            "script": { "version": 7, "applied": 6, "error": "cluster.js:3: no luck" },
            "events": [{ "id": 9, "at_ms": 50000, "name": "node.lost", "subject": "n2", "text": "silent for 5 s" }],
            "problems": ["node n2 is lost: silent for 5 s"],
            "term": 4,
            "answered_by": "0000000000000001",
        });
        assert_eq!(status(&sample()), expected);
    }

    #[test]
    fn docs_list_every_field() {
        let docs = include_str!("../../../docs/json.md");
        fn names(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                    into.push(name.clone());
                    names(value, into);
                }),
                Value::Array(items) => items.iter().for_each(|item| names(item, into)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        names(&status(&sample()), &mut all);
        names(&planned(&v1::PlannedChange::default()), &mut all);
        names(&log_line(&v1::LogLine::default()), &mut all);
        all.retain(|name| name != "80");
        names(&token(&v1::TokenInfo::default()), &mut all);
        names(&kv("k", Some(&[255]), 1), &mut all);
        for name in all {
            assert!(docs.contains(&format!("`{name}`")), "docs/json.md does not list `{name}`");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_given_in_hex() {
        assert_eq!(kv("k", Some(b"v"), 2), json!({ "key": "k", "value": "v", "version": 2 }));
        assert_eq!(kv("k", Some(&[0xff, 0]), 2), json!({ "key": "k", "value": null, "version": 2, "hex": "ff00" }));
        assert_eq!(kv("k", None, 0), json!({ "key": "k", "value": null, "version": 0 }));
    }
}
