//! A cluster of one whose disk, runtime and script are made of maps: what the daemon's pump does, by hand.

use agent::logic::replica::{Config, Genesis, Replica, Timings};
use agent::model::{
    ids::{ClusterId, NodeId, Now, RequestId, Ticket},
    io::{Batch, Effect, Input, Keyring, Restored, Seat},
    query::{Answer, Op, Principal, Query, Request, ServiceView, View, Way},
    script::{Hook, ScriptCall, ScriptReport},
    service::{Replicas, ServiceSpec},
    task::{Exit, Orders, TaskCall, TaskEvent, TaskNumber, TaskOrder},
};
use std::collections::{BTreeMap, VecDeque};

pub struct World {
    pub replica: Replica,
    pub now: Now,
    pub disk: Restored,
    pub answers: BTreeMap<u64, Answer>,
    pub asked: u64,
    /// What runs, whatever the agent knows of it.
    pub running: BTreeMap<TaskNumber, TaskOrder>,
    pub started: u32,
    /// Commands that end at once with this code.
    pub broken: Option<(&'static str, i32)>,
    /// Calls of the script that wait for an answer, and how often the executor was ended.
    pub calls: VecDeque<(u64, ScriptCall)>,
    pub ended: u32,
    /// What the data dir says is to run here.
    pub assignment: Option<Orders>,
    /// Where its last report goes.
    pub tried: Vec<Way>,
}

pub fn config(originate: bool) -> Config {
    Config {
        node: NodeId(1),
        boot: 7,
        name: "n1".into(),
        address: "127.0.0.1:1".into(),
        cpus: 2,
        memory: 1 << 30,
        labels: BTreeMap::new(),
        instance: None,
        public_key: vec![1; 32],
        keyring: Some(Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 0, next: None }),
        originate: originate.then(|| Genesis { cluster: ClusterId(9), name: "c".into(), ca: vec![5], tokens: vec![] }),
        seeds: vec![],
        assignment: None,
        has_provider: false,
        on_stop_end_tasks: false,
        timings: Timings::default(),
    }
}

pub fn spec(program: &str, copies: u32) -> ServiceSpec {
    ServiceSpec { command: vec![program.into()], replicas: Replicas::Count(copies), ..ServiceSpec::default() }
}

impl World {
    pub fn new() -> World {
        World::start(Restored::default(), true, Now { mono: 1000, wall: 1_000_000 }, BTreeMap::new())
    }

    pub fn start(disk: Restored, originate: bool, now: Now, running: BTreeMap<TaskNumber, TaskOrder>) -> World {
        World::boot(config(originate), disk, now, running)
    }

    fn boot(config: Config, disk: Restored, now: Now, running: BTreeMap<TaskNumber, TaskOrder>) -> World {
        let assignment = config.assignment.clone();
        let replica = Replica::new(config, disk.clone(), 1, now).expect("starts");
        let mut world = World {
            replica,
            now,
            disk,
            answers: BTreeMap::new(),
            asked: 0,
            running,
            started: 0,
            broken: None,
            calls: VecDeque::new(),
            ended: 0,
            assignment,
            tried: Vec::new(),
        };
        world.drain();
        for number in world.running.keys().copied().collect::<Vec<_>>() {
            world.input(Input::Task { number, event: TaskEvent::Up { pid: 5, ports: BTreeMap::new(), adopted: true } });
        }
        let orders = world.running.values().cloned().collect();
        world.input(Input::TasksFound { orders });
        world
    }

    /// The agent dies and comes back; its tasks run on.
    pub fn restart(self) -> World {
        let mut world = World::start(self.disk, false, Now { mono: 1000, wall: self.now.wall + 100 }, self.running);
        world.asked = self.asked;
        world
    }

    /// The agent comes back as a worker that finds no manager; its tasks run on.
    pub fn without_cluster(self) -> World {
        let seeds = vec![Way::unknown("127.0.0.1:2".into())];
        let config = Config { keyring: None, seeds, assignment: self.assignment, ..config(false) };
        World::boot(config, Restored::default(), Now { mono: 1000, wall: self.now.wall + 100 }, self.running)
    }

    pub fn input(&mut self, input: Input) {
        self.replica.handle(input, self.now);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Persist { number, batch } => {
                    self.write(batch);
                    self.replica.handle(Input::Persisted { number }, self.now);
                }
                Effect::Reply { ticket, answer } => {
                    self.answers.insert(ticket.0, answer);
                }
                Effect::Assignment(orders) => self.assignment = Some(orders),
                Effect::Report { try_in_order, .. } => self.tried = try_in_order,
                Effect::Task(call) => self.run(call),
                Effect::Script { id, call } => {
                    assert!(self.calls.is_empty(), "one at a time");
                    self.calls.push_back((id, call));
                }
                Effect::ScriptEnd => {
                    self.calls.clear();
                    self.ended += 1;
                }
                Effect::Stop { why, .. } => panic!("stopped: {why}"),
                _ => {}
            }
        }
    }

    pub fn run(&mut self, call: TaskCall) {
        let (number, event) = match call {
            TaskCall::Start { order, .. } => {
                assert!(!self.running.contains_key(&order.number), "started twice");
                self.started += 1;
                let number = order.number;
                let broken = self.broken.filter(|(program, _)| order.command() == *program);
                self.replica
                    .handle(Input::Task { number, event: TaskEvent::Up { pid: 5, ports: BTreeMap::new(), adopted: false } }, self.now);
                match broken {
                    Some((_, code)) => (number, TaskEvent::Ended(Exit::Code(code))),
                    None => {
                        self.running.insert(number, *order);
                        return;
                    }
                }
            }
            TaskCall::Stop { number, .. } => {
                assert!(self.running.remove(&number).is_some(), "stopped what does not run");
                (number, TaskEvent::Ended(Exit::Signal(15)))
            }
            TaskCall::Pause { .. } => return,
            TaskCall::Forget { number } => {
                assert!(!self.running.contains_key(&number), "forgot what runs");
                return;
            }
        };
        self.replica.handle(Input::Task { number, event }, self.now);
    }

    pub fn write(&mut self, batch: Batch) {
        if let Some(Seat::Take(member)) = batch.seat {
            self.disk = Restored { member: Some(member), ..Restored::default() };
        }
        if let Some(snapshot) = batch.snapshot {
            self.disk.entries.retain(|e| !snapshot.reset_log && e.index > snapshot.index);
            self.disk.snapshot = Some(snapshot);
        }
        if let Some(first) = batch.entries.first().map(|e| e.index) {
            self.disk.entries.retain(|e| e.index < first);
        }
        self.disk.entries.extend(batch.entries);
        if batch.hard_state.is_some() {
            self.disk.hard_state = batch.hard_state;
        }
    }

    pub fn pass(&mut self, ms: u64) {
        let until = self.now.mono + ms;
        while self.now.mono < until {
            let next = self.replica.poll_deadline().min(until).max(self.now.mono + 1);
            self.now = Now { mono: next, wall: self.now.wall + (next - self.now.mono) };
            self.input(Input::Tick);
        }
    }

    pub fn term(&self) -> u64 {
        self.replica.consensus().expect("it has a seat").term()
    }

    pub fn script(&mut self, op: Op) -> Answer {
        let term = self.term();
        self.ask(Principal::Script { term }, op)
    }

    pub fn ask(&mut self, principal: Principal, op: Op) -> Answer {
        self.asked += 1;
        let request = Request::Write { id: RequestId { client: 1, sequence: self.asked }, op };
        self.input(Input::Request { ticket: Ticket(self.asked), principal, request });
        self.answers.remove(&self.asked).expect("a cluster of one answers at once")
    }

    pub fn set(&mut self, name: &str, spec: ServiceSpec) {
        let answer = self.script(Op::ServiceSet { name: name.into(), spec: Box::new(spec) });
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    }

    pub fn service(&mut self, name: &str) -> ServiceView {
        self.asked += 1;
        let request = Request::Read { stale: true, query: Query::Status };
        self.input(Input::Request { ticket: Ticket(self.asked), principal: Principal::Admin, request });
        match self.answers.remove(&self.asked) {
            Some(Answer::Read { view: View::Status(status), .. }) => {
                status.services.into_iter().find(|s| s.record.name == name).expect("it exists")
            }
            other => panic!("{other:?}"),
        }
    }

    /// The script's next call, if it was called.
    pub fn hook(&self) -> Option<Hook> {
        self.calls.front().map(|(_, call)| call.hook.clone())
    }

    pub fn answer(&mut self, outcome: Result<ScriptReport, &str>) {
        let (id, _) = self.calls.pop_front().expect("the script was called");
        self.input(Input::Scripted { id, outcome: outcome.map_err(str::to_string) });
    }

    pub fn send(&mut self, request: Request) -> u64 {
        self.asked += 1;
        self.input(Input::Request { ticket: Ticket(self.asked), principal: Principal::Admin, request });
        self.asked
    }

    pub fn programs(&self) -> Vec<&str> {
        self.running.values().map(TaskOrder::command).collect()
    }
}

pub trait Program {
    fn command(&self) -> &str;
}

impl Program for TaskOrder {
    fn command(&self) -> &str {
        &self.spec.command[0]
    }
}
