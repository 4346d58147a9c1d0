//! What shall run: a service as declared, and how its copies are replaced by newer ones.

use super::limits::NAME_BYTES_MAX;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use minicbor::{Decode, Encode};

/// Whether a service may be called so: a name stands in paths, links and DNS labels.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(plain)
}

/// A service's declaration, parsed and checked at the door. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ServiceSpec {
    /// Program and arguments, no shell.
    #[n(0)]
    pub command: Vec<String>,
    #[n(1)]
    pub cwd: Option<String>,
    #[n(2)]
    pub user: Option<String>,
    /// Signal number that asks it to end (default SIGTERM, 15).
    #[n(3)]
    pub stop_signal: u32,
    /// After this it is killed.
    #[n(4)]
    pub stop_timeout_ms: u64,
    #[n(5)]
    pub env: BTreeMap<String, String>,
    #[n(6)]
    pub replicas: Replicas,
    #[n(7)]
    pub ports: Vec<PortSpec>,
    /// Bytes it may use and that its node must have free.
    #[n(8)]
    pub memory: Option<u64>,
    /// Thousandths of a core.
    #[n(9)]
    pub cpus_milli: Option<u32>,
    /// Labels a node must have.
    #[n(10)]
    pub labels: BTreeMap<String, String>,
    /// Services whose nodes are avoided if another will do.
    #[n(11)]
    pub avoid: Vec<String>,
    #[n(12)]
    pub restart: Restart,
    /// A task that stays up for this long has started.
    #[n(13)]
    pub grace_ms: u64,
    #[n(14)]
    pub update: Update,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Replicas {
    #[n(0)]
    Count(#[n(0)] u32),
    #[n(1)]
    EveryNode,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PortSpec {
    /// The service's own name for it: 1 to 65535.
    #[n(0)]
    pub port: u16,
    /// A fixed port on the node; such tasks update stop-first.
    #[n(1)]
    pub public: Option<u16>,
    #[n(2)]
    pub udp: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Restart {
    #[n(0)]
    pub policy: RestartPolicy,
    /// First wait before a restart; doubles up to a minute, begins anew after a minute of staying up.
    #[n(1)]
    pub backoff_ms: u64,
    /// Restarts in a row before it is given up; none: never.
    #[n(2)]
    pub max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RestartPolicy {
    #[n(0)]
    Always,
    #[n(1)]
    OnFailure,
    #[n(2)]
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Update {
    /// The new copy starts before the old one stops.
    #[n(0)]
    pub start_first: bool,
    /// Copies replaced at a time.
    #[n(1)]
    pub parallel: u32,
    /// Go back by itself when a new copy does not start.
    #[n(2)]
    pub rollback: bool,
    /// A roll that takes longer has failed.
    #[n(3)]
    pub deadline_ms: u64,
}

impl Default for ServiceSpec {
    fn default() -> ServiceSpec {
        ServiceSpec {
            command: Vec::new(),
            cwd: None,
            user: None,
            stop_signal: 15,
            stop_timeout_ms: 10_000,
            env: BTreeMap::new(),
            replicas: Replicas::Count(1),
            ports: Vec::new(),
            memory: None,
            cpus_milli: None,
            labels: BTreeMap::new(),
            avoid: Vec::new(),
            restart: Restart { policy: RestartPolicy::Always, backoff_ms: 500, max: None },
            grace_ms: 1_000,
            update: Update { start_first: true, parallel: 1, rollback: false, deadline_ms: 300_000 },
        }
    }
}

impl ServiceSpec {
    /// Two copies of it cannot be on one node at once.
    pub fn has_public_port(&self) -> bool {
        self.ports.iter().any(|p| p.public.is_some())
    }

    /// About how many bytes it takes on the wire.
    pub fn weight(&self) -> usize {
        let list = |items: &[String]| items.iter().map(|item| item.len() + 4).sum::<usize>();
        let map = |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>();
        128 + list(&self.command) + list(&self.avoid) + map(&self.env) + map(&self.labels) + 16 * self.ports.len()
    }

    /// Whether a process started by one may go on under the other: they differ only in how many copies there are and
    /// how they are kept and replaced.
    pub fn runs_alike(&self, other: &ServiceSpec) -> bool {
        let process = |s: &ServiceSpec| ServiceSpec {
            replicas: Replicas::EveryNode,
            avoid: Vec::new(),
            stop_signal: 0,
            stop_timeout_ms: 0,
            restart: Restart { policy: RestartPolicy::Always, backoff_ms: 0, max: None },
            grace_ms: 0,
            update: Update { start_first: true, parallel: 1, rollback: false, deadline_ms: 0 },
            ..s.clone()
        };
        process(self) == process(other)
    }
}

/// A service in the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ServiceRecord {
    #[n(0)]
    pub name: String,
    /// Raised by each change of the spec, restart and rollback: tasks of older versions are replaced.
    #[n(1)]
    pub version: u64,
    /// Specs by version: the newest, the one before (for rollback), and those that tasks still run.
    #[n(2)]
    pub specs: BTreeMap<u64, ServiceSpec>,
    /// `service scale` by a person: holds until the next apply.
    #[n(3)]
    pub replicas_by_hand: Option<u32>,
    #[n(4)]
    pub roll: Roll,
    // 5 was another field's.
    /// The version before the newest, what `rollback` goes back to.
    #[n(6)]
    pub previous: Option<u64>,
    /// As many copies ran as wanted, and since then not fewer: what `service.degraded` and `service.healthy` tell apart.
    #[n(7)]
    pub healthy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Roll {
    /// Every task is of the newest version, or is being made so.
    #[n(0)]
    Going,
    #[n(1)]
    Done,
    /// A new task did not stay up: the old ones are kept.
    #[n(2)]
    Stopped(#[n(0)] String),
}

impl ServiceRecord {
    pub fn spec(&self) -> &ServiceSpec {
        self.specs.get(&self.version).expect("the newest version's spec is always kept")
    }

    /// The version that `rollback` brings back: the newest one that rolled out before and is not the same again.
    pub fn rollback_target(&self) -> Option<u64> {
        let before = self.specs.range(..=self.previous?).rev();
        before.filter(|(version, _)| **version != self.version).find(|(_, spec)| *spec != self.spec()).map(|(version, _)| *version)
    }
}
