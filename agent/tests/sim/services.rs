//! Services as people change them, and what must be true of them once everything is at rest.
//!
//! At rest what is declared runs, once, and nothing else does. A copy may be missing only if no node could take it, which
//! is computed here from the records alone, not asked of the plan.

use crate::{counts::Count, rng::Rng, world::World};
use agent::{
    logic::{replica::Replica, state::State},
    model::{
        ids::NodeId,
        io::Input,
        node::{NodeRecord, NodeState},
        query::Op,
        service::{Replicas, Roll, ServiceRecord, ServiceSpec},
        settings::{BelowMin, SettingsChange},
        task::{TaskNumber, TaskState},
    },
};

/// Tasks placed in one history; more were placed and stopped again and again.
const TASKS_PLACED_MAX: u64 = 500;
const NAMES: [&str; 3] = ["web", "db", "all"];

/// Where everything is, to see that it stays there.
pub type Placement = Vec<(TaskNumber, NodeId, u64)>;

impl World {
    /// What people do with services now and then.
    pub fn whim(&mut self) {
        let hosts = self.hosts();
        let host = self.rng.pick(&hosts).copied().unwrap_or_default();
        let node = self.machines[host].identity.node.to_string();
        let name = self.rng.pick(&NAMES).expect("not empty").to_string();
        let op = match self.rng.below(12) {
            0 | 1 => Op::ServiceScale { name, replicas: self.rng.below(6) as u32 },
            2 => Op::ServiceRestart(name),
            3 => Op::ServiceRollback(name),
            4 => Op::ModulesRollback,
            5 => Op::NodeDrain { node, drain: true },
            6 => Op::NodeDrain { node, drain: false },
            7 => return self.reload_script(),
            8 => return self.ask_script(),
            9 => Op::Configure(SettingsChange {
                min_nodes: Some(self.rng.between(1, 4) as u32),
                below_min: self.rng.pick(&[BelowMin::Stop, BelowMin::Pause, BelowMin::Keep]).copied(),
                ..SettingsChange::default()
            }),
            _ => Op::ModulesPut(crate::scripts::write(&mut self.rng, true)),
        };
        self.workload.admin.todo.push_back(op);
    }

    /// SIGHUP, or a person who takes the leader for somebody else.
    fn reload_script(&mut self) {
        let to = self.leader().or_else(|| self.any_host());
        if let Some(host) = to {
            self.counts.add(Count::ScriptReloads);
            self.input(host, Input::ReloadScript);
        }
    }

    /// The last modules are pushed: these can run, and differ from all that were there before.
    pub fn settle_services(&mut self) {
        if self.options.services {
            let files = crate::scripts::write(&mut self.rng, false);
            self.workload.admin.todo.push_back(Op::ModulesPut(files));
            for host in self.hosts() {
                let node = self.machines[host].identity.node.to_string();
                self.workload.admin.todo.push_back(Op::NodeDrain { node, drain: false });
            }
        }
    }

    pub fn placement(&self, replica: &Replica) -> Placement {
        replica.state().tasks.values().map(|task| (task.number, task.node, task.version)).collect()
    }

    /// What does not run yet as declared, or runs and should not; and how many services no node has room for.
    pub fn missing_tasks(&self, state: &State) -> (Option<String>, u64) {
        let mut blocked = 0;
        (self.find_missing(state, &mut blocked), blocked)
    }

    fn find_missing(&self, state: &State, blocked: &mut u64) -> Option<String> {
        if !self.options.services {
            return None;
        }
        let placed = self.counts.of(Count::TasksPlaced);
        assert!(placed < TASKS_PLACED_MAX, "violation: {placed} tasks were placed in one history");
        if state.script.applied != state.script.version || !state.script.error.is_empty() {
            return Some(format!("the script is at version {} of {}: {}", state.script.applied, state.script.version, state.script.error));
        }
        for service in state.services.values() {
            match missing_of(state, service) {
                Some(_) if is_blocked(state, service) => *blocked += 1,
                Some(missing) => return Some(missing),
                None => {}
            }
        }
        if let Some(task) = state.tasks.values().find(|t| !t.wanted) {
            return Some(format!("task {} is not forgotten: {task:?}", task.number.0));
        }
        for node in state.nodes.values() {
            let host = self.host_of(node.id)?;
            let wanted: Vec<TaskNumber> = state.tasks.values().filter(|t| t.node == node.id).map(|t| t.number).collect();
            let there: Vec<TaskNumber> = self.machines[host].runtime.running.keys().copied().collect();
            if let Some(number) = self.machines[host].runtime.paused.first() {
                return Some(format!("task {} on n{host} stands still", number.0));
            }
            if wanted != there {
                return Some(format!("n{host} runs {there:?}, not {wanted:?}"));
            }
        }
        None
    }
}

fn missing_of(state: &State, service: &ServiceRecord) -> Option<String> {
    let up = |state| state == TaskState::Running;
    let running = state.tasks_of(&service.name).filter(|t| t.wanted && up(t.seen.state)).count();
    let desired = desired(state, service);
    let newest = state.tasks_of(&service.name).all(|t| t.version == service.version);
    (running != desired || !newest || service.roll != Roll::Done).then(|| {
        format!("service {} runs {running} of {desired} (all of version {}: {newest}), {:?}", service.name, service.version, service.roll)
    })
}

fn desired(state: &State, service: &ServiceRecord) -> usize {
    match (service.spec().replicas, service.replicas_by_hand) {
        (Replicas::EveryNode, _) => state.nodes.values().filter(|n| takes(n, service.spec())).count(),
        (Replicas::Count(declared), by_hand) => by_hand.unwrap_or(declared) as usize,
    }
}

fn takes(node: &NodeRecord, spec: &ServiceSpec) -> bool {
    node.state == NodeState::Ready && spec.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// No node has room for one more copy, and none of those there fails or is on its way.
fn is_blocked(state: &State, service: &ServiceRecord) -> bool {
    let steady = state.tasks_of(&service.name).all(|t| t.wanted && t.seen.state == TaskState::Running);
    let spec = service.spec();
    let fits = |node: &NodeRecord| {
        let specs =
            || state.tasks.values().filter(|t| t.node == node.id).filter_map(|t| state.services.get(&t.service)?.specs.get(&t.version));
        let memory: u64 = specs().filter_map(|s| s.memory).sum();
        let cpus: u64 = specs().filter_map(|s| s.cpus_milli).map(u64::from).sum();
        memory + spec.memory.unwrap_or(0) <= node.memory && cpus + u64::from(spec.cpus_milli.unwrap_or(0)) <= u64::from(node.cpus) * 1000
    };
    let too_many = state.tasks_of(&service.name).count() > desired(state, service);
    steady && !too_many && spec.replicas != Replicas::EveryNode && !state.nodes.values().any(|n| takes(n, spec) && fits(n))
}

/// It may be refused: there is no such service, or nothing to go back to.
pub fn is_whim(op: &Op) -> bool {
    matches!(op, Op::NodeDrain { .. } | Op::ServiceScale { .. } | Op::ServiceRestart(_) | Op::ServiceRollback(_) | Op::ModulesRollback)
}

/// A number of copies, as a script says it.
pub fn copies(rng: &mut Rng) -> u64 {
    rng.between(0, 5)
}
