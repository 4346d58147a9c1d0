//! What must be true whatever happens. Checkers only watch; they never act.
//!
//! Every write's answer and every read's version is a log index, so much of a register's history is checked as it
//! happens: no operation goes below what had already been shown when it began. What indexes cannot tell is searched for
//! at the end (`linear.rs`).

use crate::{linear::Linear, logs::Logs};
use agent::model::ids::MemberId;
use std::collections::{BTreeMap, BTreeSet};

/// Members that are further behind are compared at the next index.
const STATES_KEPT: usize = 48;

#[derive(Default)]
pub struct Checkers {
    /// By term.
    leaders: BTreeMap<u64, MemberId>,
    /// Whole states by log index, and who had each first.
    states: BTreeMap<u64, (Vec<u8>, MemberId)>,
    /// By the log index they came into force at: the voters, and whether jointly with the set before.
    voters: BTreeMap<u64, (Vec<MemberId>, bool)>,
    registers: BTreeMap<String, Register>,
    admitted: BTreeMap<String, (u32, BTreeMap<Vec<u8>, u64>)>,
    /// The machine that each task was ever started on.
    tasks: BTreeMap<u64, usize>,
    pub logs: Logs,
    pub linear: Linear,
    lost: Option<Lost>,
}

/// What may be lost with a majority: what stood in the log after `kept` and before the `first` index of the new life.
struct Lost {
    kept: u64,
    first: u64,
}

impl Lost {
    fn covers(&self, index: u64) -> bool {
        index > self.kept && index < self.first
    }
}

#[derive(Default)]
struct Register {
    /// The newest version any finished operation has shown.
    floor: u64,
    /// The newest of these that was kept when a majority was lost.
    kept: u64,
    /// What each version was.
    values: BTreeMap<u64, Vec<u8>>,
    /// Everything anybody tried to write.
    tried: BTreeSet<Vec<u8>>,
    /// Somebody tried to delete it: its absence proves nothing by itself.
    deleted: bool,
}

impl Checkers {
    /// True when this is the first sight of a term's leader.
    pub fn leads(&mut self, member: MemberId, term: u64, applied: u64) -> bool {
        let from = self.life_from();
        assert!(applied >= from, "violation: member {} leads at {applied} in a life that is over: the next began at {from}", member.0);
        let first = !self.leaders.contains_key(&term);
        let leader = *self.leaders.entry(term).or_insert(member);
        assert!(leader == member, "violation: two leaders in term {term}: members {} and {}", leader.0, member.0);
        first
    }

    /// A survivor goes on from `first`, with what was decided up to `kept`.
    pub fn life_begins(&mut self, kept: u64, first: u64) {
        for register in self.registers.values_mut() {
            register.values.retain(|version, _| *version <= kept);
            if register.floor > kept {
                register.floor = register.values.last_key_value().map_or(0, |(version, _)| *version);
            }
            register.kept = register.floor;
        }
        self.lost = Some(Lost { kept, first });
    }

    /// The index of the first entry that is of the newest life.
    pub fn life_from(&self) -> u64 {
        self.lost.as_ref().map_or(0, |lost| lost.first)
    }

    fn is_lost(&self, index: u64) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.covers(index))
    }

    /// What `floor` of an operation that began in the life before is now.
    fn floor(&self, key: &str, floor: u64) -> u64 {
        if self.is_lost(floor) { self.registers.get(key).map_or(0, |register| register.kept) } else { floor }
    }

    pub fn runs(&mut self, task: u64, host: usize) {
        let first = *self.tasks.entry(task).or_insert(host);
        assert!(first == host, "violation: task {task} was started on n{first} and on n{host}");
    }

    /// The key that scripts write their term to was last written at this index.
    pub fn fenced(&self, index: u64, value: &[u8]) {
        if self.is_lost(index) {
            return;
        }
        let term: u64 = String::from_utf8_lossy(value).parse().expect("hooks write their term");
        self.logs.scripted(index, term);
    }

    /// A member's state at this index, encoded: the same as everybody else's.
    pub fn state(&mut self, member: MemberId, applied: u64, state: Vec<u8>) {
        let Some((first, who)) = self.states.get(&applied) else {
            self.states.insert(applied, (state, member));
            if self.states.len() > STATES_KEPT {
                self.states.pop_first();
            }
            return;
        };
        assert!(*first == state, "violation: states differ at index {applied}: those of members {} and {}", member.0, who.0);
    }

    /// True if this set was not seen before at this index.
    pub fn membership(&mut self, at: u64, voters: &[MemberId], joint: bool, managers_max: u32) -> bool {
        assert!(!voters.is_empty(), "violation: nobody votes");
        assert!(joint || voters.len() % 2 == 1, "violation: an even number of voters outside a joint change: {voters:?}");
        assert!(voters.len() <= managers_max as usize, "violation: {} voters, but at most {managers_max} are wanted", voters.len());
        let before = self.voters.range(..=at).next_back();
        let changed = before.is_none_or(|(_, (last, was_joint))| last != voters || *was_joint != joint);
        if changed {
            self.voters.insert(at, (voters.to_vec(), joint));
        }
        changed
    }

    /// The newest membership anybody has applied: since which index, its voters, and whether it is a joint one.
    pub fn newest_voters(&self) -> Option<(u64, &[MemberId], bool)> {
        self.voters.last_key_value().map(|(at, (voters, joint))| (*at, voters.as_slice(), *joint))
    }

    /// The floor an operation on `key` that begins now must not go below.
    pub fn begin(&mut self, key: &str, writes: Option<&[u8]>) -> u64 {
        let register = self.registers.entry(key.into()).or_default();
        if let Some(value) = writes {
            register.tried.insert(value.to_vec());
        }
        register.floor
    }

    pub fn wrote(&mut self, key: &str, value: &[u8], index: u64, floor: u64) {
        let floor = self.floor(key, floor);
        let register = self.registers.get_mut(key).expect("a write begins before it ends");
        assert!(index > floor, "violation: write of {key} got index {index}, not above {floor} which was shown before it began");
        register.show(key, index, value);
    }

    pub fn deletes(&mut self, key: &str) {
        self.registers.entry(key.into()).or_default().deleted = true;
    }

    pub fn deleted(&mut self, key: &str, index: u64, floor: u64) {
        let floor = self.floor(key, floor);
        assert!(index > floor, "violation: the deletion of {key} got index {index}, not above {floor} which was shown before it began");
        let register = self.registers.get_mut(key).expect("a deletion begins before it ends");
        register.floor = register.floor.max(index);
    }

    pub fn read(&mut self, key: &str, value: Option<&[u8]>, version: u64, floor: u64) {
        let floor = self.floor(key, floor);
        let register = self.registers.get_mut(key).expect("a read begins before it ends");
        // A deletion leaves no version behind.
        let gone = register.deleted && value.is_none();
        assert!(gone || version >= floor, "violation: a read of {key} shows version {version}, but {floor} was shown before it began");
        match value {
            Some(value) => {
                assert!(register.tried.contains(value), "violation: {key} holds a value nobody wrote");
                register.show(key, version, value);
            }
            None if gone => {}
            None => assert!(version == 0 && floor == 0, "violation: {key} was written (version {floor}) and reads as absent"),
        }
    }

    /// A stale read may be old, but not invented. (What was lost with a majority stays on the disks of those lost.)
    pub fn stale_read(&mut self, key: &str, value: Option<&[u8]>, version: u64) {
        let lost = self.is_lost(version);
        let register = self.registers.get_mut(key).expect("a read begins before it ends");
        if let Some(value) = value {
            assert!(register.tried.contains(value), "violation: {key} holds a value nobody wrote");
            if !lost {
                register.same(key, version, value);
            }
        }
    }

    pub fn keys(&self) -> Vec<String> {
        self.registers.keys().cloned().collect()
    }

    /// A joiner was let in with this credential, which is good for `uses` keys. The same key gets the same stamp.
    pub fn admitted(&mut self, secret: &str, uses: u32, key: &[u8], stamp_ms: u64) {
        let (uses, keys) = self.admitted.entry(secret.into()).or_insert((uses, BTreeMap::new()));
        let first = *keys.entry(key.to_vec()).or_insert(stamp_ms);
        assert!(first == stamp_ms, "violation: one key got two different admissions from one token");
        assert!(keys.len() <= *uses as usize, "violation: a token good for {uses} let in {} keys", keys.len());
    }
}

impl Register {
    fn show(&mut self, key: &str, version: u64, value: &[u8]) {
        self.same(key, version, value);
        self.floor = self.floor.max(version);
    }

    fn same(&mut self, key: &str, version: u64, value: &[u8]) {
        let first = self.values.entry(version).or_insert_with(|| value.to_vec());
        assert!(first == value, "violation: version {version} of {key} was shown with two values");
        let twice = self.values.iter().find(|(other, held)| **other != version && *held == value);
        assert!(twice.is_none(), "violation: one write of {key} was applied twice: versions {version} and {:?}", twice.map(|t| t.0));
    }
}
