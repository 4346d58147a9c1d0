//! Instances: what was decided to exist, what the provider says of it, and the spending brakes.

use super::{State, apply::Outcome};
use crate::model::{
    ids::OperationId,
    instance::{InstanceDesired, InstanceRecord, InstanceState},
    limits::{INSTANCES_ENDED_KEPT, INSTANCES_MAX},
};

use std::collections::BTreeMap;

const HOUR_MS: u64 = 3_600_000;

impl State {
    /// Why no instance may be launched now, if so. Asked before proposing and again when the entry is applied.
    pub fn brake(&self, stamp_ms: u64) -> Option<String> {
        self.brake_at(self.instances.values().filter(|i| !i.ended()).count(), stamp_ms)
    }

    /// The same once one instance has made room for another: a full cluster replaces what it loses.
    pub fn brake_for_replacement(&self, stamp_ms: u64) -> Option<String> {
        self.brake_at(self.instances.values().filter(|i| !i.ended()).count().saturating_sub(1), stamp_ms)
    }

    fn brake_at(&self, alive: usize, stamp_ms: u64) -> Option<String> {
        if self.destroying {
            return Some("the cluster is being destroyed".into());
        }
        if alive >= self.settings.max_nodes as usize || alive >= INSTANCES_MAX {
            return Some(format!("{alive} instances exist, max_nodes is {}", self.settings.max_nodes));
        }
        let recent = self.launches.iter().filter(|at| **at + HOUR_MS > stamp_ms).count();
        if recent >= self.settings.max_launches_per_hour as usize {
            return Some(format!(
                "{recent} launches within the last hour, max_launches_per_hour is {}",
                self.settings.max_launches_per_hour
            ));
        }
        None
    }

    pub(super) fn launch(&mut self, index: u64, ordinal: u32, parameters: BTreeMap<String, String>) -> Outcome {
        let stamp = self.stamp_ms;
        while self.launches.front().is_some_and(|at| at + HOUR_MS <= stamp) {
            self.launches.pop_front();
        }
        if let Some(why) = self.brake(stamp) {
            return Outcome::refused("limit", why);
        }
        if ordinal != self.next_ordinal {
            return Outcome::refused("stale", format!("the next ordinal is {}", self.next_ordinal));
        }
        self.launches.push_back(stamp);
        self.next_ordinal += 1;
        let operation = OperationId { cluster: self.cluster, epoch: self.epoch, index };
        let record = InstanceRecord {
            operation,
            ordinal,
            id: None,
            address: String::new(),
            state: InstanceState::Pending,
            desired: InstanceDesired::Running,
            node: None,
            launched_ms: stamp,
            problem: String::new(),
            since_ms: stamp,
            parameters,
        };
        self.instances.insert(operation, record);
        Outcome::Done
    }

    pub(super) fn instance_set(&mut self, id: &str, desired: InstanceDesired) -> Outcome {
        let known = |i: &&mut InstanceRecord| i.id.as_deref() == Some(id) || i.pending_name() == id;
        let Some(instance) = self.instances.values_mut().find(known) else {
            return Outcome::refused("not_found", format!("no instance `{id}`"));
        };
        if instance.desired == InstanceDesired::Terminated && desired != InstanceDesired::Terminated {
            return Outcome::refused("invalid", format!("instance `{id}` is being terminated"));
        }
        let wanted_again = instance.desired == InstanceDesired::Stopped && desired == InstanceDesired::Running;
        instance.desired = desired;
        let node = instance.node;
        // Whoever was stopped on purpose is late only from now on: it is started, not replaced.
        if let Some(node) = node.filter(|_| wanted_again).and_then(|id| self.nodes.get_mut(&id)) {
            node.since_ms = self.stamp_ms;
        }
        Outcome::Done
    }

    pub(super) fn instance_seen(
        &mut self,
        operation: OperationId,
        id: Option<String>,
        address: String,
        seen: InstanceState,
        problem: &str,
    ) -> Outcome {
        let stamp = self.stamp_ms;
        let Some(instance) = self.instances.get_mut(&operation) else {
            return Outcome::refused("not_found", format!("no operation {operation}"));
        };
        if instance.ended() {
            return Outcome::refused("stale", format!("operation {operation} has ended"));
        }
        if id.is_some() {
            instance.id = id;
        }
        if !address.is_empty() {
            instance.address = address;
        }
        instance.problem = super::events::bounded(problem, 256);
        let changed = instance.state != seen;
        if changed {
            instance.state = seen;
            instance.since_ms = stamp;
        }
        let id = instance.id.clone();
        let name = id.clone().unwrap_or_else(|| instance.pending_name());
        if let Some(node) = instance.node.and_then(|n| self.nodes.get_mut(&n))
            && node.instance.is_none()
        {
            node.instance = id;
        }
        match seen {
            InstanceState::Running if changed => self.event("instance.started", &name, ""),
            InstanceState::Stopped if changed => self.event("instance.stopped", &name, problem),
            InstanceState::Terminated if changed => self.event("instance.terminated", &name, problem),
            InstanceState::Failed if changed => self.event("instance.failed", &name, problem),
            _ => {}
        }
        self.forget_ended();
        Outcome::Done
    }

    /// A node whose machine ended leaves by that record: it stays until the node is gone.
    fn forget_ended(&mut self) {
        let ended = self.instances.values().filter(|i| i.ended() && i.node.is_none_or(|node| !self.nodes.contains_key(&node)));
        let (mut oldest, mut count) = (None, 0);
        for instance in ended {
            count += 1;
            oldest = oldest.into_iter().chain([(instance.ordinal, instance.operation)]).min();
        }
        if let Some((_, oldest)) = oldest.filter(|_| count > INSTANCES_ENDED_KEPT) {
            self.instances.remove(&oldest);
        }
    }
}

impl InstanceRecord {
    pub fn ended(&self) -> bool {
        matches!(self.state, InstanceState::Terminated | InstanceState::Failed)
    }

    /// What it is called before the provider has named it.
    pub fn pending_name(&self) -> String {
        format!("launch-{}", self.ordinal)
    }
}
