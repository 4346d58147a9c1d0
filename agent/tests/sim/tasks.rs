//! Processes that outlive their agent: a machine's simulated runtime, and what must be true of tasks.
//!
//! A process starts slowly, may end by itself, and goes on when the agent dies; a machine that stops for good, or now
//! and then one that restarts, takes its processes with it.

use crate::{
    counts::Count,
    mutants::Mutant,
    world::{Event, World},
};
use agent::{
    logic::replica::Replica,
    model::{
        io::Input,
        query::Peer,
        task::{Exit, Orders, TaskCall, TaskEvent, TaskNumber, TaskOrder},
    },
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Programs by their first letter: this one never stays up.
pub const BROKEN: &str = "broken";

/// What a machine's disk and process table know of tasks.
#[derive(Default)]
pub struct Runtime {
    records: BTreeMap<TaskNumber, TaskOrder>,
    pub running: BTreeMap<TaskNumber, u32>,
    /// Fixed ports of the node, held by processes until they end.
    ports: BTreeMap<u16, TaskNumber>,
    /// Of those, the ones that stand still.
    pub paused: BTreeSet<TaskNumber>,
    /// Told by a leader that these are not to run here.
    unwanted: BTreeSet<TaskNumber>,
    /// Lives of the agent in which a leader spoke to it.
    spoken_to: u64,
    /// What its disk says that it is to run.
    pub assignment: Option<Orders>,
    pids: u32,
    /// The newest orders that it took, or the index of the state that it read them from.
    orders_index: u64,
    /// Its first assignment, for a mutant.
    first_assignment: Option<Orders>,
    /// Orders heard lately, for a mutant.
    earlier: VecDeque<Vec<TaskOrder>>,
}

impl Runtime {
    fn end(&mut self, number: TaskNumber) {
        self.running.remove(&number);
        self.paused.remove(&number);
        self.ports.retain(|_, holder| *holder != number);
    }
}

pub enum TaskStep {
    /// The child is about to exec, in this life of the agent.
    Execs(u64, Box<TaskOrder>),
    /// The process with this pid ends.
    Ends(TaskNumber, u32, Exit),
    /// It ends by chance, unless everything is healed by then.
    Fails(TaskNumber, u32, Exit),
}

impl World {
    /// The agent began a life: it finds what lies on its disk.
    pub fn find_tasks(&mut self, host: usize) {
        if !self.options.services {
            return;
        }
        let life = Some(self.machines[host].life);
        let runtime = &self.machines[host].runtime;
        let mut inputs = Vec::new();
        let blind = self.mutant == Some(Mutant::TasksNotFound);
        for number in runtime.records.keys().filter(|_| !blind) {
            let event = match runtime.running.get(number) {
                Some(pid) => TaskEvent::Up { pid: *pid, ports: BTreeMap::new(), adopted: true },
                None => TaskEvent::Ended(Exit::Unknown),
            };
            inputs.push(Input::Task { number: *number, event });
        }
        self.counts.add_many(Count::TasksAdopted, runtime.running.len() as u64);
        inputs.push(Input::TasksFound { orders: runtime.records.values().filter(|_| !blind).cloned().collect() });
        for input in inputs {
            self.at(self.now, Event::Tell { host, life, input });
        }
        if self.mutant == Some(Mutant::TaskMovedBeforeFencing)
            && let Some(Orders { tasks, .. }) = self.machines[host].runtime.first_assignment.clone()
        {
            let managers: Vec<Peer> =
                self.machines[host].identity.admission.iter().flat_map(|admission| admission.managers.clone()).collect();
            let leader = managers.first().map(|manager| (manager.node, manager.address.clone()));
            let input = Input::ReportAnswered {
                leader,
                managers,
                removed: Vec::new(),
                orders: Orders { index: 0, tasks },
                authorities: Default::default(),
            };
            self.at(self.now, Event::OldRecords { host, life: self.machines[host].life, input: Box::new(input) });
        }
    }

    pub fn task_called(&mut self, host: usize, life: u64, call: TaskCall) {
        self.note(40, host as u64, || format!("n{host} task {call:?}"));
        match call {
            TaskCall::Start { order, .. } => {
                let number = order.number;
                assert!(!self.machines[host].given_up, "violation: n{host}, which was given up, starts task {}", number.0);
                assert!(order.hold.is_none(), "violation: n{host} starts task {} while too few nodes are there", number.0);
                let moved = self.replica(host).and_then(|r| r.state().tasks.get(&number)).is_some_and(|t| !t.wanted);
                if self.consensus(host).is_some_and(|c| c.is_leader()) {
                    self.hears_itself(host);
                }
                let own = self.replica(host).filter(|replica| replica.consensus().is_some()).map_or(0, Replica::applied);
                let runtime = &mut self.machines[host].runtime;
                runtime.orders_index = runtime.orders_index.max(own);
                assert!(!runtime.running.contains_key(&number), "violation: n{host} starts task {} a second time", number.0);
                assert!(
                    !runtime.unwanted.contains(&number) && !moved,
                    "violation: n{host} starts task {} which it knows was moved",
                    number.0
                );
                assert!(order.hold.is_none(), "violation: n{host} starts task {} below min_nodes", number.0);
                let assigned = |orders: &Orders| orders.tasks.iter().any(|o| o.number == number && o.wanted);
                if runtime.spoken_to != life {
                    let assigned = runtime.assignment.as_ref().is_some_and(assigned);
                    assert!(assigned, "violation: n{host} starts task {} on old records", number.0);
                    self.counts.add(Count::TasksStartedAlone);
                }
                let runtime = &mut self.machines[host].runtime;
                runtime.records.insert(number, (*order).clone());
                self.checkers.runs(number.0, host);
                let slow = if self.rng.chance(100) { 2_000 } else { 60 };
                self.later((1, slow), Event::Task { host, step: TaskStep::Execs(life, order) });
            }
            TaskCall::Stop { number, signal, timeout_ms } => {
                assert!(
                    !self.machines[host].runtime.paused.contains(&number),
                    "violation: task {} is stopped while it stands still",
                    number.0
                );
                if self.replica(host).is_some_and(|r| r.state().tasks.get(&number).is_some_and(|t| t.wanted)) {
                    self.counts.add(Count::TasksHeld);
                }
                let Some(pid) = self.machines[host].runtime.running.get(&number).copied() else { return };
                self.counts.add(Count::TasksAskedToEnd);
                let exit = Exit::Signal(if self.rng.chance(100) { 9 } else { signal as i32 });
                let takes = if exit == Exit::Signal(9) { timeout_ms.min(3_000) } else { 200 };
                if self.mutant == Some(Mutant::EndedBeforeItEnded) {
                    let input = Input::Task { number, event: TaskEvent::Ended(exit) };
                    self.at(self.now, Event::Tell { host, life: Some(life), input });
                }
                self.later((1, takes), Event::Task { host, step: TaskStep::Ends(number, pid, exit) });
            }
            TaskCall::Pause { number, on } => {
                let runtime = &mut self.machines[host].runtime;
                if on && runtime.running.contains_key(&number) {
                    runtime.paused.insert(number);
                    self.counts.add(Count::TasksPaused);
                } else {
                    runtime.paused.remove(&number);
                }
            }
            TaskCall::Forget { number } => {
                let runtime = &mut self.machines[host].runtime;
                assert!(!runtime.running.contains_key(&number), "violation: n{host} forgets task {} which runs", number.0);
                runtime.records.remove(&number);
            }
        }
    }

    pub fn task_steps(&mut self, host: usize, step: TaskStep) {
        let (number, event) = match step {
            TaskStep::Execs(life, order) => {
                // Its agent died before it was let go: the child ends without having become the task.
                if life != self.machines[host].life || !self.is_up(host) {
                    return;
                }
                if self.rng.chance(self.options.task_trouble / 10) {
                    let event = TaskEvent::NotStarted { why: "no such file".into() };
                    return self.input(host, Input::Task { number: order.number, event });
                }
                self.counts.add(Count::TasksStarted);
                let runtime = &mut self.machines[host].runtime;
                runtime.pids += 1;
                let pid = runtime.pids;
                runtime.running.insert(order.number, pid);
                for port in order.spec.ports.iter().filter_map(|port| port.public) {
                    let holder = runtime.ports.insert(port, order.number);
                    assert!(holder.is_none(), "violation: task {} finds port {port} of n{host} held by {holder:?}", order.number.0);
                }
                let broken = order.spec.command[0] == BROKEN;
                if broken || self.rng.chance(self.options.task_trouble) {
                    let exit = if self.rng.chance(500) { Exit::Code(1) } else { Exit::Signal(11) };
                    let step = if broken { TaskStep::Ends(order.number, pid, exit) } else { TaskStep::Fails(order.number, pid, exit) };
                    self.later(if broken { (1, 700) } else { (100, 20_000) }, Event::Task { host, step });
                }
                (order.number, TaskEvent::Up { pid, ports: BTreeMap::new(), adopted: false })
            }
            TaskStep::Fails(..) if self.workload.patient => return,
            TaskStep::Ends(number, pid, exit) | TaskStep::Fails(number, pid, exit) => {
                if self.machines[host].runtime.running.get(&number) != Some(&pid) {
                    return;
                }
                self.counts.add(Count::TasksEnded);
                self.machines[host].runtime.end(number);
                (number, TaskEvent::Ended(exit))
            }
        };
        self.note(41, number.0, || format!("n{host} task {}: {event:?}", number.0));
        // A dead agent hears of it when it looks at its disk.
        let life = self.machines[host].life;
        self.at(self.now, Event::Tell { host, life: Some(life), input: Input::Task { number, event } });
    }

    /// The machine went down, not only its agent.
    pub fn tasks_end(&mut self, host: usize) {
        self.machines[host].runtime.running.clear();
        self.machines[host].runtime.ports.clear();
        self.machines[host].runtime.paused.clear();
    }

    /// A mutant: now and then the orders of an earlier answer come with the newest one.
    pub fn mix_up(&mut self, host: usize, orders: &mut Orders) {
        let earlier = &mut self.machines[host].runtime.earlier;
        earlier.push_back(orders.tasks.clone());
        if earlier.len() > 3 {
            earlier.pop_front();
        }
        if self.rng.chance(300) {
            orders.tasks = self.machines[host].runtime.earlier[0].clone();
        }
    }

    /// A leader's answer to a report reached the agent.
    pub fn orders_heard(&mut self, host: usize) {
        self.machines[host].runtime.spoken_to = self.machines[host].life;
    }

    /// An agent that lives on after it heard this has it on its disk.
    pub fn orders_taken(&mut self, host: usize, life: u64, orders: &Orders) {
        if self.machines[host].life != life || !self.is_up(host) {
            return;
        }
        let runtime = &mut self.machines[host].runtime;
        if orders.index < runtime.orders_index {
            return;
        }
        runtime.orders_index = orders.index;
        // What is not to run, and what was ordered here once and is not spoken of any more.
        let wanted = |number: &TaskNumber| orders.tasks.iter().any(|o| o.number == *number && o.wanted);
        let known = runtime.records.keys().copied().chain(orders.tasks.iter().map(|o| o.number));
        let moved: Vec<TaskNumber> = known.filter(|number| !wanted(number)).collect();
        runtime.unwanted.extend(moved);
    }

    pub fn assigned(&mut self, host: usize, orders: Orders) {
        let runtime = &mut self.machines[host].runtime;
        runtime.assignment = Some(orders.clone());
        runtime.first_assignment.get_or_insert(orders);
    }

    /// A leader knows by itself what it is to run.
    pub fn hears_itself(&mut self, host: usize) {
        self.machines[host].runtime.spoken_to = self.machines[host].life;
    }
}
