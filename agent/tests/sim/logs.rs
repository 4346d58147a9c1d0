//! The log as it was committed, put together from what the members write to their disks.
//!
//! Checkers read it: no two members may differ at an index, terms never go back, and what a script wrote stands at an
//! entry of the very term that its hook ran in. It also says which commands a run has seen at all.

use crate::{
    counts::{Count, Counts},
    disk::Disk,
};
use agent::model::{
    codec,
    command::{Command, Proposal},
    ids::{MemberId, NodeId},
    instance::InstanceDesired,
    node::NodeState,
    service::Roll,
};
use std::collections::{BTreeMap, BTreeSet};

/// Entries kept to compare with: members that are further behind get a snapshot.
const ENTRIES_KEPT: usize = 16_384;

#[derive(Default)]
pub struct Logs {
    committed: BTreeMap<u64, Committed>,
    lost: BTreeSet<NodeId>,
}

struct Committed {
    term: u64,
    bytes: Box<[u8]>,
    first: MemberId,
}

impl Logs {
    /// A member applied the entry at `index` (what it holds, if nobody did before), and this is what its disk was given for it. `rolls`: some service is being updated.
    pub fn committed(&mut self, member: MemberId, index: u64, bytes: &[u8], rolls: bool, counts: &mut Counts) -> Option<Proposal> {
        counts.add(Count::EntriesCompared);
        if let Some(known) = self.committed.get(&index) {
            let (first, same) = (known.first, *known.bytes == *bytes);
            assert!(same, "violation: logs differ at index {index}: member {} has another entry than member {}", member.0, first.0);
            return None;
        }
        let entry = Entry::read(bytes).expect("the replica wrote it");
        assert!(entry.index == index, "violation: an entry of index {} was written as {index}", entry.index);
        let before = self.committed.range(..index).next_back().map_or(0, |(_, known)| known.term);
        let after = self.committed.range(index + 1..).next().map_or(u64::MAX, |(_, known)| known.term);
        let term = entry.term;
        assert!(before <= term && term <= after, "violation: the entry of term {term} at {index} stands among {before} and {after}");
        self.committed.insert(index, Committed { term, bytes: bytes.into(), first: member });
        if self.committed.len() > ENTRIES_KEPT {
            self.committed.pop_first();
        }
        if entry.kind != 0 || entry.data.is_empty() {
            return None;
        }
        let proposal = codec::decode::<Proposal>(entry.data).expect("the replica wrote it");
        assert!(proposal.fence.is_none_or(|fence| fence == term), "violation: a leader of term {term} proposed {proposal:?}");
        self.count(&proposal.command, rolls, counts);
        Some(proposal)
    }

    /// How far what was decided stands in the log on this disk.
    pub fn held_by(&self, disk: &Disk) -> u64 {
        let snapshot = disk.durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let holds = |index: u64, known: &Committed| index <= snapshot || disk.entry(index).is_some_and(|bytes| *bytes == *known.bytes);
        self.committed.iter().rev().find(|(index, known)| holds(**index, known)).map_or(0, |(index, _)| *index)
    }

    /// How many entries are known to be decided after this one.
    pub fn known_after(&self, index: u64) -> u64 {
        self.committed.range(index + 1..).count() as u64
    }

    /// The term of the committed entry at this index, if it was seen.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.committed.get(&index).map(|known| known.term)
    }

    /// What a script wrote in a hook of `term` took effect at `index`.
    pub fn scripted(&self, index: u64, term: u64) {
        if let Some(entry) = self.term_at(index) {
            assert!(entry == term, "violation: what a script wrote in term {term} was carried out in term {entry}, at index {index}");
        }
    }

    fn count(&mut self, command: &Command, rolls: bool, counts: &mut Counts) {
        let count = match command {
            Command::NodeState { node, state: NodeState::Lost, .. } if self.lost.insert(*node) => Count::NodesLost,
            Command::NodeState { node, state: NodeState::Ready | NodeState::Draining, .. } if self.lost.remove(node) => {
                Count::NodesReturned
            }
            Command::ModulesPut(_) => {
                if rolls {
                    counts.add(Count::ModulesPutInRoll);
                }
                Count::ModulesPut
            }
            Command::ModulesRollback => Count::ModulesRolledBack,
            Command::Declare { .. } => Count::Declared,
            Command::ScriptError(error) if !error.is_empty() => Count::ScriptErrors,
            Command::ScriptLed(_) => Count::ScriptLed,
            Command::ServiceSet { .. } => Count::ServicesSet,
            Command::ServiceScale { .. } => Count::ServicesScaled,
            Command::ServiceRestart(_) => Count::ServicesRestarted,
            Command::ServiceRollback(_) => Count::ServicesRolledBack,
            Command::ServiceRemove(_) => Count::ServicesRemoved,
            Command::TaskPlace { .. } => Count::TasksPlaced,
            Command::TaskStop(_) => Count::TasksStopped,
            Command::TaskForget(_) => Count::TasksForgotten,
            Command::Rolled { roll: Roll::Done, .. } => Count::RollsDone,
            Command::Rolled { roll: Roll::Stopped(_), .. } => Count::RollsStopped,
            Command::NodeDrain { drain: true, .. } => Count::NodesDrained,
            Command::InstanceSet { desired: InstanceDesired::Terminated, .. } => Count::TerminationsDecided,
            Command::KvDelete(_) => Count::Deletes,
            _ => return,
        };
        counts.add(count);
    }
}

/// The parts of a raft entry (`eraftpb.proto`) that matter here, read by hand: nothing but `logic/raft` knows raft-rs.
struct Entry<'a> {
    kind: u64,
    term: u64,
    index: u64,
    data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// One version byte, then protobuf (entry_type = 1, term = 2, index = 3, data = 4).
    fn read(bytes: &'a [u8]) -> Option<Entry<'a>> {
        let mut entry = Entry { kind: 0, term: 0, index: 0, data: &[] };
        let mut rest = bytes.split_first()?.1;
        while !rest.is_empty() {
            let (field, wire) = {
                let tag = varint(&mut rest)?;
                (tag >> 3, tag & 7)
            };
            let value = varint(&mut rest)?;
            match (field, wire) {
                (1, 0) => entry.kind = value,
                (2, 0) => entry.term = value,
                (3, 0) => entry.index = value,
                (_, 0) => {}
                (_, 2) => {
                    let (bytes, after) = rest.split_at_checked(value as usize)?;
                    rest = after;
                    if field == 4 {
                        entry.data = bytes;
                    }
                }
                _ => return None,
            }
        }
        Some(entry)
    }
}

/// A record with so much less in one of its numbers: the term of a hard state is its field 1, that of a snapshot field 3.
pub fn lessen(record: &[u8], field: u64, by: u64) -> Option<Vec<u8>> {
    let (version, mut rest) = record.split_first()?;
    let mut lessened = vec![*version];
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = varint(&mut rest)?;
        let value = if tag >> 3 == field { value.checked_sub(by)? } else { value };
        put_varint(&mut lessened, tag);
        put_varint(&mut lessened, value);
        if tag & 7 == 2 {
            let (bytes, after) = rest.split_at_checked(value as usize)?;
            lessened.extend_from_slice(bytes);
            rest = after;
        }
    }
    Some(lessened)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
