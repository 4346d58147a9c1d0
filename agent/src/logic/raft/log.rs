//! The uncompacted log, in memory: what raft-rs reads its entries from.
//!
//! The store on disk is write-only until the next start, so the log lives here. It is bounded by compaction
//! (`limits::LOG_BYTES_MAX`); a peer that needs older entries gets the snapshot instead.

use crate::model::limits::LOG_ENTRIES_KEPT;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::{cell::Cell, collections::VecDeque, sync::Arc};

/// Bytes of entries kept behind the snapshot at most.
const KEPT_BYTES_MAX: usize = 64 * 1024;

pub(super) struct MemoryLog {
    /// Entries after `truncated`, gapless.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Position of the entry before the first one held.
    truncated: (u64, u64),
    /// Position and membership of the newest snapshot, and the state it holds.
    snapshot: (u64, u64, ConfState),
    data: Arc<Vec<u8>>,
    /// Somebody needs a snapshot and the one held will not do for them.
    wants_newer: Cell<bool>,
    pub(super) hard_state: HardState,
    /// Membership as applied.
    pub(super) conf: ConfState,
}

impl MemoryLog {
    /// A member that has nothing yet: it waits for a leader's snapshot.
    pub(super) fn empty() -> MemoryLog {
        MemoryLog {
            entries: VecDeque::new(),
            bytes: 0,
            truncated: (0, 0),
            snapshot: (0, 0, ConfState::default()),
            data: Arc::new(Vec::new()),
            wants_newer: Cell::new(false),
            hard_state: HardState::default(),
            conf: ConfState::default(),
        }
    }

    pub(super) fn restore(&mut self, index: u64, term: u64, conf: ConfState, data: Arc<Vec<u8>>) {
        self.entries.clear();
        self.bytes = 0;
        self.truncated = (index, term);
        self.conf = conf.clone();
        self.snapshot = (index, term, conf);
        self.data = data;
        if self.hard_state.commit < index {
            self.hard_state.commit = index;
        }
        if self.hard_state.term < term {
            self.hard_state.term = term;
        }
    }

    pub(super) fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            let dropped = self.entries.pop_back().expect("just seen");
            self.bytes -= dropped.data.len() + dropped.context.len();
        }
        assert!(self.last() + 1 == first.index, "a gap in the log: {} then {}", self.last(), first.index);
        for entry in new {
            self.bytes += entry.data.len() + entry.context.len();
            self.entries.push_back(entry.clone());
        }
    }

    /// Makes the state at `index` the snapshot and forgets most of what lies before it.
    pub(super) fn compact(&mut self, index: u64, data: Arc<Vec<u8>>) {
        let term = self.term(index).expect("compaction stays within the log");
        self.snapshot = (index, term, self.conf.clone());
        self.data = data;
        let mut behind: usize = self.entries.iter().take_while(|e| e.index <= index).map(|e| e.data.len()).sum();
        while let Some(first) = self.entries.front() {
            let keep = first.index > index || (first.index + LOG_ENTRIES_KEPT > index && behind <= KEPT_BYTES_MAX);
            if keep {
                break;
            }
            let dropped = self.entries.pop_front().expect("just seen");
            behind -= dropped.data.len();
            self.bytes -= dropped.data.len() + dropped.context.len();
            self.truncated = (dropped.index, dropped.term);
        }
        self.entries.shrink_to(self.entries.len() * 2);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.back().map_or(self.truncated.0, |e| e.index)
    }

    /// Whether a newer snapshot is wanted, since the last time this was asked.
    pub(super) fn take_wants_newer(&self) -> bool {
        self.wants_newer.take()
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.0
    }

    pub(super) fn snapshot_meta(&self) -> (u64, u64, &ConfState) {
        (self.snapshot.0, self.snapshot.1, &self.snapshot.2)
    }

    pub(super) fn snapshot_data(&self) -> Arc<Vec<u8>> {
        self.data.clone()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(&self, low: u64, high: u64, max_size: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let from = (low - self.truncated.0 - 1) as usize;
        let to = (high - self.truncated.0 - 1) as usize;
        let mut found: Vec<Entry> = self.entries.range(from..to).cloned().collect();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        if index == self.snapshot.0 {
            return Ok(self.snapshot.1);
        }
        if index < self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let at = (index - self.truncated.0 - 1) as usize;
        self.entries.get(at).map(|e| e.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A member ignores a snapshot from before it was one, and would wait for ever.
        let conf = &self.snapshot.2;
        let knows_it = [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next].iter().any(|set| set.contains(&to));
        if !knows_it || self.snapshot.0 < request_index {
            self.wants_newer.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        // The data travels beside the message: only the position goes in here.
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.snapshot.0;
        meta.term = self.snapshot.1;
        meta.conf_state = Some(self.snapshot.2.clone());
        Ok(snapshot)
    }
}
