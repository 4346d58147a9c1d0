//! What goes wrong, drawn from a seed: to whom is said by role, because who leads is for the run to say.

use crate::{
    NODES,
    cluster::{Cluster, SMALL_DISKS},
    ground::{Cuts, Ground},
    rng::Rng,
};
use std::{fmt, time::Duration};

/// Who it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Leader,
    /// The n-th node that does not lead, 0 to 3.
    Follower(usize),
}

impl Whom {
    fn node(self, leader: usize) -> usize {
        match self {
            Whom::Leader => leader,
            Whom::Follower(place) => (0..NODES).filter(|node| *node != leader).nth(place).expect("four do not lead"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9`.
    Kill,
    /// `kill -9` of two nodes: a majority is left.
    KillTwo,
    /// `kill -9` of all.
    KillAll,
    /// SIGTERM: leadership is handed on.
    Term,
    /// SIGSTOP: it is not gone, and wakes up in a world that went on.
    Stop,
    /// Neither hears nor is heard.
    Isolate,
    /// Hears nothing, and is heard.
    Deafen,
    /// Is not heard, and hears.
    Mute,
    /// Two nodes on one side, three on the other.
    Split,
    /// Two nodes that do not hear each other, while the others hear both.
    Part,
    /// Everything sent to it is late.
    Slow,
    /// Not a byte is left on its disk.
    FillDisk,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Kill,
        Kind::KillTwo,
        Kind::KillAll,
        Kind::Term,
        Kind::Stop,
        Kind::Isolate,
        Kind::Deafen,
        Kind::Mute,
        Kind::Split,
        Kind::Part,
        Kind::Slow,
        Kind::FillDisk,
    ];

    fn needs_namespaces(self) -> bool {
        matches!(self, Kind::Isolate | Kind::Deafen | Kind::Mute | Kind::Split | Kind::Part | Kind::FillDisk)
    }

    /// As the summary calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::KillTwo => "kill -9 of two",
            Kind::KillAll => "kill -9 of all",
            Kind::Term => "SIGTERM",
            Kind::Stop => "SIGSTOP",
            Kind::Isolate => "cut off",
            Kind::Deafen => "deaf",
            Kind::Mute => "mute",
            Kind::Split => "two and three",
            Kind::Part => "a pair apart",
            Kind::Slow => "slow link",
            Kind::FillDisk => "full disk",
        }
    }
}

/// One fault, or two at once, and how long it lasts.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub whom: Whom,
    /// Where a second node is part of it: another one than `whom`.
    pub other: Whom,
    pub lasts: Duration,
    /// How late a slow link is.
    pub delay_ms: u64,
}

impl Plan {
    /// The next in the order of this seed, of those that this ground can bear.
    pub fn draw(rng: &mut Rng, ground: &Ground) -> Plan {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| ground.has_namespaces() || !kind.needs_namespaces()).collect();
        let kind = kinds[rng.below(kinds.len() as u64) as usize];
        let leader = rng.below(2) == 0;
        let (first, second) = (rng.below(4) as usize, rng.below(3) as usize);
        let whom = if leader { Whom::Leader } else { Whom::Follower(first) };
        let other = Whom::Follower(if second >= first { second + 1 } else { second });
        // Below and above the five seconds after which a silent node is lost.
        let lasts = Duration::from_millis(500 + rng.below(8_000));
        Plan { kind, whom, other, lasts, delay_ms: 20 + rng.below(480) }
    }

    /// Does it; says to whom.
    pub fn strike(&self, cluster: &mut Cluster, leader: usize) -> String {
        let (node, other) = (self.whom.node(leader), self.other.node(leader));
        let rest = |node: usize| (0..NODES).filter(move |other| *other != node);
        match self.kind {
            Kind::Kill => cluster.kill(node),
            Kind::KillTwo => [node, other].into_iter().for_each(|node| cluster.kill(node)),
            Kind::KillAll => (0..NODES).for_each(|node| cluster.kill(node)),
            Kind::Term => cluster.ask_to_end(node),
            Kind::Stop => cluster.stop(node),
            Kind::Isolate => cluster.ground.cut(&rest(node).flat_map(|other| [(node, other), (other, node)]).collect()),
            Kind::Deafen => cluster.ground.cut(&rest(node).map(|other| (other, node)).collect()),
            Kind::Mute => cluster.ground.cut(&rest(node).map(|other| (node, other)).collect()),
            Kind::Split => {
                let side = |n: usize| n == node || n == other;
                let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
                cluster.ground.cut(&pairs.filter(|(from, to)| side(*from) != side(*to)).collect::<Cuts>());
            }
            Kind::Part => cluster.ground.cut(&Cuts::from([(node, other), (other, node)])),
            Kind::Slow => {
                let slow = cluster.ground.relayed().nth(node % 2).expect("two are relayed");
                cluster.ground.delay(slow, self.delay_ms);
                return tell(slow, leader);
            }
            Kind::FillDisk => {
                let full = SMALL_DISKS[node % SMALL_DISKS.len()];
                cluster.fill_disk(full);
                return tell(full, leader);
            }
        }
        match self.kind {
            Kind::KillAll => "all".to_owned(),
            Kind::KillTwo | Kind::Split | Kind::Part => format!("{} and {}", tell(node, leader), tell(other, leader)),
            _ => tell(node, leader),
        }
    }
}

fn tell(node: usize, leader: usize) -> String {
    let leads = if node == leader { " (leads)" } else { "" };
    format!("{}{leads}", Cluster::name(node))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1} s", self.kind.name(), self.lasts.as_secs_f64())?;
        if self.kind == Kind::Slow { write!(f, ", {} ms late", self.delay_ms) } else { Ok(()) }
    }
}
