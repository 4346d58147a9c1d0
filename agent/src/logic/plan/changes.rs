//! What an apply would change, for a person to read first: `disco plan`.

use super::placement::{cores, size};
use crate::{
    logic::state::State,
    model::{
        query::PlannedChange,
        script::Declaration,
        service::{PortSpec, Replicas, ServiceRecord, ServiceSpec},
        settings::{BelowMin, Settings},
    },
};
use std::collections::BTreeMap;

/// A value longer than this is shown by its length.
const SHOWN_BYTES_MAX: usize = 60;

/// Declared against what is there: the cluster's options, services, keys, each by name.
pub fn changes(state: &State, declaration: &Declaration) -> Vec<PlannedChange> {
    let mut changes = Vec::new();
    let mut add = |sign, subject: String, detail: String| changes.push(PlannedChange { sign, subject, detail });
    // What none may have is told when it is applied; nothing changes then.
    if let Ok(new) = state.with_settings(&declaration.settings) {
        let details = settings(&state.settings, &new);
        if !details.is_empty() {
            add('~', "cluster".into(), details.join(", "));
        }
    }
    for (name, spec) in &declaration.services {
        let subject = format!("service {name}");
        match state.services.get(name) {
            None => add('+', subject, format!("{} of `{}`", replicas(spec.replicas, None), command(spec))),
            Some(known) => {
                let details = differences(known, spec);
                if !details.is_empty() {
                    add('~', subject, details.join(", "));
                }
            }
        }
    }
    for name in state.services.keys().filter(|name| !declaration.services.contains_key(*name)) {
        let tasks = state.tasks_of(name).filter(|t| t.wanted).count();
        let stop = match tasks {
            0 => String::new(),
            1 => "1 task stops".to_owned(),
            many => format!("{many} tasks stop"),
        };
        add('-', format!("service {name}"), stop);
    }
    for (key, value) in &declaration.keys {
        let subject = format!("key {key}");
        match state.kv.get(key) {
            None => add('+', subject, shown(value)),
            Some(record) if record.value == value.as_bytes() => {}
            Some(record) => add('~', subject, format!("{} -> {}", shown(&String::from_utf8_lossy(&record.value)), shown(value))),
        }
    }
    changes
}

fn settings(old: &Settings, new: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    let mut field = |name: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{name} {old} -> {new}"));
        }
    };
    field("managers", old.managers.to_string(), new.managers.to_string());
    field("min_nodes", old.min_nodes.to_string(), new.min_nodes.to_string());
    let below = |settings: &Settings| match settings.below_min {
        BelowMin::Stop => "stop".to_owned(),
        BelowMin::Pause => "pause".to_owned(),
        BelowMin::Keep => "keep".to_owned(),
    };
    field("below_min", below(old), below(new));
    field("max_nodes", old.max_nodes.to_string(), new.max_nodes.to_string());
    field("max_launches_per_hour", old.max_launches_per_hour.to_string(), new.max_launches_per_hour.to_string());
    let after = |settings: &Settings| settings.replace_after_ms.map_or("never".to_owned(), ms);
    field("replace_after", after(old), after(new));
    found
}

fn differences(known: &ServiceRecord, new: &ServiceSpec) -> Vec<String> {
    let old = known.spec();
    let mut found = Vec::new();
    let mut field = |name: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{name} {old} -> {new}"));
        }
    };
    field("replicas", replicas(old.replicas, known.replicas_by_hand), replicas(new.replicas, None));
    if old.command != new.command {
        // Shortened alike, they may still differ.
        found.push(format!("command {} -> {}", command(old), command(new)));
    }
    let mut field = |name: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{name} {old} -> {new}"));
        }
    };
    field("cwd", optional(&old.cwd), optional(&new.cwd));
    field("user", optional(&old.user), optional(&new.user));
    field("memory", old.memory.map_or("none".into(), size), new.memory.map_or("none".into(), size));
    let cpus = |spec: &ServiceSpec| spec.cpus_milli.map_or("none".into(), |milli| cores(milli.into()));
    field("cpus", cpus(old), cpus(new));
    field("ports", ports(&old.ports), ports(&new.ports));
    field("place.avoid", list(&old.avoid), list(&new.avoid));
    field("restart", format!("{:?}", old.restart.policy), format!("{:?}", new.restart.policy));
    field("restart.backoff", ms(old.restart.backoff_ms), ms(new.restart.backoff_ms));
    let max = |spec: &ServiceSpec| spec.restart.max.map_or("none".into(), |max| max.to_string());
    field("restart.max", max(old), max(new));
    field("stop.signal", old.stop_signal.to_string(), new.stop_signal.to_string());
    field("stop.timeout", ms(old.stop_timeout_ms), ms(new.stop_timeout_ms));
    field("health.grace", ms(old.grace_ms), ms(new.grace_ms));
    let order = |spec: &ServiceSpec| if spec.update.start_first { "start-first" } else { "stop-first" }.to_string();
    field("update.order", order(old), order(new));
    field("update.parallel", old.update.parallel.to_string(), new.update.parallel.to_string());
    field("update.rollback", old.update.rollback.to_string(), new.update.rollback.to_string());
    field("update.deadline", ms(old.update.deadline_ms), ms(new.update.deadline_ms));
    map("env", &old.env, &new.env, &mut found);
    map("place.labels", &old.labels, &new.labels, &mut found);
    // Two values that look alike when shortened still differ.
    if found.is_empty() && old != new {
        found.push("spec changes".into());
    }
    found
}

fn map(name: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>, found: &mut Vec<String>) {
    for (key, value) in new {
        match old.get(key) {
            None => found.push(format!("+{name}.{key} {}", shown(value))),
            Some(before) if before != value => found.push(format!("{name}.{key} {} -> {}", shown(before), shown(value))),
            Some(_) => {}
        }
    }
    found.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("-{name}.{key}")));
}

fn replicas(declared: Replicas, by_hand: Option<u32>) -> String {
    match (declared, by_hand) {
        (Replicas::EveryNode, _) => "every-node".into(),
        (Replicas::Count(_), Some(count)) => format!("{count} (by hand)"),
        (Replicas::Count(count), None) => count.to_string(),
    }
}

fn ports(ports: &[PortSpec]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|p| {
            let public = p.public.map(|public| format!("={public}")).unwrap_or_default();
            format!("{}{public}{}", p.port, if p.udp { "/udp" } else { "" })
        })
        .collect();
    list(&shown)
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(" ") }
}

fn optional(value: &Option<String>) -> String {
    value.as_deref().map_or("none".into(), shown)
}

fn ms(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

/// Program and arguments; one that is a program itself by its length.
fn command(spec: &ServiceSpec) -> String {
    spec.command.iter().map(|part| shown(part)).collect::<Vec<_>>().join(" ")
}

fn shown(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX && !text.chars().any(char::is_control) { text.into() } else { format!("({} bytes)", text.len()) }
}
