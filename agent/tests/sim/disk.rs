//! What a machine keeps when its process dies: the store, exactly as `model/io.rs` words a `Batch`, and the small files.
//!
//! Batches are written one at a time. A crash loses all that is not durable yet; the one being written may have reached
//! the platter without anybody hearing of it.

use crate::mutants::Mutant;
use agent::model::io::{Batch, Keyring, LogRecord, Restored, Seat};
use std::collections::VecDeque;

/// What became of the batch that was being written when the process died.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    Lost,
    /// Whole on the platter, and nobody heard of it.
    Synced,
    /// Half of it on the platter.
    Torn,
}

#[derive(Default)]
pub struct Disk {
    pub durable: Restored,
    pub keyring: Option<Keyring>,
    /// Something was written once: never again may this machine originate a cluster.
    pub formed: bool,
    mutant: Option<Mutant>,
    queue: VecDeque<(u64, Batch)>,
    hard_state_before: Option<Vec<u8>>,
}

impl Disk {
    pub fn new(mutant: Option<Mutant>) -> Disk {
        Disk { mutant, ..Disk::default() }
    }

    /// Is it the only one, so that its writing begins now?
    pub fn push(&mut self, number: u64, batch: Batch) -> bool {
        self.queue.push_back((number, batch));
        self.queue.len() == 1
    }

    /// Whether the batch being written is a vote (or a term) and nothing else.
    pub fn writes_a_vote(&self) -> bool {
        self.queue.front().is_some_and(|(_, batch)| batch.entries.is_empty() && batch.snapshot.is_none() && batch.hard_state.is_some())
    }

    /// The batch being written is durable. Its number, and whether another one begins.
    pub fn finish(&mut self) -> (u64, bool) {
        let (number, batch) = self.queue.pop_front().expect("a write that ends was begun");
        if batch.hard_state.is_some() {
            self.hard_state_before = self.durable.hard_state.clone();
        }
        take(&mut self.durable, batch);
        self.formed = true;
        (number, !self.queue.is_empty())
    }

    /// The batch was not written, and nobody minds.
    pub fn finish_without(&mut self) -> (u64, bool) {
        let (number, _) = self.queue.pop_front().expect("a write that ends was begun");
        (number, !self.queue.is_empty())
    }

    /// The process is gone. True if unsynced batches went with it.
    pub fn crash(&mut self, tail: Tail) -> bool {
        match tail {
            Tail::Synced => {
                self.finish();
            }
            // The store knows a torn write by its checksum: it never happened.
            Tail::Torn if self.mutant == Some(Mutant::TornWriteSpoilsMore) => self.spoil(),
            Tail::Torn | Tail::Lost => {}
        }
        let lost = !self.queue.is_empty();
        self.queue.clear();
        if self.mutant == Some(Mutant::ForgottenVote) && self.hard_state_before.is_some() {
            self.durable.hard_state = self.hard_state_before.take();
        }
        lost
    }

    /// A mutant: this is written, and then the process is no more.
    pub fn dies_with(&mut self, batch: Batch) {
        self.queue.clear();
        take(&mut self.durable, batch);
    }

    /// A store that writes where it wrote before: what was torn took the entry before it along.
    fn spoil(&mut self) {
        self.durable.entries.pop();
    }

    /// The log's entry at this index, durable or on its way.
    pub fn entry(&self, index: u64) -> Option<&[u8]> {
        let within = |entries: &'_ [LogRecord]| -> Option<usize> {
            let at = index.checked_sub(entries.first()?.index)? as usize;
            (at < entries.len()).then_some(at)
        };
        let pending = self.queue.iter().rev().find_map(|(_, batch)| Some(batch.entries[within(&batch.entries)?].bytes.as_slice()));
        pending.or_else(|| Some(self.durable.entries[within(&self.durable.entries)?].bytes.as_slice()))
    }

    pub fn is_writing(&self) -> bool {
        !self.queue.is_empty()
    }
}

fn take(store: &mut Restored, batch: Batch) {
    if let Some(seat) = batch.seat {
        *store = Restored::default();
        store.member = match seat {
            Seat::Take(member) => Some(member),
            Seat::Leave => None,
        };
    }
    if let Some(snapshot) = batch.snapshot {
        if snapshot.reset_log {
            store.entries.clear();
        } else {
            let covered = snapshot.index;
            store.entries.retain(|entry| entry.index > covered);
        }
        store.snapshot = Some(snapshot);
    }
    if !batch.entries.is_empty() {
        append(store, batch.entries);
    }
    if batch.hard_state.is_some() {
        store.hard_state = batch.hard_state;
    }
}

fn append(store: &mut Restored, entries: Vec<LogRecord>) {
    let first = entries[0].index;
    for (expected, entry) in (first..).zip(&entries) {
        assert!(entry.index == expected, "violation: a batch has a gap at entry {expected}");
    }
    let kept = store.entries.partition_point(|entry| entry.index < first);
    store.entries.truncate(kept);
    let before = store.entries.last().map(|entry| entry.index).or(store.snapshot.as_ref().map(|snapshot| snapshot.index));
    if let Some(before) = before {
        assert!(first == before + 1, "violation: the log has a gap: entry {first} was written after {before}");
    }
    store.entries.extend(entries);
}
