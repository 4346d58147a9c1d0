//! One simulated machine: a disk, an address, an identity, and now and then a `discod` running on it.
//!
//! The process is the production `Replica` with nothing around it but what the daemon would keep in memory.

use crate::{clock::Clock, disk::Disk, network::Endpoint, papers::Held, tasks::Runtime};
use agent::{
    logic::replica::{Config, Genesis, Replica, Timings},
    model::{
        ids::{MemberId, NodeId, Ticket},
        io::{Access, Keyring},
        query::{Admission, Principal, Request, Way},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

pub struct Machine {
    pub address: String,
    /// The provider's id, if a provider made it.
    pub instance: Option<String>,
    pub disk: Disk,
    pub identity: Identity,
    pub held: Held,
    pub process: Option<Process>,
    /// Counts process starts: events meant for an earlier process are dropped.
    pub life: u64,
    pub drift_ppm: i64,
    pub skew_ms: i64,
    pub paused_until: u64,
    /// Its disk takes nothing more until then.
    pub full_until: u64,
    /// What each write takes longer than elsewhere.
    pub slow_disk_ms: u64,
    /// How long it waits for a manager before it looks after its tasks by itself.
    pub alone_after_ms: u64,
    /// Lost for good by a person's word.
    pub given_up: bool,
    /// Terminated or vanished: there is no such machine any more.
    pub gone: bool,
    /// The process said it must not be started again (removed from the cluster).
    pub retired: bool,
    /// Tasks live longer than the process.
    pub runtime: Runtime,
    /// Counts executors: what an ended one says is dropped.
    pub executor: u64,
}

/// The small files of the data dir that a store does not hold.
pub struct Identity {
    pub node: NodeId,
    pub key: Vec<u8>,
    pub genesis: Option<Genesis>,
    /// The secret part of the token it may join with.
    pub secret: String,
    /// Whom to ask for a way in, and later where managers were last known to be.
    pub seeds: Vec<Way>,
    pub admission: Option<Admission>,
}

pub enum Process {
    /// Asking the seeds, one after the other.
    Joining {
        tried: usize,
    },
    Running(Box<Running>),
}

pub struct Running {
    pub replica: Replica,
    pub clock: Clock,
    pub wake_at: u64,
    /// Where the checkers last saw it.
    pub watched_applied: u64,
    pub tickets: BTreeMap<Ticket, Asked>,
    pub access: Option<Arc<Access>>,
    pub removed: BTreeSet<NodeId>,
}

/// Who waits for the answer to a ticket.
#[derive(Clone)]
pub struct Asked {
    pub call: u64,
    pub from: Endpoint,
    pub principal: Principal,
    pub body: Rc<Body>,
    pub forwarded: bool,
}

/// What a call carries.
#[derive(Debug)]
pub enum Body {
    Ask(Request),
    Enlist { from: NodeId, member: MemberId, keyring: Keyring },
    Discharge { from: NodeId, member: MemberId },
}

impl Running {
    /// What the API's gate asks of the access list.
    pub fn knows_as_manager(&self, node: NodeId) -> bool {
        self.access.as_ref().is_some_and(|access| access.nodes.iter().any(|(known, _, manager)| *known == node && *manager))
    }

    pub fn knows(&self, node: NodeId) -> bool {
        self.access.as_ref().is_some_and(|access| access.nodes.iter().any(|(known, _, _)| *known == node))
    }
}

impl Machine {
    pub fn running(&mut self) -> Option<&mut Running> {
        match &mut self.process {
            Some(Process::Running(running)) => Some(running),
            _ => None,
        }
    }

    /// Machines differ, so that some make better managers than others.
    pub fn memory(&self) -> u64 {
        [1 << 29, 1 << 30, 1 << 32][self.kind() % 3]
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        let zones = ["a", "b"].map(|zone| BTreeMap::from([("zone".into(), zone.into())]));
        zones.into_iter().nth(self.kind() / 3 % 3).unwrap_or_default()
    }

    fn kind(&self) -> usize {
        self.address.bytes().map(usize::from).sum()
    }

    pub fn name(&self) -> String {
        self.address.replace([':', '.'], "-")
    }

    pub fn is_member_of_cluster(&self) -> bool {
        self.identity.admission.is_some() || self.identity.genesis.is_some()
    }

    /// A `discod` that has its identity starts.
    pub fn start(&mut self, boot: u64, mono_base: u64, seed: u64, world: u64) {
        let clock = Clock { mono_base, started: world, drift_ppm: self.drift_ppm, skew_ms: self.skew_ms };
        let identity = &self.identity;
        let originate = identity.genesis.clone().filter(|_| !self.disk.formed);
        let config = Config {
            node: identity.node,
            boot,
            name: self.name(),
            address: self.address.clone(),
            cpus: 2,
            memory: self.memory(),
            labels: self.labels(),
            instance: self.instance.clone(),
            public_key: identity.key.clone(),
            keyring: self.disk.keyring.clone(),
            originate,
            seeds: identity.seeds.clone(),
            assignment: self.runtime.assignment.clone(),
            has_provider: true,
            on_stop_end_tasks: false,
            timings: Timings {
                heartbeat_ms: 200,
                election_min_ms: 1000,
                election_max_ms: 2000,
                lost_after_ms: 5000,
                swap_after_ms: 3_000,
                alone_after_ms: self.alone_after_ms,
            },
        };
        let replica = Replica::new(config, self.disk.durable.clone(), seed, clock.read(world))
            .unwrap_or_else(|error| panic!("violation: a node does not start from its own disk: {error}"));
        self.process = Some(Process::Running(Box::new(Running {
            replica,
            clock,
            wake_at: u64::MAX,
            watched_applied: 0,
            tickets: BTreeMap::new(),
            access: None,
            removed: BTreeSet::new(),
        })));
    }
}
