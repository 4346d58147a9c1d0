//! Who uses the cluster: clients (`clients.rs`), one administrator, and thieves with somebody else's token.

use crate::{
    calls::Caller,
    clients::{Client, TRIES_MAX},
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
    io::Keyring,
    node::{NodeState, Role},
    query::{Answer, Op, Principal, Request, Written},
    settings::SettingsChange,
};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

const ADMIN: u64 = 1_000;

#[derive(Default)]
pub struct Workload {
    pub clients: Vec<Client>,
    pub admin: AdminDesk,
    max_nodes: u32,
    max_launches: u32,
    pub managers: u32,
    /// The most managers that were ever allowed.
    pub managers_most: u32,
    /// What the administrator last asked for.
    pub target: u32,
    outsiders_left: u32,
    outsiders_wait: u32,
    tokens: BTreeMap<String, u32>,
    pub values: u64,
    /// Certificate and key of every CA that ever was to be one, in the order in which they were asked for.
    pub ca_keys: Vec<(Vec<u8>, Vec<u8>)>,
    pub vanished_at: Option<u64>,
    /// Clients finish what they have and start nothing new.
    pub closing: bool,
    /// Nothing is given up any more.
    pub patient: bool,
    /// Scripts write nothing any more.
    pub quiet: bool,
    /// Services at rest that no node has room for.
    pub blocked: u64,
}

#[derive(Default)]
pub struct AdminDesk {
    sequence: u64,
    pub todo: VecDeque<Op>,
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
            // Three by default, until the administrator's word is heard.
            managers_most: options.managers.max(3),
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

    /// So many instances at once.
    pub fn allow(&mut self, instances: u32) {
        self.max_nodes = self.max_nodes.max(instances);
    }

    /// More nodes than ever.
    pub fn grow(&mut self, nodes: u32) {
        self.max_nodes = self.max_nodes.max(nodes);
        let change = SettingsChange { max_nodes: Some(self.max_nodes), ..SettingsChange::default() };
        self.admin.todo.push_back(Op::Configure(change));
        self.scale(nodes);
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

    /// Whether the keyring is that of this CA.
    pub fn is_of(&self, keyring: &Keyring, ca: &[u8]) -> bool {
        keyring.ca_key == self.ca_keys[self.age_of(ca)].1
    }

    /// The same, or it holds its keys beside those of another.
    pub fn can_sign(&self, keyring: &Keyring, ca: &[u8]) -> bool {
        let key = &self.ca_keys[self.age_of(ca)].1;
        self.is_of(keyring, ca) || keyring.next.as_ref().is_some_and(|next| next.ca == ca && next.ca_key == *key)
    }

    /// Whether it is that of a CA that came later.
    pub fn is_past(&self, keyring: &Keyring, ca: &[u8]) -> bool {
        self.ca_keys[self.age_of(ca) + 1..].iter().any(|(_, key)| keyring.ca_key == *key)
    }

    fn age_of(&self, ca: &[u8]) -> usize {
        self.ca_keys.iter().position(|(known, _)| known == ca).expect("no other CA was asked for")
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
        let change = SettingsChange { max_launches_per_hour: Some(self.max_launches), min_nodes: Some(1), ..SettingsChange::default() };
        self.admin.todo.push_back(Op::Configure(change));
        self.scale(nodes);
    }
}

impl World {
    pub fn begin_workload(&mut self) {
        if self.options.services && self.rng.chance(800) {
            let files = crate::scripts::write(&mut self.rng, true);
            self.workload.admin.todo.push_back(Op::ModulesPut(files));
        }
        for client in 0..self.workload.clients.len() {
            self.at(200, Event::Client(client));
        }
        self.at(100, Event::Admin);
    }

    /// Anybody who might answer; a person tries one address after the other.
    pub fn any_host(&mut self) -> Option<usize> {
        let hosts: Vec<usize> = (0..self.machines.len()).filter(|host| self.machines[*host].running().is_some()).collect();
        // Workers cannot send a person's request on: whoever was answered by a manager comes back to it.
        let managers: Vec<usize> = hosts.iter().copied().filter(|host| self.consensus(*host).is_some()).collect();
        let among = if !managers.is_empty() && self.rng.chance(500) { &managers } else { &hosts };
        self.rng.pick(among).copied()
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
        let Some((_, mut op, tries)) = self.workload.admin.current.clone() else { return };
        if let (Some(Mutant::TokenGoodForTwo), Op::TokenCreate { uses, .. }) = (self.mutant, &mut op) {
            *uses = 2;
        }
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
        } else if due(self, self.options.managers_every_ms) {
            self.counts.add(Count::ManagersChanged);
            let managers = *self.rng.pick(&[1, 3, 5, 7]).expect("not empty");
            self.workload.managers = managers;
            self.workload.managers_most = self.workload.managers_most.max(managers);
            self.workload.admin.todo.push_back(Op::Configure(SettingsChange { managers: Some(managers), ..SettingsChange::default() }));
        } else if due(self, self.options.rotate_every_ms) {
            self.rotate_ca();
        } else if self.options.services && due(self, self.options.whim_every_ms) {
            self.counts.add(Count::Whims);
            self.whim();
        } else if self.workload.outsiders_left > 0 && self.rng.chance(200) {
            self.workload.outsiders_left -= 1;
            self.workload.outsiders_wait += 1;
            let role = if self.rng.chance(700) { Role::Manager } else { Role::Worker };
            self.workload.admin.todo.push_back(Op::TokenCreate { role, ttl_ms: 3_600_000, uses: 1 });
        } else if self.rng.chance(self.options.steal) {
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
            Some(Answer::Written { .. }) => {
                if let Op::CaAdvance { from, .. } = op {
                    self.count_stage(from);
                }
                self.workload.admin.current = None;
            }
            Some(Answer::Refused { code, why }) => {
                let may = matches!(op, Op::NodeRemove(_) | Op::NodePrefer { .. } | Op::CaRotate(_) | Op::CaAdvance { .. })
                    || crate::services::is_whim(&op);
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
        let known =
            |host: &usize| self.leader().and_then(|leader| self.replica(leader)?.state().nodes.get(&self.machines[*host].identity.node));
        // Who is not there right now may come with its token again: then others may try to.
        let away: Vec<usize> = self
            .hosts()
            .into_iter()
            .filter(|host| known(host).is_some_and(|n| matches!(n.state, NodeState::Joining | NodeState::Lost)))
            .collect();
        let admitted: Vec<usize> = self.hosts().into_iter().filter(|host| known(host).is_some()).collect();
        let among = if away.is_empty() || self.rng.chance(300) { &admitted } else { &away };
        let Some(victim) = self.rng.pick(among).copied() else { return };
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
