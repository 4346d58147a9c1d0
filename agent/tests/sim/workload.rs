//! Who uses the cluster: clients with keys and values, one administrator, and thieves with somebody else's token.
//!
//! A client has one request under way and repeats it, with its id, until it is answered or the client gives up.

use crate::{
    calls::Caller,
    cloud::Cloud,
    counts::Count,
    mutants::Mutant,
    node::Body,
    options::Options,
    world::{Event, World},
};
use agent::model::{
    command::{Joiner, KINDS_KNOWN},
    ids::{NodeId, RequestId},
    node::Role,
    query::{Answer, Op, Principal, Query, Request, View, Written},
    settings::SettingsChange,
};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

const ADMIN: u64 = 1_000;
const TRIES_MAX: u32 = 12;

#[derive(Default)]
pub struct Workload {
    clients: Vec<Client>,
    admin: AdminDesk,
    max_nodes: u32,
    max_launches: u32,
    pub managers: u32,
    /// What the administrator last asked for.
    pub target: u32,
    outsiders_left: u32,
    outsiders_wait: u32,
    tokens: BTreeMap<String, u32>,
    values: u64,
    pub vanished_at: Option<u64>,
    /// Clients finish what they have and start nothing new.
    pub closing: bool,
    /// Nothing is given up any more.
    pub patient: bool,
}

#[derive(Default)]
struct Client {
    sequence: u64,
    current: Option<Pending>,
}

#[derive(Clone)]
struct Pending {
    what: What,
    key: String,
    floor: u64,
    tries: u32,
    call: u64,
}

#[derive(Clone)]
enum What {
    Write(Vec<u8>),
    Read { stale: bool },
}

#[derive(Default)]
struct AdminDesk {
    sequence: u64,
    todo: VecDeque<Op>,
    current: Option<(u64, Op, u32)>,
}

impl Workload {
    pub fn new(options: &Options) -> Workload {
        let max_nodes = options.nodes_max + options.outsiders.min(1);
        let max_launches = 4 * options.nodes_max + 4;
        let mut workload = Workload {
            clients: (0..options.clients).map(|_| Client::default()).collect(),
            max_nodes,
            max_launches,
            managers: options.managers,
            target: 1,
            outsiders_left: options.outsiders,
            ..Workload::default()
        };
        workload.admin.todo.push_back(Op::Configure(SettingsChange {
            managers: Some(options.managers),
            max_nodes: Some(max_nodes),
            max_launches_per_hour: Some(max_launches),
            replace_after_ms: Some(options.replace_after_ms),
            ..SettingsChange::default()
        }));
        workload.scale(options.nodes_max);
        workload
    }

    /// Nobody asks for anything: a play does.
    pub fn quiet(&mut self) {
        self.admin.todo.clear();
        self.target = 1;
    }

    fn scale(&mut self, nodes: u32) {
        self.target = nodes;
        self.admin.todo.push_back(Op::Scale(nodes));
    }

    pub fn uses_of(&self, secret: &str) -> u32 {
        self.tokens.get(secret).copied().unwrap_or(1)
    }

    pub fn check_brakes(&self, cloud: &Cloud) {
        let active = cloud.active();
        assert!(active <= self.max_nodes as usize, "violation: {active} instances cost money, max_nodes is {}", self.max_nodes);
        let launches = cloud.by_operation.len();
        assert!(launches <= self.max_launches as usize, "violation: {launches} launches, the brake is at {}", self.max_launches);
    }

    pub fn admin_is_idle(&self) -> bool {
        self.admin.current.is_none() && self.admin.todo.is_empty()
    }

    pub fn clients_are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.current.is_none())
    }

    /// The last word before everything must come to rest: how many nodes, and brakes that allow them.
    pub fn settle(&mut self, nodes: u32, launched: u32) {
        self.patient = true;
        self.max_launches = launched + 40;
        let change = SettingsChange { max_launches_per_hour: Some(self.max_launches), ..SettingsChange::default() };
        self.admin.todo.push_back(Op::Configure(change));
        self.scale(nodes);
    }
}

impl World {
    pub fn begin_workload(&mut self) {
        for client in 0..self.workload.clients.len() {
            self.at(200, Event::Client(client));
        }
        self.at(100, Event::Admin);
    }

    /// The last modules are pushed: these can run.
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

    fn think(&mut self, client: usize) {
        let think = self.options.think_ms;
        self.later((think / 2, 2 * think), Event::Client(client));
    }

    /// Anybody who might answer; a person tries one address after the other.
    fn any_host(&mut self) -> Option<usize> {
        let hosts: Vec<usize> = (0..self.machines.len()).filter(|host| self.machines[*host].running().is_some()).collect();
        self.rng.pick(&hosts).copied()
    }

    // ---- clients

    pub fn client_acts(&mut self, client: usize) {
        if self.workload.clients[client].current.is_none() {
            if self.workload.closing {
                return;
            }
            self.begin_request(client);
        }
        let to = self.any_host();
        let Some(pending) = self.workload.clients[client].current.clone() else { return };
        if pending.tries > 0 {
            self.counts.add(Count::Retries);
        }
        if self.mutant == Some(Mutant::ForgottenRequestId) && pending.tries > 0 {
            self.workload.clients[client].sequence += 1;
        }
        let skips = self.mutant == Some(Mutant::SkippedReadIndex);
        let request = match &pending.what {
            What::Write(value) => Request::Write {
                id: RequestId { client: client as u64 + 1, sequence: self.workload.clients[client].sequence },
                op: Op::KvSet { key: pending.key.clone(), value: value.clone() },
            },
            What::Read { stale } => Request::Read { stale: *stale || skips, query: Query::KvGet(pending.key.clone()) },
        };
        // A read that is asked again is a new read.
        let floor = if matches!(pending.what, What::Read { .. }) { self.checkers.begin(&pending.key, None) } else { pending.floor };
        let timeout = self.rng.between(400, 4_000);
        let call = self.call(Caller::Client(client), to, Principal::Admin, Rc::new(Body::Ask(request)), timeout);
        if let Some(pending) = &mut self.workload.clients[client].current {
            pending.floor = floor;
            pending.tries += 1;
            pending.call = call;
        }
    }

    fn begin_request(&mut self, client: usize) {
        let dice = self.rng.below(100);
        let register = format!("r{}", self.rng.below(3));
        // Large values fill the space for values: those keys come round again.
        let own = if self.options.value_bytes > 8 { self.workload.values % 40 } else { self.workload.values };
        let (key, write) = match dice {
            0..40 => (format!("w{own}"), true),
            40..65 => (register, true),
            _ => (register, false),
        };
        let what = if write {
            self.workload.values += 1;
            let mut value = self.workload.values.to_le_bytes().to_vec();
            value.resize(self.options.value_bytes.max(8), 0);
            What::Write(value)
        } else {
            What::Read { stale: dice >= 90 }
        };
        let floor = match &what {
            What::Write(value) => self.checkers.begin(&key, Some(value)),
            What::Read { .. } => self.checkers.begin(&key, None),
        };
        self.workload.clients[client].sequence += 1;
        self.workload.clients[client].current = Some(Pending { what, key, floor, tries: 0, call: 0 });
    }

    pub fn client_hears(&mut self, client: usize, call: u64, answer: Option<Answer>) {
        let Some(pending) = self.workload.clients[client].current.clone().filter(|pending| pending.call == call) else { return };
        let done = match (&pending.what, answer) {
            (What::Write(value), Some(Answer::Written { index, .. })) => {
                self.checkers.wrote(&pending.key, value, index, pending.floor);
                self.counts.add(Count::AckedWrites);
                true
            }
            (What::Read { stale }, Some(Answer::Read { view: View::Kv { value, version }, .. })) => {
                if *stale {
                    self.checkers.stale_read(&pending.key, value.as_deref(), version);
                    self.counts.add(Count::StaleReads);
                } else {
                    self.checkers.read(&pending.key, value.as_deref(), version, pending.floor);
                    self.counts.add(Count::Reads);
                }
                true
            }
            (_, None | Some(Answer::Busy | Answer::Unavailable { .. } | Answer::Elsewhere { .. })) => false,
            (_, Some(other)) => panic!("violation: a client with {} got {other:?}", pending.key),
        };
        if done {
            self.workload.clients[client].current = None;
        } else if pending.tries >= TRIES_MAX && !self.workload.patient {
            if matches!(pending.what, What::Write(_)) {
                self.counts.add(Count::UnknownWrites);
            }
            self.workload.clients[client].current = None;
        }
        self.think(client);
    }

    // ---- the administrator

    pub fn admin_acts(&mut self) {
        if self.workload.admin.current.is_none() {
            if self.workload.admin.todo.is_empty() && !self.workload.patient {
                self.plan_admin();
            }
            let Some(op) = self.workload.admin.todo.pop_front() else {
                return self.later((200, 1_000), Event::Admin);
            };
            self.workload.admin.sequence += 1;
            self.workload.admin.current = Some((0, op, 0));
        }
        let to = self.any_host();
        let Some((_, op, tries)) = self.workload.admin.current.clone() else { return };
        let id = RequestId { client: ADMIN, sequence: self.workload.admin.sequence };
        let timeout = self.rng.between(1_000, 6_000);
        let call = self.call(Caller::Admin, to, Principal::Admin, Rc::new(Body::Ask(Request::Write { id, op: op.clone() })), timeout);
        self.workload.admin.current = Some((call, op, tries + 1));
    }

    fn plan_admin(&mut self) {
        let due = |world: &mut World, every: u64| every > 0 && world.rng.chance(600_000 / every.max(600));
        if due(self, self.options.scale_every_ms) {
            let nodes = self.rng.between(1, self.options.nodes_max.into()) as u32;
            self.counts.add(Count::Scales);
            self.workload.scale(nodes);
        } else if due(self, self.options.remove_every_ms) {
            let known: Vec<NodeId> = self.hosts().iter().map(|host| self.machines[*host].identity.node).collect();
            if let Some(node) = self.rng.pick(&known).copied() {
                self.counts.add(Count::NodeRemovals);
                self.workload.admin.todo.push_back(Op::NodeRemove(node.to_string()));
            }
        } else if due(self, self.options.prefer_every_ms) {
            self.counts.add(Count::Preferences);
            let known: Vec<NodeId> = self.hosts().iter().map(|host| self.machines[*host].identity.node).collect();
            if let Some(node) = self.rng.pick(&known).copied() {
                let role = if self.rng.chance(500) { Role::Manager } else { Role::Worker };
                self.workload.admin.todo.push_back(Op::NodePrefer { node: node.to_string(), role });
            }
        } else if self.options.services && due(self, self.options.whim_every_ms) {
            self.counts.add(Count::Whims);
            let hosts = self.hosts();
            let host = self.rng.pick(&hosts).copied().unwrap_or_default();
            let node = self.machines[host].identity.node.to_string();
            let op = crate::tasks::whim(&mut self.rng, node);
            self.workload.admin.todo.push_back(op);
        } else if self.workload.outsiders_left > 0 && self.rng.chance(200) {
            self.workload.outsiders_left -= 1;
            self.workload.outsiders_wait += 1;
            let role = if self.rng.chance(700) { Role::Manager } else { Role::Worker };
            self.workload.admin.todo.push_back(Op::TokenCreate { role, ttl_ms: 3_600_000, uses: 1 });
        } else if self.rng.chance(100) {
            self.steal();
        }
    }

    pub fn admin_hears(&mut self, call: u64, answer: Option<Answer>) {
        let Some((expected, op, tries)) = self.workload.admin.current.clone() else { return };
        if expected != call {
            return;
        }
        match answer {
            Some(Answer::Written { result: Written::TokenCreated { token, .. }, .. }) => {
                self.counts.add(Count::TokensMade);
                self.outsider_arrives(&token);
                self.workload.admin.current = None;
            }
            Some(Answer::Written { .. }) => self.workload.admin.current = None,
            Some(Answer::Refused { code, why }) => {
                let may = matches!(op, Op::NodeRemove(_) | Op::NodePrefer { .. }) || crate::tasks::is_whim(&op);
                assert!(may, "violation: {op:?} was refused: {code}: {why}");
                self.workload.admin.current = None;
            }
            _ if tries >= TRIES_MAX && !self.workload.patient && !matches!(op, Op::Configure(_) | Op::Scale(_)) => {
                self.workload.admin.current = None;
            }
            _ => {}
        }
        self.later((50, 600), Event::Admin);
    }

    /// A machine no provider made joins with a token.
    fn outsider_arrives(&mut self, token: &str) {
        if self.workload.outsiders_wait == 0 {
            return;
        }
        self.workload.outsiders_wait -= 1;
        let secret = token.splitn(3, '-').nth(2).expect("a token has three parts").to_string();
        self.workload.tokens.insert(secret.clone(), 1);
        let seeds = self.hosts().iter().map(|host| self.machines[*host].address.clone()).collect();
        let address = format!("10.1.0.{}:5080", self.machines.len());
        let host = self.add_machine(address, None, secret, seeds);
        self.boot_later(host);
    }

    /// Somebody saw a token: with a key of their own, or (a joiner that lost its answer) with the same.
    fn steal(&mut self) {
        let admitted: Vec<usize> = self.hosts().into_iter().filter(|host| self.machines[*host].identity.admission.is_some()).collect();
        let Some(victim) = self.rng.pick(&admitted).copied() else { return };
        let secret = self.machines[victim].identity.secret.clone();
        let mut node = self.joiner(victim);
        if self.rng.chance(700) {
            self.counts.add(Count::TokenReplaysOtherKey);
            node.id = NodeId(self.rng.next());
            node.public_key = self.rng.bytes(32);
        } else {
            self.counts.add(Count::TokenReplaysSameKey);
        }
        let to = self.any_host();
        let key = node.public_key.clone();
        let body = Rc::new(Body::Ask(Request::Join { secret: secret.clone(), node }));
        self.call(Caller::Thief { secret, key }, to, Principal::Joiner, body, 3_000);
    }

    pub fn thief_hears(&mut self, secret: &str, key: &[u8], answer: Option<Answer>) {
        if let Some(Answer::Joined(admission)) = answer {
            self.checkers.admitted(secret, self.workload.uses_of(secret), key, admission.stamp_ms);
        }
    }

    pub fn joiner(&self, host: usize) -> Joiner {
        let machine = &self.machines[host];
        Joiner {
            id: machine.identity.node,
            name: machine.name(),
            address: machine.address.clone(),
            public_key: machine.identity.key.clone(),
            cpus: 2,
            memory: machine.memory(),
            labels: machine.labels(),
            instance: machine.instance.clone(),
            commands_known: KINDS_KNOWN,
        }
    }
}
