//! One history: a safety phase in which anything may happen, then a liveness phase in which all must come to rest.

use crate::{
    counts::{Count, Counts},
    epilogue,
    node::Process,
    world::World,
};
use agent::{
    logic::{raft::Consensus, replica::Replica},
    model::{
        instance::InstanceState,
        node::{NodeState, Role},
    },
};

/// How long the cluster may take to come to rest once nothing breaks any more.
const SETTLE_MAX_MS: u64 = 90_000;
/// A leader that a restart of all machines needs no longer than this to show itself.
const LEADERLESS_MS: u64 = 8_000;
pub const LOOK_EVERY_MS: u64 = 250;
/// How soon nothing may happen any more.
const REST_WITHIN_MS: u64 = 20_000;

pub struct Outcome {
    pub hash: u64,
    pub counts: Counts,
}

/// # Panics
/// When a checker finds a violation, or the cluster does not come to rest.
pub fn play_in(world: &mut World) {
    world.begin_workload();
    world.begin_faults();
    let safety = world.options.safety_ms;
    while world.now < safety {
        world.run_until((world.now + 500).min(safety));
    }
    world.heal();
    let launched = world.cloud.by_operation.len() as u32;
    let nodes = world.rng.between(1, world.options.nodes_max.into()) as u32;
    world.note(20, nodes.into(), || format!("everything is healed; {nodes} nodes are wanted"));
    world.workload.settle(nodes, launched);
    world.workload.closing = !world.options.busy_to_the_end;
    world.settle_services();
    settle(world);
    close(world);
    rest(world);
    epilogue::play_in(world);
}

/// The clients come to their end, and what they heard is judged.
pub fn close(world: &mut World) {
    world.workload.closing = true;
    finish_clients(world);
    let leader = world.leader().expect("a cluster at rest has a leader");
    world.read_the_end(leader);
    let checked = world.checkers.linear.check();
    world.counts.add_many(Count::LinearChecked, checked);
}

/// With nothing to do nothing is done: no task moves, nobody is elected, not one entry is written. Whatever still follows
/// from what was there before (a better voter takes a seat) has come to its end by then.
fn rest(world: &mut World) {
    world.workload.quiet = true;
    let look = |world: &mut World| {
        // A new CA that nobody waits for any more may yet come to be, and is led to its end.
        if !world.workload.admin_is_idle() || !world.workload.clients_are_idle() {
            return None;
        }
        let missing = world.missing();
        let leader = world.leader()?;
        let replica = world.replica(leader)?;
        Some((leader, world.placement(replica), replica.applied(), missing))
    };
    let end = world.now + REST_WITHIN_MS;
    let (mut before, mut since) = (look(world), world.now);
    while world.now < since + world.options.rest_ms {
        world.run_until(world.now + LOOK_EVERY_MS);
        let after = look(world);
        if after.as_ref().is_none_or(|(.., missing)| missing.is_some()) || after != before {
            assert!(world.now < end, "violation: nobody asks for anything, and yet {before:?} became {after:?}");
            (before, since) = (after, world.now);
        }
    }
    world.counts.add_many(Count::ServicesBlocked, world.workload.blocked);
}

pub fn finish(world: &World) -> Outcome {
    let mut counts = world.counts.clone();
    counts.add_many(Count::Events, world.trace.events);
    Outcome { hash: world.trace.hash, counts }
}

pub fn settle(world: &mut World) {
    let healed = world.now;
    let mut leaderless_since = Some(world.now);
    let mut calm = 0;
    loop {
        world.run_until(world.now + LOOK_EVERY_MS);
        match world.leader() {
            Some(_) => leaderless_since = None,
            None => {
                let since = *leaderless_since.get_or_insert(world.now);
                if world.now > since + LEADERLESS_MS {
                    world.start_all();
                    leaderless_since = None;
                }
            }
        }
        let missing = world.missing();
        calm = if missing.is_none() { calm + 1 } else { 0 };
        if calm == 2 {
            return;
        }
        if let Some(missing) = missing.filter(|_| world.now > healed + SETTLE_MAX_MS) {
            panic!("violation: not at rest {} s after the heal: {missing}", SETTLE_MAX_MS / 1000);
        }
    }
}

fn finish_clients(world: &mut World) {
    let began = world.now;
    while !world.workload.clients_are_idle() {
        world.run_until(world.now + LOOK_EVERY_MS);
        // Clients ask whoever comes first; workers send them on.
        assert!(world.now < began + 60_000, "violation: a client is not answered in a healthy cluster");
    }
}

impl World {
    /// What is not yet as it should be.
    pub fn missing(&mut self) -> Option<String> {
        if !self.workload.admin_is_idle() {
            return Some("the administrator waits for an answer".into());
        }
        let Some(leader) = self.leader() else { return Some("nobody leads".into()) };
        let replica = self.replica(leader).expect("a leader runs");
        if let Some(missing) = self.missing_in(replica).or_else(|| self.missing_on_machines(replica)) {
            return Some(missing);
        }
        if let Some(missing) = self.missing_papers(leader) {
            return Some(missing);
        }
        let replica = self.replica(leader).expect("a leader runs");
        let (missing, blocked) = self.missing_tasks(replica.state());
        self.workload.blocked = blocked;
        missing
    }

    fn missing_in(&self, replica: &Replica) -> Option<String> {
        let state = replica.state();
        let desired = self.workload.target;
        if state.desired_nodes != desired {
            return Some(format!("{desired} nodes are wanted, the state says {}", state.desired_nodes));
        }
        if let Some(node) = state.nodes.values().find(|node| node.state != NodeState::Ready) {
            return Some(format!("node {} is {}: {}", node.id, node.state.as_str(), node.reason));
        }
        // Machines no provider made count too; only a leader's own instance may be one too many beside them.
        let launched = state.nodes.values().filter(|node| node.instance.is_some()).count();
        let by_hand = state.nodes.len() - launched;
        let right = launched + by_hand == desired as usize || by_hand >= desired as usize && launched <= 1;
        if !right {
            let instances: Vec<_> = state.instances.values().filter(|instance| !instance.ended()).collect();
            return Some(format!("{launched} nodes on instances and {by_hand} others, {desired} are wanted; {instances:?}"));
        }
        let able = state.nodes.values().filter(|node| node.admitted == Role::Manager).count();
        let odd = if able % 2 == 1 { able } else { able.saturating_sub(1) };
        let wanted = odd.min(self.workload.managers as usize);
        let group = replica.consensus().expect("a leader has a seat").membership();
        let learners = able.min(self.workload.managers as usize) - wanted;
        if group.learners.len() != learners {
            return Some(format!("learners are {:?}, {learners} are wanted", group.learners));
        }
        if group.voters.len() != wanted || group.is_joint() {
            return Some(format!("voters are {:?} (joint: {}), {wanted} are wanted", group.voters, group.is_joint()));
        }
        let running = |state| state == InstanceState::Running;
        let live: Vec<_> =
            state.instances.values().filter(|i| !matches!(i.state, InstanceState::Terminated | InstanceState::Failed)).collect();
        if let Some(instance) = live.iter().find(|instance| !running(instance.state)) {
            return Some(format!("{instance:?}"));
        }
        (live.len() != launched).then(|| format!("{} instances recorded, {launched} are nodes", live.len()))
    }

    fn missing_on_machines(&self, replica: &Replica) -> Option<String> {
        if let Some(host) = self.machines.iter().position(|machine| matches!(machine.process, Some(Process::Joining { .. }))) {
            return Some(format!("n{host} asks to be let in"));
        }
        let state = replica.state();
        let active = self.cloud.active();
        let launched = state.nodes.values().filter(|node| node.instance.is_some()).count();
        if active != launched {
            return Some(format!("the cloud bills {active} instances, {launched} are nodes"));
        }
        for node in state.nodes.values() {
            let host = self.host_of(node.id)?;
            let Some(there) = self.replica(host) else { return Some(format!("n{host} does not run")) };
            let seat = there.consensus().map(Consensus::member);
            if self.machines[host].disk.keyring.is_some() != seat.is_some() {
                return Some(format!("n{host} sits as member {seat:?}; keyring: {}", seat.is_none()));
            }
            if seat != node.member {
                return Some(format!("n{host} sits as member {seat:?}, not {:?}", node.member));
            }
            if seat.is_some() && there.applied() != replica.applied() {
                return Some(format!("n{host} has applied {} of {}", there.applied(), replica.applied()));
            }
        }
        None
    }
}
