//! What goes wrong, drawn from a seed: to whom is said by role, because who leads is for the run to say.

use crate::{
    NODES,
    cluster::{Cluster, SMALL_DISKS},
    ground::{Cuts, Ground},
    rng::Rng,
};
use std::{fmt, time::Duration};

/// A silent node is lost after five seconds and its tasks move after as many again; a moment less than that.
const TASKS_STAY: Duration = Duration::from_secs(9);

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

    /// Whether it leaves four nodes as they are.
    fn strikes_one(self) -> bool {
        !matches!(self, Kind::KillTwo | Kind::KillAll | Kind::Split | Kind::Part)
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

/// One fault.
#[derive(Clone, Debug)]
struct Strike {
    kind: Kind,
    whom: Whom,
    /// Where a second node is part of it: another one than `whom`.
    other: Whom,
    /// How late a slow link is.
    delay_ms: u64,
}

/// One fault, or two at once, and how long it lasts.
#[derive(Clone, Debug)]
pub struct Plan {
    strikes: Vec<Strike>,
    pub lasts: Duration,
}

impl Plan {
    /// The next in the order of this seed, of those that this ground can bear.
    pub fn draw(rng: &mut Rng, ground: &Ground, managers: usize) -> Plan {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| ground.has_namespaces() || !kind.needs_namespaces()).collect();
        let kind = kinds[rng.below(kinds.len() as u64) as usize];
        let leader = rng.below(2) == 0;
        let (first, second) = (rng.below(4) as usize, rng.below(3) as usize);
        let whom = if leader { Whom::Leader } else { Whom::Follower(first) };
        let other = Whom::Follower(if second >= first { second + 1 } else { second });
        let (twice, next, delay_ms) = (rng.below(4) == 0, rng.below(5) as usize, 20 + rng.below(480));
        let mut strikes = vec![Strike { kind, whom, other, delay_ms }];
        // Two at once, where three are left untouched.
        let next = [Kind::Kill, Kind::Term, Kind::Stop, Kind::Slow, Kind::FillDisk][next];
        if twice && kind.strikes_one() && next != kind && kinds.contains(&next) {
            strikes.push(Strike { kind: next, whom: other, other: whom, delay_ms });
        }
        // Below and above the five seconds after which a silent node is lost, and at times the ten after which its
        // tasks move.
        let long = match rng.below(24) {
            // A lost voter keeps its seat for half a minute; with workers there, one of them takes it then.
            0 if managers < NODES => 32_000,
            8 | 16 | 0 => 4_000,
            _ => 0,
        };
        Plan { strikes, lasts: Duration::from_millis(500 + long + rng.below(8_000)) }
    }

    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.strikes.iter().map(|strike| strike.kind)
    }

    /// Whether a majority of so many managers hears each other all the time.
    pub fn leaves_a_majority(&self, managers: usize) -> bool {
        let one = self.strikes.len() == 1 && self.kinds().all(Kind::strikes_one);
        self.kinds().all(|kind| kind != Kind::KillAll) && (managers == NODES || one)
    }

    /// Whether tasks stay where they are: no node is silent for long enough to lose them.
    pub fn leaves_tasks(&self) -> bool {
        self.lasts < TASKS_STAY
    }

    /// Does it; says to whom.
    pub fn strike(&self, cluster: &mut Cluster, leader: usize) -> String {
        let told: Vec<String> = self.strikes.iter().map(|strike| strike.strike(cluster, leader)).collect();
        told.join(" and ")
    }
}

impl Strike {
    fn strike(&self, cluster: &mut Cluster, leader: usize) -> String {
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
        for (place, strike) in self.strikes.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { " and " }, strike.kind.name())?;
            if strike.kind == Kind::Slow {
                write!(f, " ({} ms late)", strike.delay_ms)?;
            }
        }
        write!(f, " for {:.1} s", self.lasts.as_secs_f64())
    }
}
