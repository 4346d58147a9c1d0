//! The world around the replicas: one queue of events in the order of simulated time, and what each of them does.
//!
//! Everything random comes from one generator in the order of events, so a seed is a history. Events meant for a process
//! carry its life: those for an earlier one are dropped, those for a paused one wait.

use crate::{
    calls::Call,
    checkers::Checkers,
    cloud::Cloud,
    counts::{Count, Counts},
    disk::{Disk, Tail},
    faults::Fault,
    mutants::Mutant,
    network::{Endpoint, Network},
    node::{Body, Identity, Machine, Process},
    options::Options,
    papers::Held,
    rng::Rng,
    tasks::{Runtime, TaskStep},
    trace::{Lines, Trace},
    workload::Workload,
};
use agent::{
    logic::replica::Genesis,
    model::{
        ids::{ClusterId, NodeId},
        instance::InstanceState,
        io::{Input, Keyring},
        query::{Answer, Principal, Way},
    },
};
use std::{collections::BTreeMap, rc::Rc};

/// Much sooner than in earnest: a history is short.
const ALONE_AFTER_MS: u64 = 1_500;

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub options: Options,
    pub trace: Trace,
    pub counts: Counts,
    pub machines: Vec<Machine>,
    pub network: Network,
    pub cloud: Cloud,
    pub checkers: Checkers,
    pub workload: Workload,
    pub calls: BTreeMap<u64, Call>,
    pub next_id: u64,
    /// How the last call of a play, or of a person in an ending, ended.
    pub heard: Option<Option<Answer>>,
    /// The machine that a person told to go on without the majority.
    pub recovering: Option<usize>,
    pub mutant: Option<Mutant>,
    queue: BTreeMap<(u64, u64), Box<Event>>,
    queued: u64,
}

/// What makes a history: the same again is the same history.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub seed: u64,
    /// The faults are mixed as this mutant needs them.
    pub mix: Option<Mutant>,
    pub mutant: Option<Mutant>,
}

pub enum Event {
    /// The replica's deadline.
    Wake {
        host: usize,
        life: u64,
    },
    DiskDone {
        host: usize,
        life: u64,
    },
    /// Something for a process, from itself (the end of an effect) or from a peer.
    Tell {
        host: usize,
        life: Option<u64>,
        input: Input,
    },
    CallArrive {
        host: usize,
        call: u64,
        from: Endpoint,
        principal: Principal,
        body: Rc<Body>,
        forwarded: bool,
    },
    CallReturn {
        call: u64,
        answer: Option<Answer>,
    },
    /// A provider call takes effect; its answer follows.
    Cloud {
        host: usize,
        life: u64,
        id: u64,
        call: agent::model::io::ProviderCall,
    },
    Boot {
        host: usize,
    },
    Join {
        host: usize,
        life: u64,
    },
    /// Something happens to a process that is not the agent's.
    Task {
        host: usize,
        step: TaskStep,
    },
    /// What a mutant makes of a node's own records.
    OldRecords {
        host: usize,
        life: u64,
        input: Box<Input>,
    },
    Scripted {
        host: usize,
        life: u64,
        generation: u64,
        input: Box<Input>,
    },
    FencedWrite {
        host: usize,
        term: u64,
    },
    /// It asks for a certificate of the authority that takes over.
    Renew {
        host: usize,
        life: u64,
    },
    Fault(Fault),
    Client(usize),
    Admin,
}

impl World {
    pub fn new(origin: Origin, lines: Lines) -> World {
        let mut rng = Rng::new(origin.seed);
        let mut options = Options::draw(&mut rng);
        // From chance of its own, so that the other histories stay what they were.
        options.draw_services(&mut Rng::new(!origin.seed));
        options.draw_the_rest(&mut Rng::new(origin.seed.rotate_left(32) ^ !origin.seed));
        if let Some(mutant) = origin.mix {
            mutant.mix(&mut options);
        }
        World::with(options, rng, lines, origin.mutant)
    }

    pub fn with(options: Options, rng: Rng, lines: Lines, mutant: Option<Mutant>) -> World {
        let workload = Workload::new(&options);
        let mut world = World {
            now: 0,
            rng,
            options,
            trace: Trace::new(lines),
            counts: Counts::default(),
            machines: Vec::new(),
            network: Network::default(),
            cloud: Cloud::default(),
            checkers: Checkers::default(),
            workload,
            calls: BTreeMap::new(),
            next_id: 1,
            heard: None,
            recovering: None,
            mutant,
            queue: BTreeMap::new(),
            queued: 0,
        };
        world.originate();
        world
    }

    fn originate(&mut self) {
        let host = self.add_machine("10.0.0.1:5080".into(), Some("i-1".into()), String::new(), Vec::new());
        let cluster = ClusterId(self.rng.next());
        let (ca, ca_key) = (vec![0xca; 64], self.rng.bytes(48));
        self.workload.ca_keys.push((ca.clone(), ca_key.clone()));
        self.machines[host].held = Held::of(&ca);
        let keyring = Keyring { ca_key, join_key: self.rng.bytes(32), secrets_key: self.rng.bytes(32), epoch: 0, next: None };
        self.machines[host].disk.keyring = Some(keyring);
        self.machines[host].identity.genesis = Some(Genesis { cluster, name: "sim".into(), ca, tokens: Vec::new() });
        self.cloud.add("i-1".into(), None, "10.0.0.1:5080".into(), host);
        self.boot_later(host);
    }

    pub fn add_machine(&mut self, address: String, instance: Option<String>, secret: String, seeds: Vec<String>) -> usize {
        let drift_ppm = self.rng.signed(self.options.drift_ppm);
        if drift_ppm != 0 {
            self.counts.add(Count::Drifts);
        }
        let seeds = seeds.into_iter().map(Way::unknown).collect();
        let identity = Identity { node: NodeId(self.rng.next()), key: self.rng.bytes(32), genesis: None, secret, seeds, admission: None };
        self.machines.push(Machine {
            address,
            instance,
            disk: Disk::new(self.mutant),
            held: Held::default(),
            identity,
            process: None,
            life: 0,
            drift_ppm,
            skew_ms: self.rng.signed(self.options.skew_ms),
            paused_until: 0,
            full_until: 0,
            slow_disk_ms: 0,
            alone_after_ms: ALONE_AFTER_MS,
            given_up: false,
            gone: false,
            retired: false,
            runtime: Runtime::default(),
            executor: 0,
        });
        self.machines.len() - 1
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((time.max(self.now), self.queued), Box::new(event));
    }

    pub fn later(&mut self, (low, high): (u64, u64), event: Event) {
        let delay = self.rng.between(low, high);
        self.at(self.now + delay, event);
    }

    /// Handles events up to and including world time `until`.
    pub fn run_until(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let (time, number) = *entry.key();
            if time > until {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(time);
            self.cloud.now = self.now;
            self.handle(number, event);
        }
        self.now = self.now.max(until);
    }

    pub fn host_at(&self, address: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.address == address && !machine.gone)
    }

    pub fn host_of(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.identity.node == node)
    }

    pub fn is_up(&self, host: usize) -> bool {
        self.machines[host].process.is_some()
    }

    /// Machines that could exchange messages.
    pub fn hosts(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|host| !self.machines[*host].gone).collect()
    }

    /// The life this event is for, if it is for a process.
    fn audience(&self, event: &Event) -> Option<(usize, Option<u64>)> {
        match event {
            Event::Wake { host, life }
            | Event::DiskDone { host, life }
            | Event::Join { host, life }
            | Event::Renew { host, life }
            | Event::OldRecords { host, life, .. }
            | Event::Scripted { host, life, .. } => Some((*host, Some(*life))),
            Event::Tell { host, life, .. } => Some((*host, *life)),
            Event::CallArrive { host, .. } => Some((*host, None)),
            Event::CallReturn { call, .. } => self.calls.get(call).and_then(|call| call.caller.process()),
            Event::Task { .. }
            | Event::FencedWrite { .. }
            | Event::Cloud { .. }
            | Event::Boot { .. }
            | Event::Fault(_)
            | Event::Client(_)
            | Event::Admin => None,
        }
    }

    fn handle(&mut self, number: u64, event: Box<Event>) {
        if let Some((host, life)) = self.audience(&event) {
            let machine = &self.machines[host];
            if life.is_some_and(|life| life != machine.life) {
                return;
            }
            if machine.paused_until > self.now && machine.process.is_some() {
                let resume = machine.paused_until;
                // Under its old number: what waits keeps its order.
                self.queue.insert((resume, number), event);
                return;
            }
        }
        let event = *event;
        self.trace.events += 1;
        self.trace.mix(self.now);
        match event {
            Event::Wake { host, .. } => {
                if self.machines[host].running().is_some_and(|running| running.wake_at <= self.now) {
                    self.note(1, host as u64, || format!("n{host} tick"));
                    self.input(host, Input::Tick);
                }
            }
            Event::DiskDone { host, .. } => self.disk_done(host),
            Event::Tell { host, input, .. } => self.tell(host, input),
            Event::CallArrive { host, call, from, principal, body, forwarded } => {
                self.call_arrives(host, call, from, principal, body, forwarded)
            }
            Event::CallReturn { call, answer } => self.call_returns(call, answer),
            Event::Cloud { host, life, id, call } => self.cloud_executes(host, life, id, call),
            Event::Boot { host } => self.boot(host),
            Event::Join { host, .. } => self.try_join(host),
            Event::Task { host, step } => self.task_steps(host, step),
            Event::OldRecords { host, input, .. } => self.input(host, *input),
            Event::Scripted { host, generation, input, .. } => self.scripted(host, generation, *input),
            Event::FencedWrite { host, term } => self.fenced_write(host, term),
            Event::Renew { host, life } => self.renew(host, life),
            Event::Fault(fault) => self.strike(fault),
            Event::Client(client) => self.client_acts(client),
            Event::Admin => self.admin_acts(),
        }
    }

    /// One thing that happened, in the trace.
    pub fn note(&mut self, tag: u64, detail: u64, line: impl FnOnce() -> String) {
        self.trace.mix(tag << 56 | detail);
        self.trace.line(self.now, line);
    }

    fn tell(&mut self, host: usize, input: Input) {
        match &input {
            Input::Raft { messages, .. } => messages.iter().for_each(|message| self.trace.mix_bytes(message)),
            Input::Snapshot { data, .. } => self.trace.mix_bytes(data),
            _ => {}
        }
        if let Input::Raft { from, .. } | Input::Snapshot { from, .. } = &input {
            // The gate hands in what managers send, and nobody else.
            if !self.machines[host].running().is_some_and(|running| running.knows_as_manager(*from)) {
                return;
            }
        }
        let told = match &input {
            Input::ReportAnswered { managers, orders, .. } if !managers.is_empty() => Some(orders.clone()),
            _ => None,
        };
        if told.is_some() {
            self.orders_heard(host);
        }
        self.note(2, host as u64, || format!("n{host} <- {}", brief(&input)));
        let life = self.machines[host].life;
        self.input(host, input);
        if let Some(orders) = told {
            self.orders_taken(host, life, &orders);
        }
    }

    // ---- machines start and stop

    pub fn boot_later(&mut self, host: usize) {
        self.later(self.options.boot_ms, Event::Boot { host });
    }

    fn boot(&mut self, host: usize) {
        if self.machines[host].gone || self.machines[host].retired || self.is_up(host) {
            return;
        }
        if let Some(id) = self.machines[host].instance.clone() {
            if matches!(self.cloud.instances[&id].state, InstanceState::Terminated) {
                return;
            }
            self.cloud.set(&id, InstanceState::Running);
        }
        self.note(3, host as u64, || format!("n{host} starts"));
        self.check_keyring_opens(host);
        let (boot, mono_base, seed) = (self.rng.next(), self.rng.below(1 << 40), self.rng.next());
        let world = self.now;
        let machine = &mut self.machines[host];
        machine.life += 1;
        machine.paused_until = 0;
        let life = machine.life;
        if machine.is_member_of_cluster() {
            machine.start(boot, mono_base, seed, world);
            self.tell_papers(host);
            self.find_tasks(host);
            self.drain(host);
        } else {
            machine.process = Some(Process::Joining { tried: 0 });
            self.at(self.now, Event::Join { host, life });
        }
    }

    /// The process ends: in order, by its own decision, or by kill -9.
    pub fn stop_process(&mut self, host: usize) {
        if self.machines[host].process.take().is_none() {
            return;
        }
        let mut tail = Tail::Lost;
        if self.machines[host].disk.is_writing() {
            tail = *self.rng.pick(&[Tail::Lost, Tail::Synced, Tail::Torn]).expect("not empty");
        }
        let lost = self.machines[host].disk.crash(tail);
        self.machines[host].life += 1;
        match tail {
            Tail::Lost => {}
            Tail::Synced => self.counts.add(Count::CrashesSynced),
            Tail::Torn => self.counts.add(Count::CrashesTorn),
        }
        if lost {
            self.counts.add(Count::CrashesUnsynced);
        }
        let ended = |world: &World, id: &String| world.cloud.instances[id].state == InstanceState::Terminated;
        if let Some(id) = self.machines[host].instance.clone().filter(|id| !ended(self, id)) {
            self.cloud.set(&id, InstanceState::Stopped);
        }
    }
}

/// An input as one short line.
fn brief(input: &Input) -> String {
    match input {
        Input::Raft { from, to, messages } => format!("raft from {from} to member {}: {} messages", to.0, messages.len()),
        Input::Snapshot { from, to, data, .. } => format!("snapshot from {from} to member {}: {} bytes", to.0, data.len()),
        other => {
            let mut text = format!("{other:?}");
            if let Some((cut, _)) = text.char_indices().nth(220) {
                text.truncate(cut);
            }
            text
        }
    }
}
