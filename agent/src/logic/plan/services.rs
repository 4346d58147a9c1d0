//! Services: from what is declared to tasks on nodes, and from an old version to a new one.
//!
//! Nothing is remembered between two looks. Which tasks stay, which must be replaced, how many may be replaced now and
//! whether the new version proves itself all follow from the records, so a new leader goes on where the last one was.
//! - A task *stays* if it is of the version that should run, on a node that may keep it.
//! - A task *leaves* if its version or its node must go; it counts until something up replaces it.
//! - A task is *up* once its node said so (running for `grace`, or ended well).

use super::{Decision, Sight, placement::Room};
use crate::{
    logic::state::{State, has_labels},
    model::{
        command::Command,
        ids::NodeId,
        node::{NodeRecord, NodeState},
        service::{Replicas, Roll, ServiceRecord},
        task::{TaskRecord, TaskState},
    },
};
use std::collections::BTreeMap;

/// Tasks of a node that is lost for longer move; a repaired agent keeps them until then.
pub const TASKS_MOVE_AFTER_MS: u64 = 5_000;

/// Why copies of a service are missing, by service.
pub type Unplaced = BTreeMap<String, Vec<String>>;

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    look(sight, decisions);
}

/// Why copies are missing now.
pub fn unplaced(sight: &Sight) -> Unplaced {
    look(sight, &mut Vec::new())
}

/// One sentence for each service that does not run as declared.
pub(super) fn problems(sight: &Sight, problems: &mut Vec<String>) {
    let unplaced = unplaced(sight);
    for service in sight.state.services.values() {
        let name = &service.name;
        if let Roll::Stopped(why) = &service.roll {
            problems.push(format!("service {name}: the update to version {} stopped: {why}", service.version));
        }
        let wanted = || sight.state.tasks_of(name).filter(|t| t.wanted);
        let (up, desired) = (wanted().filter(|t| is_up(t)).count(), sight.state.desired(service));
        if up < desired as usize {
            let failing = || wanted().find(|t| !t.seen.error.is_empty()).map(|t| t.seen.error.as_str());
            let why = unplaced.get(name).and_then(|whys| whys.first()).map(String::as_str).or_else(failing);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            problems.push(format!("service {name}: {up} of {desired} tasks run{why}"));
        }
    }
}

fn look(sight: &Sight, decisions: &mut Vec<Decision>) -> Unplaced {
    clear_away(sight, decisions);
    let mut room = Room::new(sight.state);
    let mut unplaced = Unplaced::new();
    if sight.state.destroying {
        return unplaced;
    }
    for service in sight.state.services.values() {
        let mut look = Look::new(sight, service);
        match service.spec().replicas {
            Replicas::Count(_) => look.count(&mut room),
            Replicas::EveryNode => look.every_node(&mut room),
        }
        look.judge_roll();
        decisions.extend(look.commands.into_iter().map(Decision::Propose));
        if !look.unplaced.is_empty() {
            unplaced.insert(service.name.clone(), look.unplaced);
        }
    }
    unplaced
}

/// What is not wanted and has ended is forgotten; what a lost node ran is given up.
fn clear_away(sight: &Sight, decisions: &mut Vec<Decision>) {
    for task in sight.state.tasks.values() {
        let command = match sight.state.nodes.get(&task.node) {
            None => Command::TaskForget(task.number),
            Some(_) if !task.wanted && task.seen.state.ended() => Command::TaskForget(task.number),
            Some(node) if task.wanted && sight.is_given_up(node) && !is_over(sight.state, task) => Command::TaskStop(task.number),
            Some(_) => continue,
        };
        decisions.push(Decision::Propose(command));
    }
}

impl Sight<'_> {
    /// Lost for so long that its tasks move.
    fn is_given_up(&self, node: &NodeRecord) -> bool {
        if node.state != NodeState::Lost {
            return false;
        }
        // By the stamps, or (the last leader's clock may have been ahead) as long as this leader waited beyond `lost`.
        let stamped = self.stamp_ms().saturating_sub(node.since_ms);
        let waited = self.now.mono.saturating_sub(self.observed.heard_at(node.id)).saturating_sub(self.lost_after_ms);
        stamped.max(waited) >= TASKS_MOVE_AFTER_MS
    }
}

struct Look<'a> {
    sight: &'a Sight<'a>,
    service: &'a ServiceRecord,
    /// The version that missing copies get.
    target: u64,
    stays: Vec<&'a TaskRecord>,
    leaves: Vec<&'a TaskRecord>,
    commands: Vec<Command>,
    unplaced: Vec<String>,
    desired: usize,
    start_first: bool,
}

fn is_up(task: &TaskRecord) -> bool {
    // While too few nodes are there, standing still is as it should be.
    matches!(task.seen.state, TaskState::Running | TaskState::Exited | TaskState::Paused | TaskState::Held)
}

/// One of a number of copies that has done its work: it needs no node any more, so a drain or a loss does not run it again.
fn is_over(state: &State, task: &TaskRecord) -> bool {
    let counted = |s: &ServiceRecord| matches!(s.spec().replicas, Replicas::Count(_));
    task.seen.state == TaskState::Exited && state.services.get(&task.service).is_some_and(counted)
}

/// It proved itself once, and now ends again and again.
fn keeps_ending(task: &TaskRecord) -> bool {
    task.started && !is_up(task) && task.seen.restarts > 0
}

/// It did not stay up for `grace`, not once.
fn has_failed(task: &TaskRecord) -> bool {
    !task.started && !is_up(task) && (task.seen.restarts > 0 || task.seen.state == TaskState::Failed || !task.seen.error.is_empty())
}

impl<'a> Look<'a> {
    fn new(sight: &'a Sight<'a>, service: &'a ServiceRecord) -> Look<'a> {
        let state = sight.state;
        let stopped = matches!(service.roll, Roll::Stopped(_));
        let tasks: Vec<&TaskRecord> = state.tasks_of(&service.name).filter(|t| t.wanted).collect();
        let older = tasks.iter().map(|t| t.version).filter(|v| *v != service.version).max();
        let target = if stopped { older.or(service.previous).filter(|v| service.specs.contains_key(v)) } else { None };
        let target = target.unwrap_or(service.version);
        let (start_first, desired) =
            (service.spec().update.start_first && !service.spec().has_public_port(), state.desired(service) as usize);
        let mut look =
            Look { sight, service, target, stays: vec![], leaves: vec![], commands: vec![], unplaced: vec![], desired, start_first };
        for task in tasks {
            let over = is_over(state, task);
            let Some(node) = state.nodes.get(&task.node).filter(|n| over || !sight.is_given_up(n)) else { continue };
            let must_move = !over && (node.state == NodeState::Draining || state.is_leaving(node));
            let failed_update = stopped && target != service.version && task.version == service.version && has_failed(task);
            // What has to go and does not run anyway is not waited for.
            if failed_update || (must_move && !is_up(task)) {
                look.stop(task);
            } else if must_move || (!stopped && task.version != service.version) {
                look.leaves.push(task);
            } else {
                look.stays.push(task);
            }
        }
        look
    }

    fn stop(&mut self, task: &TaskRecord) {
        self.commands.push(Command::TaskStop(task.number));
    }

    fn place(&mut self, room: &mut Room<'a>, among: Option<NodeId>) -> bool {
        let spec = &self.service.specs[&self.target];
        match room.place(&self.service.name, self.target, spec, among) {
            Ok(node) => {
                self.commands.push(Command::TaskPlace { service: self.service.name.clone(), version: self.target, node });
                true
            }
            Err(why) => {
                self.unplaced.push(why);
                false
            }
        }
    }

    fn parallel(&self) -> usize {
        self.service.spec().update.parallel.max(1) as usize
    }

    /// A number of copies, wherever there is room.
    fn count(&mut self, room: &mut Room<'a>) {
        let (up, stays) = (self.stays.iter().filter(|t| is_up(t)).count(), self.stays.len());
        // Without an update tasks only move, and one that keeps ending elsewhere is no reason to keep a node from being emptied.
        let ending = self.stays.iter().filter(|t| self.service.roll != Roll::Going && keeps_ending(t)).count();
        let mut coming = stays - up - ending;
        // What is missing altogether comes at once.
        let missing = self.desired.saturating_sub(stays + self.leaves.len());
        let mut placed = true;
        for _ in 0..missing {
            coming += 1;
            placed = self.place(room, None);
            if !placed {
                break;
            }
        }
        if stays > self.desired {
            self.drop_surplus();
        }
        // The worst of those that leave goes first: what does not run anyway, then the newest.
        self.leaves.sort_by_key(|t| (is_up(t), u64::MAX - t.number.0));
        let leaves = self.leaves.clone();
        let spare = (up + ending + leaves.len()).saturating_sub(self.desired).min(leaves.len());
        let taken_over = |t: &&TaskRecord| self.stays.iter().any(|s| s.node == t.node && is_up(s));
        // Beside its replacement first, so that copies stay spread.
        let (beside, elsewhere): (Vec<&TaskRecord>, Vec<&TaskRecord>) = leaves.into_iter().partition(taken_over);
        let ordered: Vec<&TaskRecord> = beside.into_iter().chain(elsewhere).collect();
        for task in ordered.iter().take(spare) {
            self.stop(task);
        }
        let remaining = &ordered[spare..];
        let slots = self.parallel().saturating_sub(coming);
        if self.start_first {
            // Never more new ones than wanted: the surplus would be stopped, and placed, and stopped.
            for _ in 0..slots.min(remaining.len()).min(self.desired.saturating_sub(stays + missing)) {
                placed = self.place(room, None);
                if !placed {
                    break;
                }
            }
        } else {
            for task in remaining.iter().take(slots) {
                self.stop(task);
            }
        }
        // No room beside the old ones: one that does not run anyway makes way.
        let idle = remaining.iter().find(|t| !is_up(t)).filter(|_| !placed && (self.start_first || slots == 0));
        idle.into_iter().for_each(|task| self.stop(task));
    }

    /// Fewer are wanted: those that do not run, then the newest on the nodes that have most.
    fn drop_surplus(&mut self) {
        let mut left = self.stays.clone();
        while left.len() > self.desired {
            let on = |node: NodeId| left.iter().filter(|t| t.node == node).count();
            let worst = left.iter().enumerate().min_by_key(|(_, t)| (is_up(t), usize::MAX - on(t.node), u64::MAX - t.number.0));
            let Some(at) = worst.map(|(at, _)| at) else { return };
            let task = left.remove(at);
            self.stop(task);
        }
    }

    /// One copy on each node that may have one.
    fn every_node(&mut self, room: &mut Room<'a>) {
        let state = self.sight.state;
        let open: Vec<&NodeRecord> = state.nodes.values().filter(|n| state.takes_tasks(n) && has_labels(n, self.service.spec())).collect();
        let (stays, leaves) = (self.stays.clone(), self.leaves.clone());
        // A lost node may come back to its task; any other that is not open has to let go of it.
        let keeps =
            |t: &&TaskRecord| open.iter().any(|n| n.id == t.node) || state.nodes.get(&t.node).is_some_and(|n| n.state == NodeState::Lost);
        for task in stays.iter().chain(&leaves).filter(|t| !keeps(t)) {
            self.stop(task);
        }
        let on = |tasks: &[&'a TaskRecord], node: NodeId| tasks.iter().copied().filter(|t| t.node == node).collect::<Vec<_>>();
        let mut coming = stays.iter().filter(|t| !is_up(t)).count();
        for node in &open {
            let (new, old) = (on(&stays, node.id), on(&leaves, node.id));
            for surplus in new.iter().skip(1) {
                self.stop(surplus);
            }
            match (new.first(), old.first()) {
                (None, None) => {
                    coming += 1;
                    self.place(room, Some(node.id));
                }
                (Some(new), _) if is_up(new) => old.iter().for_each(|task| self.stop(task)),
                (Some(_), _) => {}
                (None, Some(_)) if coming >= self.parallel() => {}
                (None, Some(first)) => {
                    coming += 1;
                    let beside = self.start_first && self.place(room, Some(node.id));
                    if !beside && (!self.start_first || !is_up(first)) {
                        old.iter().for_each(|task| self.stop(task));
                    }
                }
            }
        }
    }

    /// Whether the newest version runs, or proved that it does not.
    fn judge_roll(&mut self) {
        let service = self.service;
        let all_up = self.leaves.is_empty() && self.stays.len() == self.desired && self.stays.iter().all(|t| is_up(t));
        let done = all_up && self.stays.iter().all(|t| t.version == service.version);
        match &service.roll {
            Roll::Done => {}
            Roll::Going | Roll::Stopped(_) if done => self.rolled(Roll::Done),
            Roll::Stopped(_) => {}
            Roll::Going => {
                if let Some(why) = self.failure() {
                    // Nothing of an update that failed is begun any more.
                    self.commands.retain(|c| !matches!(c, Command::TaskPlace { .. }));
                    self.rolled(Roll::Stopped(why));
                    if service.spec().update.rollback && service.rollback_target().is_some() {
                        self.commands.push(Command::ServiceRollback(service.name.clone()));
                    }
                }
            }
        }
    }

    fn failure(&self) -> Option<String> {
        if let Some(task) = self.stays.iter().find(|t| has_failed(t)) {
            let node = self.sight.state.nodes.get(&task.node).map_or("a node", |n| n.name.as_str());
            let why = if task.seen.error.is_empty() { "it ended" } else { task.seen.error.as_str() };
            return Some(format!("task {}.{} on {node} did not stay up: {why}", task.service, task.number.0));
        }
        // By this leader's own waiting: by the stamps, a leader whose clock is ahead would end what has just begun.
        let began = self.sight.observed.rolling_since(&self.service.name, self.service.version).unwrap_or(self.sight.now.mono);
        let took_ms = self.sight.now.mono.saturating_sub(began);
        (took_ms > self.service.spec().update.deadline_ms).then(|| {
            let why = self.unplaced.first().map(|why| format!(": {why}")).unwrap_or_default();
            format!("it was not done after {} s{why}", self.service.spec().update.deadline_ms / 1000)
        })
    }

    fn rolled(&mut self, roll: Roll) {
        self.commands.push(Command::Rolled { service: self.service.name.clone(), version: self.service.version, roll });
    }
}
