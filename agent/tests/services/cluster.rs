//! A replicated state driven by commands, and the plan's commands fed back into it: services without any clock or wire.

use agent::logic::{
    plan::{self, Decision, Observed, Sight, Unplaced},
    raft::Membership,
    state::{Outcome, State},
};
use agent::model::{
    command::{Command, Joiner, KINDS_KNOWN, Proposal},
    ids::{ClusterId, MemberId, NodeId, Now},
    node::NodeState,
    service::{Replicas, ServiceRecord, ServiceSpec},
    task::{Exit, TaskNumber, TaskRecord, TaskSeen, TaskState},
};
use std::collections::BTreeMap;

pub struct Cluster {
    pub state: State,
    pub index: u64,
    pub now: Now,
    observed: Observed,
}

fn joiner(id: u64, memory: u64) -> Joiner {
    Joiner {
        id: NodeId(id),
        name: format!("n{id}"),
        address: format!("127.0.0.{id}:5080"),
        public_key: vec![id as u8; 32],
        cpus: 2,
        memory,
        labels: BTreeMap::new(),
        instance: None,
        commands_known: KINDS_KNOWN,
    }
}

pub fn spec(program: &str, copies: u32) -> ServiceSpec {
    ServiceSpec { command: vec![program.into()], replicas: Replicas::Count(copies), ..ServiceSpec::default() }
}

impl Cluster {
    /// That many nodes, n1 to nN, each with 1 GiB and two cores.
    pub fn new(nodes: u64) -> Cluster {
        let state = State::genesis(ClusterId(1), "c".into(), vec![], joiner(1, 1 << 30), 1_000);
        let now = Now { mono: 100_000, wall: 1_000_000 };
        let mut cluster = Cluster { state, index: 1, now, observed: Observed::new(now.mono) };
        for id in 2..=nodes {
            cluster.add(id);
        }
        cluster
    }

    pub fn add(&mut self, id: u64) {
        let mut record = self.state.nodes[&NodeId(1)].clone();
        let Joiner { id, name, address, public_key, .. } = joiner(id, 1 << 30);
        (record.id, record.name, record.address, record.public_key, record.member, record.seated) =
            (id, name, address, public_key, None, false);
        self.state.nodes.insert(id, record);
    }

    pub fn label(&mut self, node: u64, key: &str, value: &str) {
        self.state.nodes.get_mut(&NodeId(node)).expect("it is there").labels.insert(key.into(), value.into());
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let proposal = Proposal { stamp_ms: self.now.wall, term: 1, request: None, command, fence: None };
        self.state.apply(self.index, 1, proposal).1
    }

    pub fn set(&mut self, name: &str, spec: ServiceSpec) {
        let outcome = self.apply(Command::ServiceSet { name: name.into(), spec: Box::new(spec) });
        assert_eq!(outcome, Outcome::Done);
    }

    fn look<T>(&self, f: impl Fn(&Sight) -> T) -> T {
        f(&Sight {
            state: &self.state,
            membership: &Membership { voters: vec![MemberId(1)], learners: vec![], outgoing: vec![], pending: true },
            observed: &self.observed,
            me: NodeId(1),
            now: self.now,
            lost_after_ms: 5_000,
            swap_after_ms: 60_000,
            has_provider: false,
            caught_up: &|_| true,
        })
    }

    pub fn unplaced(&self) -> Unplaced {
        self.look(plan::unplaced)
    }

    pub fn problems(&self) -> Vec<String> {
        self.look(plan::problems)
    }

    /// One look of the plan: what it says of services and tasks is applied, and told.
    pub fn plan(&mut self) -> Vec<Command> {
        self.observed.watch(&self.state, self.now.mono);
        let is_ours = |c: &Command| !matches!(c, Command::NodeState { .. } | Command::MemberAssign(_));
        let decisions = self.look(plan::decide).into_iter().filter_map(|d| if let Decision::Propose(c) = d { Some(c) } else { None });
        let commands: Vec<Command> = decisions.filter(is_ours).collect();
        for command in commands.clone() {
            let outcome = self.apply(command.clone());
            assert_eq!(outcome, Outcome::Done, "the plan proposes what is refused: {command:?}");
        }
        commands
    }

    /// What the node says of the task.
    pub fn see(&mut self, number: TaskNumber, state: TaskState, restarts: u32, error: &str) {
        let Some(node) = self.state.tasks.get(&number).map(|t| t.node) else { return };
        let exit = (!error.is_empty()).then_some(Exit::Code(1));
        let seen = TaskSeen { number, state, exit, error: error.into(), ports: BTreeMap::new(), restarts, pid: 1 };
        self.apply(Command::TaskSeen { node, tasks: vec![seen] });
    }

    /// Nodes that are there do what they are told: wanted tasks run, unless their program is `broken`; others end.
    pub fn nodes_obey(&mut self) {
        let here = |t: &&TaskRecord| self.state.nodes.get(&t.node).is_some_and(|n| n.state != NodeState::Lost);
        let tasks: Vec<TaskRecord> = self.state.tasks.values().filter(here).cloned().collect();
        for task in tasks {
            let spec = self.state.services.get(&task.service).and_then(|s| s.specs.get(&task.version));
            let broken = spec.is_some_and(|s| s.command[0] == "broken");
            match (task.wanted, broken) {
                (false, _) => self.see(task.number, TaskState::Exited, 0, ""),
                (true, true) => self.see(task.number, TaskState::Starting, 1, "exit code 1"),
                (true, false) => self.see(task.number, TaskState::Running, 0, ""),
            }
        }
    }

    /// Until the plan has nothing to say, or it is clear that this never ends.
    pub fn rest(&mut self) {
        for _ in 0..60 {
            self.nodes_obey();
            if self.plan().is_empty() {
                return;
            }
        }
        panic!("no rest: {:?}", self.state.tasks);
    }

    /// A node is lost, since just now.
    pub fn lose(&mut self, node: u64) {
        self.apply(Command::NodeState { node: NodeId(node), state: NodeState::Lost, reason: "silent".into() });
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = Now { mono: self.now.mono + ms, wall: self.now.wall + ms };
        for node in self.state.nodes.values().filter(|n| n.state != NodeState::Lost) {
            self.observed.hear(node.id, self.now.mono);
        }
    }

    /// Another node leads, whose clock is so far ahead.
    pub fn changes_leader(&mut self, ahead_ms: u64) {
        self.now.wall += ahead_ms;
        self.observed = Observed::new(self.now.mono);
    }

    pub fn service(&self, name: &str) -> &ServiceRecord {
        &self.state.services[name]
    }

    /// Wanted tasks as `node:program`, by task number.
    pub fn tasks(&self, name: &str) -> Vec<String> {
        let program = |t: &TaskRecord| self.state.services[name].specs[&t.version].command[0].clone();
        self.state.tasks_of(name).filter(|t| t.wanted).map(|t| format!("{}:{}", t.node.0, program(t))).collect()
    }

    /// How many wanted tasks each node has of it, n1 first.
    pub fn spread(&self, name: &str) -> Vec<usize> {
        let on = |node: NodeId| self.state.tasks_of(name).filter(|t| t.wanted && t.node == node).count();
        self.state.nodes.keys().map(|node| on(*node)).collect()
    }
}
