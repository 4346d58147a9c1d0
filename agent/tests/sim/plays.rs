//! Protocol plays: short texts that say what happens and what must come of it, on the simulated world without chance faults.
//!
//! One line is one step. Whatever waits has a bound in simulated time; the checkers watch as in any history.

use crate::{counts::Counts, history, options::Options, rng::Rng, trace::Lines, world::World};
use agent::{
    logic::raft::Consensus,
    model::{
        ids::RequestId,
        node::Role,
        query::{Answer, Op, Query, Request, View},
        settings::SettingsChange,
    },
};

pub const PLAYS: &[(&str, &str)] = &[
    ("a_deposed_leader_cannot_commit", include_str!("../raft_scripts/a_deposed_leader_cannot_commit.txt")),
    ("a_dead_voter_is_replaced", include_str!("../raft_scripts/a_dead_voter_is_replaced.txt")),
    ("a_learner_then_a_voter", include_str!("../raft_scripts/a_learner_then_a_voter.txt")),
    ("three_nodes_and_back_to_one", include_str!("../raft_scripts/three_nodes_and_back_to_one.txt")),
    ("the_leader_dies_in_a_joint_change", include_str!("../raft_scripts/the_leader_dies_in_a_joint_change.txt")),
    ("the_only_voter_vanishes_in_the_joint_change", include_str!("../raft_scripts/the_only_voter_vanishes_in_the_joint_change.txt")),
    ("two_nodes_are_a_voter_and_a_learner", include_str!("../raft_scripts/two_nodes_are_a_voter_and_a_learner.txt")),
    ("all_are_killed_at_once", include_str!("../raft_scripts/all_are_killed_at_once.txt")),
    ("a_survivor_goes_on_without_the_others", include_str!("../raft_scripts/a_survivor_goes_on_without_the_others.txt")),
    ("promotion_and_demotion_are_swaps", include_str!("../raft_scripts/promotion_and_demotion_are_swaps.txt")),
    ("five_die_one_after_the_other", include_str!("../raft_scripts/five_die_one_after_the_other.txt")),
    ("one_seven_one", include_str!("../raft_scripts/one_seven_one.txt")),
    ("a_removed_node_stays_out", include_str!("../raft_scripts/a_removed_node_stays_out.txt")),
];

/// The longest anything may take, in simulated milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// A leader cut off must fall silent within this.
const CUT_OFF_MS: u64 = 6_000;
const LOOK_MS: u64 = 10;

struct Stage {
    world: World,
    /// The machine that led when it was cut off or killed.
    old: Option<usize>,
    sequence: u64,
}

/// # Panics
/// At the first line that does not come true.
pub fn perform(text: &str, seed: u64, lines: Lines) -> Counts {
    let mut world = World::with(Options::calm(), Rng::new(seed), lines, None);
    world.workload.quiet();
    let mut stage = Stage { world, old: None, sequence: 0 };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        stage.world.note(30, number as u64, || format!("---- {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        stage.step(&words).unwrap_or_else(|why| panic!("line {}: `{line}`: {why}", number + 1));
    }
    history::finish(&stage.world).counts
}

impl Stage {
    fn step(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["run", ms] => {
                let until = self.world.now + number(ms)?;
                self.world.run_until(until);
                Ok(())
            }
            ["scale", nodes] => {
                let nodes = number(nodes)? as u32;
                self.world.workload.target = nodes;
                self.write(Op::Scale(nodes))
            }
            ["managers", count] => {
                let managers = number(count)? as u32;
                (self.world.workload.managers, self.world.workload.managers_most) = (managers, managers);
                self.write(Op::Configure(SettingsChange { managers: Some(managers), ..SettingsChange::default() }))
            }
            // Within the hour: with as many as there were no machine can be had any more.
            ["launches", most] => {
                let most = number(most)? as u32;
                self.write(Op::Configure(SettingsChange { max_launches_per_hour: Some(most), ..SettingsChange::default() }))
            }
            ["write", key, value] => self.write(set(key, value)),
            ["write", key, value, "at", "old", "expects", "no", "answer"] => {
                let old = self.old.ok_or("nobody was cut off")?;
                match self.ask(Some(old), set(key, value), CUT_OFF_MS) {
                    Some(Answer::Written { .. }) => Err("it was acknowledged".into()),
                    _ => Ok(()),
                }
            }
            ["read", key, "expects", value] => self.read(key, value),
            ["remove", who] => {
                let host = self.who(who)?;
                let node = self.world.machines[host].identity.node;
                self.write(Op::NodeRemove(node.to_string()))
            }
            ["demote", who] => {
                let host = self.who(who)?;
                let node = self.world.machines[host].identity.node.to_string();
                self.write(Op::NodePrefer { node, role: Role::Worker })
            }
            ["recover"] => {
                self.world.recover();
                Ok(())
            }
            ["kill", "all"] => {
                let hosts = self.world.hosts();
                hosts.into_iter().for_each(|host| self.world.stop_process(host));
                Ok(())
            }
            ["kill", who] => {
                let host = self.who(who)?;
                self.world.stop_process(host);
                Ok(())
            }
            ["start", "all"] => {
                self.world.start_all();
                Ok(())
            }
            ["vanish", who] => {
                let host = self.who(who)?;
                let id = self.world.machines[host].instance.clone().ok_or("no provider made it")?;
                self.world.terminate_instance(&id);
                Ok(())
            }
            ["isolate", who] => {
                let host = self.who(who)?;
                let hosts = self.world.hosts();
                self.world.network.isolate(host, &hosts);
                Ok(())
            }
            ["heal"] => {
                self.world.network.heal();
                Ok(())
            }
            ["until", "new", "leader"] => {
                let old = self.old;
                self.until("another leader", |world| world.leader().is_some_and(|leader| Some(leader) != old))
            }
            ["until", "leader"] => self.until("leader", |world| world.leader().is_some()),
            ["until", "joint"] => self.until("a joint configuration", |world| {
                let group = world.leader().and_then(|leader| world.consensus(leader)).map(Consensus::membership);
                group.is_some_and(|group| group.is_joint())
            }),
            ["expect", "rest"] => {
                let mut missing = None;
                self.until("rest", |world| {
                    missing = world.missing();
                    missing.is_none()
                })
                .map_err(|why| format!("{why}: {}", missing.unwrap_or_default()))
            }
            ["expect", what, count] => self.expect(what, number(count)? as usize),
            _ => Err("not a line this stage knows".into()),
        }
    }

    /// `leader`, or `follower`: the first other machine that runs.
    fn who(&mut self, who: &str) -> Result<usize, String> {
        let leader = self.world.leader().ok_or("nobody leads")?;
        if who == "leader" {
            self.old = Some(leader);
            return Ok(leader);
        }
        let other = |host: &usize| *host != leader && self.world.machines[*host].process.is_some();
        self.world.hosts().into_iter().find(other).ok_or("there is no follower".into())
    }

    fn until(&mut self, what: &str, mut is: impl FnMut(&mut World) -> bool) -> Result<(), String> {
        let end = self.world.now + PATIENCE_MS;
        while self.world.now < end {
            self.world.run_until(self.world.now + LOOK_MS);
            if is(&mut self.world) {
                return Ok(());
            }
        }
        Err(format!("no {what} within {} s", PATIENCE_MS / 1000))
    }

    /// One attempt at one machine (or whoever leads).
    fn ask(&mut self, host: Option<usize>, op: Op, patience_ms: u64) -> Option<Answer> {
        let id = RequestId { client: 7, sequence: self.sequence };
        self.world.ask(host, Request::Write { id, op }, patience_ms)
    }

    fn write(&mut self, op: Op) -> Result<(), String> {
        self.sequence += 1;
        let end = self.world.now + PATIENCE_MS;
        while self.world.now < end {
            match self.ask(None, op.clone(), 4_000) {
                Some(Answer::Written { .. }) => return Ok(()),
                Some(Answer::Refused { code, why }) => return Err(format!("refused: {code}: {why}")),
                _ => self.world.run_until(self.world.now + 100),
            }
        }
        Err("no answer".into())
    }

    fn read(&mut self, key: &str, expected: &str) -> Result<(), String> {
        let end = self.world.now + PATIENCE_MS;
        while self.world.now < end {
            let request = Request::Read { stale: false, query: Query::KvGet(key.into()) };
            if let Some(Answer::Read { view: View::Kv { value, .. }, .. }) = self.world.ask(None, request, 4_000) {
                let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                return if value.as_deref() == Some(expected) { Ok(()) } else { Err(format!("it is {value:?}")) };
            }
            self.world.run_until(self.world.now + 100);
        }
        Err("no answer".into())
    }

    fn expect(&mut self, what: &str, count: usize) -> Result<(), String> {
        let leader = self.world.leader().ok_or("nobody leads")?;
        let group = self.world.consensus(leader).ok_or("the leader has no seat")?.membership();
        let found = match what {
            "voters" => group.voters.len(),
            "learners" => group.learners.len(),
            "instances" => self.world.cloud.instances.len(),
            _ => return Err(format!("nothing counts {what}")),
        };
        if found == count { Ok(()) } else { Err(format!("{found} {what}: {group:?}")) }
    }
}

fn set(key: &str, value: &str) -> Op {
    Op::KvSet { key: key.into(), value: value.into() }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}
