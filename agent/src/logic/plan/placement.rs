//! Where a task goes: a node that has room, is labelled right and runs the fewest of its kind.
//!
//! Nothing that runs is moved for a better balance. When no node will do, the answer is the sentence a person needs:
//! the filters are asked one after the other, and the one that leaves nobody is the reason.

use crate::{
    logic::state::{State, has_labels},
    model::{
        ids::NodeId,
        limits::{ORDERS_BYTES_MAX, TASKS_PER_NODE_MAX},
        node::NodeRecord,
        service::ServiceSpec,
        task::{TaskRecord, TaskState},
    },
};
use std::collections::BTreeMap;

/// What the nodes have left, counted down as tasks are placed within one plan.
pub struct Room<'a> {
    state: &'a State,
    slots: BTreeMap<NodeId, Slot<'a>>,
}

struct Slot<'a> {
    node: &'a NodeRecord,
    memory_free: u64,
    cpus_free_milli: u64,
    /// Fixed ports that are held, with whether they are UDP.
    ports: Vec<(u16, bool)>,
    tasks: usize,
    /// Tasks of a removed service have not ended: nobody knows any more what they hold.
    is_unclear: bool,
    /// What it takes to tell the node of its tasks.
    orders_bytes: usize,
    /// Wanted tasks by service and version.
    runs: BTreeMap<(&'a str, u64), usize>,
}

impl<'a> Room<'a> {
    pub fn new(state: &'a State) -> Room<'a> {
        let open = state.nodes.values().filter(|n| state.takes_tasks(n));
        let slot = |node: &'a NodeRecord| Slot {
            node,
            memory_free: node.memory,
            cpus_free_milli: u64::from(node.cpus) * 1000,
            ports: Vec::new(),
            tasks: 0,
            is_unclear: false,
            orders_bytes: 0,
            runs: BTreeMap::new(),
        };
        let mut room = Room { state, slots: open.map(|n| (n.id, slot(n))).collect() };
        for task in state.tasks.values() {
            room.count(task);
        }
        room
    }

    /// A task holds its place until its node says that it ended, wanted or not.
    fn count(&mut self, task: &'a TaskRecord) {
        let Some(slot) = self.slots.get_mut(&task.node) else { return };
        slot.tasks += 1;
        let spec = self.state.services.get(&task.service).and_then(|s| s.specs.get(&task.version));
        match spec {
            Some(spec) => slot.orders_bytes += spec.weight(),
            None => slot.is_unclear |= !task.seen.state.ended(),
        }
        if let Some(spec) = spec.filter(|_| !task.seen.state.ended()) {
            slot.take(spec);
        }
        if task.wanted && task.seen.state != TaskState::Failed {
            *slot.runs.entry((&task.service, task.version)).or_default() += 1;
        }
    }

    /// Takes a place for one task of the service, on one of `among` if that is given.
    ///
    /// # Errors
    /// Why no node will do, one sentence.
    pub fn place(&mut self, service: &'a str, version: u64, spec: &ServiceSpec, among: Option<NodeId>) -> Result<NodeId, String> {
        let node = self.choose(service, version, spec, among)?;
        let slot = self.slots.get_mut(&node).expect("it was chosen among the slots");
        slot.tasks += 1;
        slot.orders_bytes += spec.weight();
        slot.take(spec);
        *slot.runs.entry((service, version)).or_default() += 1;
        Ok(node)
    }

    fn choose(&self, service: &str, version: u64, spec: &ServiceSpec, among: Option<NodeId>) -> Result<NodeId, String> {
        let mut fit: Vec<&Slot> = self.slots.values().filter(|s| among.is_none_or(|node| s.node.id == node)).collect();
        if fit.is_empty() {
            return Err("no node takes tasks".into());
        }
        fit.retain(|s| has_labels(s.node, spec));
        if fit.is_empty() {
            let labels: Vec<String> = spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Err(format!("no node has the labels {}", labels.join(", ")));
        }
        fit.retain(|s| s.tasks < TASKS_PER_NODE_MAX);
        if fit.is_empty() {
            return Err(format!("each node has {TASKS_PER_NODE_MAX} tasks already"));
        }
        fit.retain(|s| s.orders_bytes + spec.weight() <= ORDERS_BYTES_MAX);
        if fit.is_empty() {
            return Err(format!(
                "on each node the tasks' commands and environments would take more than {}",
                size(ORDERS_BYTES_MAX as u64)
            ));
        }
        if spec.memory.is_some() || spec.cpus_milli.is_some() || spec.has_public_port() {
            fit.retain(|s| !s.is_unclear);
            if fit.is_empty() {
                return Err("on each node that would do tasks of a removed service are still ending".into());
            }
        }
        if let Some(memory) = spec.memory {
            let most = fit.iter().max_by_key(|s| s.memory_free).map(|s| (s.memory_free, s.node.name.clone()));
            fit.retain(|s| s.memory_free >= memory);
            if let Some((free, name)) = most.filter(|_| fit.is_empty()) {
                return Err(format!("no node has {} free (most is {}, on {name})", size(memory), size(free)));
            }
        }
        if let Some(cpus) = spec.cpus_milli {
            let most = fit.iter().max_by_key(|s| s.cpus_free_milli).map(|s| (s.cpus_free_milli, s.node.name.clone()));
            fit.retain(|s| s.cpus_free_milli >= u64::from(cpus));
            if let Some((free, name)) = most.filter(|_| fit.is_empty()) {
                return Err(format!("no node has {} cpus free (most is {}, on {name})", cores(u64::from(cpus)), cores(free)));
            }
        }
        for (port, udp) in fixed_ports(spec) {
            fit.retain(|s| !s.ports.contains(&(port, udp)));
            if fit.is_empty() {
                return Err(format!("port {port} is taken on each node that would do"));
            }
        }
        let best = fit.into_iter().min_by_key(|s| {
            let avoided = s.runs.keys().any(|(name, _)| spec.avoid.iter().any(|avoid| avoid == name));
            let same = s.runs.get(&(service, version)).copied().unwrap_or(0);
            (avoided, same, s.tasks, u64::MAX - s.memory_free, s.node.id)
        });
        Ok(best.expect("each filter left somebody").node.id)
    }
}

impl Slot<'_> {
    fn take(&mut self, spec: &ServiceSpec) {
        self.memory_free = self.memory_free.saturating_sub(spec.memory.unwrap_or(0));
        self.cpus_free_milli = self.cpus_free_milli.saturating_sub(spec.cpus_milli.unwrap_or(0).into());
        self.ports.extend(fixed_ports(spec));
    }
}

fn fixed_ports(spec: &ServiceSpec) -> impl Iterator<Item = (u16, bool)> {
    spec.ports.iter().filter_map(|p| p.public.map(|public| (public, p.udp)))
}

/// As a person writes it: `512 MiB`.
pub fn size(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Thousandths of a core, as a person writes it: `0.5`.
pub fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{:.2}", milli as f64 / 1000.0).trim_end_matches('0').into()
    }
}
