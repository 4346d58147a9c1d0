//! A service on a cluster of one, from its declaration to its tasks, with a runtime made of a map.

use agent::logic::replica::{Config, Genesis, Replica, Timings};
use agent::model::{
    ids::{ClusterId, NodeId, Now, RequestId, Ticket},
    io::{Batch, Effect, Input, Keyring, Restored, Seat},
    query::{Answer, Op, Principal, Query, Request, ServiceView, View},
    service::{Replicas, Roll, ServiceSpec},
    task::{Exit, TaskCall, TaskEvent, TaskNumber, TaskOrder, TaskState},
};
use std::collections::BTreeMap;

struct World {
    replica: Replica,
    now: Now,
    disk: Restored,
    answers: BTreeMap<u64, Answer>,
    asked: u64,
    /// What runs, whatever the agent knows of it.
    running: BTreeMap<TaskNumber, TaskOrder>,
    started: u32,
    /// Commands that end at once with this code.
    broken: Option<(&'static str, i32)>,
}

fn config(originate: bool) -> Config {
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
        keyring: Some(Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 0 }),
        originate: originate.then(|| Genesis { cluster: ClusterId(9), name: "c".into(), ca: vec![5] }),
        seeds: vec![],
        has_provider: false,
        timings: Timings::default(),
    }
}

fn spec(program: &str, copies: u32) -> ServiceSpec {
    ServiceSpec { command: vec![program.into()], replicas: Replicas::Count(copies), ..ServiceSpec::default() }
}

impl World {
    fn new() -> World {
        World::start(Restored::default(), true, Now { mono: 1000, wall: 1_000_000 }, BTreeMap::new())
    }

    fn start(disk: Restored, originate: bool, now: Now, running: BTreeMap<TaskNumber, TaskOrder>) -> World {
        let replica = Replica::new(config(originate), disk.clone(), 1, now).expect("starts");
        let mut world = World { replica, now, disk, answers: BTreeMap::new(), asked: 0, running, started: 0, broken: None };
        world.drain();
        for number in world.running.keys().copied().collect::<Vec<_>>() {
            world.input(Input::Task { number, event: TaskEvent::Up { pid: 5, ports: BTreeMap::new(), adopted: true } });
        }
        let orders = world.running.values().cloned().collect();
        world.input(Input::TasksFound { orders });
        world
    }

    /// The agent dies and comes back; its tasks run on.
    fn restart(self) -> World {
        let mut world = World::start(self.disk, false, Now { mono: 1000, wall: self.now.wall + 100 }, self.running);
        world.asked = self.asked;
        world
    }

    fn input(&mut self, input: Input) {
        self.replica.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Persist { number, batch } => {
                    self.write(batch);
                    self.replica.handle(Input::Persisted { number }, self.now);
                }
                Effect::Reply { ticket, answer } => {
                    self.answers.insert(ticket.0, answer);
                }
                Effect::Task(call) => self.run(call),
                Effect::Stop { why, .. } => panic!("stopped: {why}"),
                _ => {}
            }
        }
    }

    fn run(&mut self, call: TaskCall) {
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
                        self.running.insert(number, order);
                        return;
                    }
                }
            }
            TaskCall::Stop { number, .. } => {
                assert!(self.running.remove(&number).is_some(), "stopped what does not run");
                (number, TaskEvent::Ended(Exit::Signal(15)))
            }
            TaskCall::Forget { number } => {
                assert!(!self.running.contains_key(&number), "forgot what runs");
                return;
            }
        };
        self.replica.handle(Input::Task { number, event }, self.now);
    }

    fn write(&mut self, batch: Batch) {
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

    fn pass(&mut self, ms: u64) {
        let until = self.now.mono + ms;
        while self.now.mono < until {
            let next = self.replica.poll_deadline().min(until).max(self.now.mono + 1);
            self.now = Now { mono: next, wall: self.now.wall + (next - self.now.mono) };
            self.input(Input::Tick);
        }
    }

    fn term(&self) -> u64 {
        self.replica.consensus().expect("it has a seat").term()
    }

    fn script(&mut self, op: Op) -> Answer {
        let term = self.term();
        self.ask(Principal::Script { term }, op)
    }

    fn ask(&mut self, principal: Principal, op: Op) -> Answer {
        self.asked += 1;
        let request = Request::Write { id: RequestId { client: 1, sequence: self.asked }, op };
        self.input(Input::Request { ticket: Ticket(self.asked), principal, request });
        self.answers.remove(&self.asked).expect("a cluster of one answers at once")
    }

    fn set(&mut self, name: &str, spec: ServiceSpec) {
        let answer = self.script(Op::ServiceSet { name: name.into(), spec: Box::new(spec) });
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    }

    fn service(&mut self, name: &str) -> ServiceView {
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

    fn programs(&self) -> Vec<&str> {
        self.running.values().map(TaskOrder::command).collect()
    }
}

trait Program {
    fn command(&self) -> &str;
}

impl Program for TaskOrder {
    fn command(&self) -> &str {
        &self.spec.command[0]
    }
}

#[test]
fn a_declared_service_gets_its_tasks_and_they_are_restarted() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    assert_eq!(world.programs(), ["a", "a"]);
    world.pass(2_000);
    let view = world.service("web");
    assert_eq!((view.desired, view.record.roll.clone()), (2, Roll::Done));
    assert!(view.tasks.iter().all(|t| t.seen.state == TaskState::Running), "{view:?}");

    let number = *world.running.keys().next().expect("two run");
    world.running.remove(&number);
    world.input(Input::Task { number, event: TaskEvent::Ended(Exit::Signal(9)) });
    assert_eq!(world.programs().len(), 1);
    world.pass(1_000);
    assert_eq!(world.programs().len(), 2, "after its back-off");
    world.pass(2_000);
    assert!(world.service("web").record.healthy);
    assert_eq!(world.started, 3);
}

#[test]
fn an_agent_that_comes_back_finds_its_tasks_and_starts_none_twice() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    world.pass(2_000);
    let mut world = world.restart();
    world.pass(3_000);
    assert_eq!((world.programs().len(), world.started), (2, 0));
    assert!(world.service("web").tasks.iter().all(|t| t.seen.state == TaskState::Running && t.seen.restarts == 0));
}

#[test]
fn a_new_version_replaces_the_old_and_a_broken_one_does_not() {
    let mut world = World::new();
    world.set("web", spec("a", 2));
    world.pass(2_000);
    world.set("web", spec("b", 2));
    assert_eq!(world.programs(), ["a", "a", "b"], "the new one starts first");
    world.pass(5_000);
    assert_eq!(world.programs(), ["b", "b"]);
    assert_eq!(world.service("web").record.roll, Roll::Done);

    world.broken = Some(("c", 3));
    world.set("web", spec("c", 2));
    world.pass(20_000);
    assert_eq!(world.programs(), ["b", "b"]);
    let view = world.service("web");
    assert!(matches!(&view.record.roll, Roll::Stopped(why) if why.contains("exit code 3")), "{:?}", view.record.roll);
    assert_eq!(view.tasks.len(), 2, "the failed one is forgotten");

    let answer = world.ask(Principal::Admin, Op::ServiceRollback("web".into()));
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    let before = world.started;
    world.pass(5_000);
    assert_eq!((world.programs(), world.started), (vec!["b", "b"], before), "what runs already runs on");
    assert_eq!(world.service("web").record.roll, Roll::Done);
}

#[test]
fn a_script_of_an_earlier_term_changes_nothing() {
    let mut world = World::new();
    let term = world.term();
    let op = Op::ServiceSet { name: "web".into(), spec: Box::new(spec("a", 1)) };
    let answer = world.ask(Principal::Script { term: term - 1 }, op.clone());
    assert!(matches!(answer, Answer::Refused { code: "stale", .. }), "{answer:?}");
    let answer = world.ask(Principal::Admin, op);
    assert!(matches!(answer, Answer::Refused { code: "denied", .. }), "people declare services in cluster.js: {answer:?}");
    assert!(world.replica.state().services.is_empty());
}
