//! Services: what was declared, under which version, and how the newest version's roll-out ended.
//!
//! A version stands for "tasks of an older one are replaced". A change that a running process need not notice (how many
//! copies, how they are restarted) gets a version too, but the tasks are carried over into it.

use super::{State, apply::Outcome, events::bounded};
use crate::model::{
    codec,
    limits::{COMMAND_ARGUMENTS_MAX, EVENT_TEXT_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, SERVICE_SPEC_BYTES_MAX, SERVICES_MAX, TASKS_MAX},
    node::{NodeRecord, NodeState},
    service::{self, Replicas, Roll, ServiceRecord, ServiceSpec},
    task::{TaskRecord, TaskState},
};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// Copies wanted now: a number by hand beats the declared one; `every-node` counts the nodes that may take one.
    pub fn desired(&self, service: &ServiceRecord) -> u32 {
        match (service.spec().replicas, service.replicas_by_hand) {
            (Replicas::EveryNode, _) => self.nodes.values().filter(|n| self.takes_tasks(n) && has_labels(n, service.spec())).count() as u32,
            (Replicas::Count(_), Some(by_hand)) => by_hand,
            (Replicas::Count(declared), None) => declared,
        }
    }

    /// Whether new tasks may be placed on it.
    pub fn takes_tasks(&self, node: &NodeRecord) -> bool {
        node.state == NodeState::Ready && !self.is_leaving(node)
    }

    pub fn tasks_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a TaskRecord> {
        self.tasks.values().filter(move |t| t.service == service)
    }

    pub(super) fn service_set(&mut self, name: String, spec: ServiceSpec) -> Outcome {
        if let Err(why) = check(&name, &spec) {
            return Outcome::refused("invalid", why);
        }
        if !self.services.contains_key(&name) && self.services.len() >= SERVICES_MAX {
            return Outcome::refused("limit", format!("there are {SERVICES_MAX} services already, the most a cluster keeps"));
        }
        self.set_spec(name, spec);
        Outcome::Done
    }

    /// Creates or changes a service whose spec was checked. The same spec again changes nothing.
    pub(super) fn set_spec(&mut self, name: String, spec: ServiceSpec) {
        match self.services.get(&name) {
            Some(known) if *known.spec() == spec => {}
            Some(_) => {
                let text = self.new_version(&name, spec, true);
                self.event("service.updated", &name, &text);
            }
            None => {
                let record = ServiceRecord {
                    name: name.clone(),
                    version: 1,
                    specs: BTreeMap::from([(1, spec)]),
                    replicas_by_hand: None,
                    roll: Roll::Going,
                    previous: None,
                    healthy: false,
                };
                self.services.insert(name.clone(), record);
                self.event("service.updated", &name, "version 1");
            }
        }
    }

    /// Begins the next version. Tasks whose process may go on are carried over, unless it is a restart.
    fn new_version(&mut self, name: &str, spec: ServiceSpec, carry_over: bool) -> String {
        let Some(service) = self.services.get_mut(name) else { return String::new() };
        if service.roll == Roll::Done && *service.spec() != spec {
            service.previous = Some(service.version);
        }
        let next = service.version + 1;
        if carry_over {
            for task in self.tasks.values_mut().filter(|t| t.service == name && t.wanted) {
                if service.specs.get(&task.version).is_some_and(|runs| runs.runs_alike(&spec)) {
                    task.version = next;
                }
            }
        }
        service.version = next;
        service.specs.insert(next, spec);
        service.roll = Roll::Going;
        self.drop_unused_specs(name);
        format!("version {next}")
    }

    /// Keeps the newest spec, those that tasks run, the one that rolled out last, and what `rollback` goes back to.
    pub(super) fn drop_unused_specs(&mut self, name: &str) {
        let mut kept: BTreeSet<u64> = self.tasks_of(name).map(|t| t.version).collect();
        let Some(service) = self.services.get_mut(name) else { return };
        kept.insert(service.version);
        kept.extend(service.previous);
        kept.extend(service.rollback_target());
        service.specs.retain(|version, _| kept.contains(version));
    }

    pub(super) fn service_scale(&mut self, name: &str, replicas: u32) -> Outcome {
        if replicas as usize > TASKS_MAX {
            return Outcome::refused("limit", format!("a cluster runs at most {TASKS_MAX} tasks, not {replicas}"));
        }
        let Some(service) = self.services.get_mut(name) else { return no_service(name) };
        let Replicas::Count(declared) = service.spec().replicas else {
            return Outcome::refused("invalid", format!("service `{name}` runs on every node; it has no number of copies"));
        };
        let before = service.replicas_by_hand.unwrap_or(declared);
        service.replicas_by_hand = (replicas != declared).then_some(replicas);
        if before != replicas {
            self.event("service.updated", name, &format!("scaled from {before} to {replicas}"));
        }
        Outcome::Done
    }

    pub(super) fn service_restart(&mut self, name: &str) -> Outcome {
        let Some(service) = self.services.get(name) else { return no_service(name) };
        let spec = service.spec().clone();
        let text = self.new_version(name, spec, false);
        self.event("service.updated", name, &format!("{text}: restarts"));
        Outcome::Done
    }

    pub(super) fn service_rollback(&mut self, name: &str) -> Outcome {
        let Some(service) = self.services.get(name) else { return no_service(name) };
        let Some(target) = service.rollback_target() else {
            return Outcome::refused("not_found", format!("service `{name}` has no earlier version to go back to"));
        };
        let spec = service.specs.get(&target).expect("a rollback target is a kept spec").clone();
        let text = self.new_version(name, spec, true);
        self.event("service.updated", name, &format!("{text}: as version {target} was"));
        Outcome::Done
    }

    pub(super) fn service_remove(&mut self, name: &str) -> Outcome {
        if self.services.remove(name).is_none() {
            return no_service(name);
        }
        for task in self.tasks.values_mut().filter(|t| t.service == name) {
            task.wanted = false;
        }
        self.event("service.updated", name, "removed");
        Outcome::Done
    }

    pub(super) fn rolled(&mut self, name: &str, version: u64, roll: Roll) -> Outcome {
        let Some(service) = self.services.get_mut(name) else { return no_service(name) };
        if service.version != version {
            return Outcome::refused("stale", format!("service `{name}` is at version {}", service.version));
        }
        let roll = match roll {
            Roll::Stopped(why) => Roll::Stopped(bounded(&why, EVENT_TEXT_BYTES_MAX)),
            other => other,
        };
        if service.roll != roll {
            service.roll = roll.clone();
            match roll {
                Roll::Done => self.event("service.updated", name, &format!("version {version} runs")),
                Roll::Stopped(why) => self.event("service.degraded", name, &format!("the update to version {version} stopped: {why}")),
                Roll::Going => {}
            }
            self.drop_unused_specs(name);
        }
        Outcome::Done
    }

    /// Says so when a service came to have fewer copies than wanted, and when it has them all again.
    pub(super) fn judge_services(&mut self) {
        let mut turned = Vec::new();
        for service in self.services.values() {
            let (up, coming) = self.count(&service.name);
            let desired = self.desired(service);
            if service.healthy && up + coming < desired {
                turned.push((service.name.clone(), false, format!("{up} of {desired} run")));
            } else if !service.healthy && up >= desired {
                turned.push((service.name.clone(), true, format!("{up} of {desired} run")));
            }
        }
        for (name, healthy, text) in turned {
            if let Some(service) = self.services.get_mut(&name) {
                service.healthy = healthy;
            }
            self.event(if healthy { "service.healthy" } else { "service.degraded" }, &name, &text);
        }
    }

    /// Copies that run, and those that were only just placed, on nodes that are there.
    fn count(&self, name: &str) -> (u32, u32) {
        let here = |t: &&TaskRecord| t.wanted && self.nodes.get(&t.node).is_some_and(|n| n.state != NodeState::Lost);
        let (mut up, mut coming) = (0, 0);
        for task in self.tasks_of(name).filter(here) {
            match task.seen.state {
                TaskState::Running | TaskState::Exited | TaskState::Paused | TaskState::Held => up += 1,
                TaskState::Pending | TaskState::Starting if !task.started && task.seen.restarts == 0 && task.seen.error.is_empty() => {
                    coming += 1
                }
                _ => {}
            }
        }
        (up, coming)
    }
}

pub fn has_labels(node: &NodeRecord, spec: &ServiceSpec) -> bool {
    spec.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

fn no_service(name: &str) -> Outcome {
    Outcome::refused("not_found", format!("no service `{}`", bounded(name, NAME_BYTES_MAX)))
}

/// What the door should have refused already, and what would make the state unbounded.
pub(super) fn check(name: &str, spec: &ServiceSpec) -> Result<(), String> {
    if !service::is_name(name) {
        let name = bounded(name, NAME_BYTES_MAX);
        return Err(format!("a service's name has 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, not `{name}`"));
    }
    if spec.command.first().is_none_or(String::is_empty) || spec.command.len() > COMMAND_ARGUMENTS_MAX {
        return Err(format!("service `{name}`: `command` has 1 to {COMMAND_ARGUMENTS_MAX} parts, the first is the program"));
    }
    if matches!(spec.replicas, Replicas::Count(count) if count as usize > TASKS_MAX) {
        return Err(format!("service `{name}`: `replicas` is at most {TASKS_MAX}"));
    }
    if spec.labels.len() > LABELS_MAX {
        return Err(format!("service `{name}`: at most {LABELS_MAX} labels"));
    }
    let bytes = codec::encode(spec).len();
    if bytes > SERVICE_SPEC_BYTES_MAX {
        return Err(format!("service `{name}` takes {bytes} bytes, the most is {SERVICE_SPEC_BYTES_MAX}"));
    }
    Ok(())
}
