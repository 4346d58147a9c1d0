//! The network between machines: slow, lossy, doubling, out of order, and cut in one direction or both.
//!
//! Who asks from outside (a person's `disco`) is never cut off, only slow and lossy: it can reach both sides of a
//! partition, which is what makes a stale answer visible.

use crate::{
    counts::{Count, Counts},
    rng::Rng,
    world::World,
};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Outside,
    Host(usize),
}

#[derive(Default)]
pub struct Network {
    /// Nothing passes from the first to the second.
    cut: BTreeSet<(usize, usize)>,
    latest: u64,
}

/// When the copies of one message arrive.
pub enum Fate {
    /// Nothing arrives. `cut`: the link is down, which the sender may notice.
    Lost {
        cut: bool,
    },
    Once(u64),
    Twice(u64, u64),
}

impl Network {
    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        match (from, to) {
            (Endpoint::Host(from), Endpoint::Host(to)) => self.cut.contains(&(from, to)),
            _ => false,
        }
    }

    /// Cuts the machines in two, in both directions or in one.
    pub fn partition(&mut self, hosts: &[usize], alone: Option<usize>, rng: &mut Rng, counts: &mut Counts) {
        self.heal();
        let symmetric = rng.chance(600);
        counts.add(if symmetric { Count::PartitionsSymmetric } else { Count::PartitionsAsymmetric });
        let side: Vec<bool> = if rng.chance(500) {
            // One machine alone: the usual accident, and the way to depose a leader.
            hosts.iter().map(|host| Some(*host) == alone).collect()
        } else {
            hosts.iter().map(|_| rng.chance(500)).collect()
        };
        for (i, a) in hosts.iter().enumerate() {
            for (j, b) in hosts.iter().enumerate() {
                if side[i] && !side[j] {
                    self.cut.insert((*a, *b));
                    if symmetric {
                        self.cut.insert((*b, *a));
                    }
                }
            }
        }
    }

    /// Cuts one machine off from all others, for plays.
    pub fn isolate(&mut self, host: usize, hosts: &[usize]) {
        for other in hosts.iter().filter(|other| **other != host) {
            self.cut.insert((host, *other));
            self.cut.insert((*other, host));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }
}

impl World {
    /// What becomes of one message from here to there.
    pub fn carry(&mut self, from: Endpoint, to: Endpoint, loss: u64) -> Fate {
        if self.network.is_cut(from, to) {
            return Fate::Lost { cut: true };
        }
        if self.rng.chance(loss) {
            return Fate::Lost { cut: false };
        }
        let (low, high) = self.options.delay_ms;
        let first = self.now + self.rng.between(low, high);
        if first < self.network.latest {
            self.counts.add(Count::Reordered);
        }
        self.network.latest = self.network.latest.max(first);
        if self.rng.chance(self.options.duplicate) {
            self.counts.add(Count::Duplicated);
            return Fate::Twice(first, self.now + self.rng.between(low, 3 * high));
        }
        Fate::Once(first)
    }
}
