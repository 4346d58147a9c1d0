//! The adapter over raft-rs: the only place that knows it.
//!
//! It turns each `Ready` into ordered outputs: messages that may go now, one durable batch, messages that promise
//! that batch and so wait for it, and entries to apply. One batch is outstanding at a time; what arrives meanwhile
//! gathers for the next. Election timeouts come from the seed, never from raft-rs' own randomness, so that a
//! history can be replayed. What peers send is checked before raft-rs sees it, because it trusts (and panics).

mod codec;
mod incoming;
mod log;
mod membership;
mod sight;

pub use membership::{Change, Membership};

use crate::model::{
    ids::MemberId,
    io::{Batch, LogRecord, Restored, Seat, SnapshotRecord},
};
use codec::{decode, encode};
use log::MemoryLog;
use prost_for_raft::Message as _;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, HardState, Message, MessageType, SnapshotMetadata};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    #[error("the stored {what} is not readable: {why}")]
    Stored { what: &'static str, why: String },
    #[error("the store holds hard state or entries without a snapshot to stand on")]
    NoFoundation,
    #[error("the stored log has a gap before entry {index}")]
    Gap { index: u64 },
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a proposal was not taken; nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotProposed {
    NotLeader,
    Full,
}

/// Heartbeat and election times in ticks (`limits::TICK_MS`).
#[derive(Debug, Clone, Copy)]
pub struct TickTimings {
    pub heartbeat: usize,
    pub election_min: usize,
    pub election_max: usize,
}

#[derive(Debug)]
pub enum Outgoing {
    Message { to: MemberId, bytes: Vec<u8> },
    Snapshot { to: MemberId, message: Vec<u8>, data: Arc<Vec<u8>> },
}

#[derive(Debug)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Empty,
    Command(Vec<u8>),
    /// The group as it is from this entry on.
    Membership(Membership),
}

/// One `Ready`, in the order in which its parts are to be carried out.
#[derive(Debug, Default)]
pub struct Output {
    pub send: Vec<Outgoing>,
    pub persist: Option<(u64, Batch)>,
    /// Replace the state by this snapshot before applying what is committed.
    pub restore: Option<(u64, Arc<Vec<u8>>)>,
    pub committed: Vec<Committed>,
    /// Reads (by context) that may be answered once this index is applied.
    pub reads: Vec<(u64, u64)>,
    pub membership_changed: bool,
}

struct Outstanding {
    number: u64,
    ready: Option<u64>,
    held: Vec<Outgoing>,
    /// Position of the leader's snapshot in this batch.
    snapshot: Option<u64>,
}

pub struct Consensus {
    node: RawNode<MemoryLog>,
    member: MemberId,
    timings: TickTimings,
    chance: u64,
    drawn_for: (u64, StateRole),
    outstanding: Option<Outstanding>,
    number: u64,
    compaction: Option<SnapshotRecord>,
    /// A snapshot on its way in: its position and data, until raft-rs takes the message.
    incoming: Option<(u64, u64, Arc<Vec<u8>>)>,
    unsaved_commit: bool,
    /// Where the newest change of membership that is applied stands in the log, or after it.
    reconfigured_at: u64,
    /// The batch that makes it durable that this change is committed, until it is.
    reconfigured_in: Option<u64>,
}

/// The batch that makes a new group of one: a snapshot at `index` whose membership is that one voter.
/// (The first membership cannot be in the log: a joiner replaying it would apply a change to nothing.)
pub fn originate(member: MemberId, index: u64, term: u64, state: Arc<Vec<u8>>) -> Batch {
    let conf = ConfState::from((vec![member.0], vec![]));
    let hard_state = HardState { term, commit: index, ..HardState::default() };
    Batch {
        seat: Some(Seat::Take(member)),
        snapshot: Some(SnapshotRecord { index, meta: encode(&snapshot_meta(index, term, &conf)), data: state, reset_log: true }),
        entries: Vec::new(),
        hard_state: Some(encode(&hard_state)),
    }
}

impl Consensus {
    /// # Errors
    /// Stored bytes that cannot be read or do not fit together: the node must not start on them.
    pub fn new(member: MemberId, restored: &Restored, timings: TickTimings, seed: u64, numbers_from: u64) -> Result<Consensus, RaftError> {
        let mut memory = MemoryLog::empty();
        if let Some(bytes) = &restored.hard_state {
            memory.hard_state = decode(bytes, "hard state")?;
        }
        if let Some(snapshot) = &restored.snapshot {
            let meta: SnapshotMetadata = decode(&snapshot.meta, "snapshot position")?;
            memory.restore(meta.index, meta.term, meta.conf_state.unwrap_or_default(), snapshot.data.clone());
        } else if !restored.entries.is_empty() {
            return Err(RaftError::NoFoundation);
        }
        for record in &restored.entries {
            let entry: Entry = decode(&record.bytes, "log entry")?;
            if entry.index != memory.last() + 1 {
                return Err(RaftError::Gap { index: entry.index });
            }
            memory.append(&[entry]);
        }
        if memory.hard_state.commit > memory.last() {
            return Err(RaftError::Gap { index: memory.hard_state.commit });
        }
        let config = Config {
            id: member.0,
            election_tick: timings.election_min,
            heartbeat_tick: timings.heartbeat,
            min_election_tick: timings.election_min,
            max_election_tick: timings.election_max.max(timings.election_min + 1),
            applied: memory.snapshot_index(),
            pre_vote: true,
            check_quorum: true,
            max_size_per_msg: 64 * 1024,
            max_inflight_msgs: 16,
            max_uncommitted_size: 1 << 20,
            max_committed_size_per_ready: 64 * 1024,
            ..Config::default()
        };
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let reconfigured_at = memory.snapshot_index();
        let node = RawNode::new(&config, memory, &quiet).map_err(|e| RaftError::Raft(e.to_string()))?;
        let mut consensus = Consensus {
            node,
            member,
            timings,
            chance: seed ^ member.0.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15,
            drawn_for: (u64::MAX, StateRole::Follower),
            outstanding: None,
            number: numbers_from,
            compaction: None,
            incoming: None,
            unsaved_commit: false,
            reconfigured_at,
            reconfigured_in: None,
        };
        consensus.draw_timeout();
        Ok(consensus)
    }

    pub fn tick(&mut self) {
        // Between a snapshot and its being durable raft-rs counts entries as unapplied that no longer exist, and panics
        // if it campaigns; who does not hold its state yet has no business leading anyway.
        if self.is_installing() {
            return;
        }
        self.node.tick();
        self.draw_timeout();
    }

    /// Ticks until raft-rs has something to do by itself.
    pub fn ticks_until_due(&self) -> u64 {
        if self.node.has_ready() && self.outstanding.is_none() {
            return 0;
        }
        let raft = &self.node.raft;
        let left = if raft.state == StateRole::Leader {
            let check_quorum = raft.election_timeout().saturating_sub(raft.election_elapsed);
            raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed()).min(check_quorum)
        } else if raft.promotable() {
            raft.randomized_election_timeout().saturating_sub(raft.election_elapsed)
        } else {
            self.timings.election_min
        };
        left.max(1) as u64
    }

    /// Starts an election at once: a cluster of one need not wait for anybody.
    pub fn campaign_if_alone(&mut self) {
        let alone = self.membership().voters == [self.member];
        if alone && self.node.raft.state != StateRole::Leader {
            let _ = self.node.campaign();
            self.draw_timeout();
        }
    }

    /// Position (term, index) at which it will stand if it commits.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(u64, u64), NotProposed> {
        self.can_propose()?;
        self.node.propose(Vec::new(), data).map_err(|_| NotProposed::Full)?;
        Ok((self.node.raft.term, self.node.raft.raft_log.last_index()))
    }

    pub fn propose_change(&mut self, change: &Change) -> Result<(), NotProposed> {
        self.can_propose()?;
        if self.node.raft.has_pending_conf() {
            return Err(NotProposed::Full);
        }
        self.node.propose_conf_change(Vec::new(), change.to_raft()).map_err(|_| NotProposed::Full)
    }

    fn can_propose(&self) -> Result<(), NotProposed> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.lead_transferee.is_some() {
            return Err(NotProposed::NotLeader);
        }
        Ok(())
    }

    /// Asks the quorum whether this is still the leader. False: raft-rs would drop it silently, try later.
    pub fn read_index(&mut self, context: u64) -> bool {
        if !self.is_leader() || !self.node.raft.commit_to_current_term() {
            return false;
        }
        self.node.read_index(context.to_be_bytes().to_vec());
        true
    }

    pub fn transfer(&mut self, to: MemberId) {
        self.node.transfer_leader(to.0);
    }

    pub fn unreachable(&mut self, member: MemberId) {
        self.node.report_unreachable(member.0);
    }

    pub fn snapshot_sent(&mut self, member: MemberId, ok: bool) {
        self.node.report_snapshot(member.0, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }

    /// Makes `state` (the state at the applied index) the snapshot; the next batch carries it.
    pub fn compact(&mut self, state: Arc<Vec<u8>>) {
        let applied = self.node.raft.raft_log.applied();
        let memory = self.node.mut_store();
        if applied <= memory.snapshot_index() {
            return;
        }
        memory.compact(applied, state.clone());
        let (index, term, conf) = memory.snapshot_meta();
        let meta = encode(&snapshot_meta(index, term, conf));
        self.compaction = Some(SnapshotRecord { index, meta, data: state, reset_log: false });
    }

    /// A peer needs a snapshot newer than the one held; said once, until raft-rs asks again.
    pub fn take_wants_snapshot(&mut self) -> bool {
        self.node.store().take_wants_newer()
    }

    pub fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    /// About what the state takes, encoded: the newest snapshot, and what was added since.
    pub fn state_bytes(&self) -> usize {
        self.node.store().snapshot_data().len() + self.log_bytes()
    }

    pub fn entries_since_snapshot(&self) -> u64 {
        self.node.raft.raft_log.applied().saturating_sub(self.node.store().snapshot_index())
    }

    /// The next output, unless a batch is still being written.
    ///
    /// # Errors
    /// A committed entry that cannot be read: the node must stop.
    pub fn poll(&mut self) -> Result<Option<Output>, RaftError> {
        if self.outstanding.is_some() {
            return Ok(None);
        }
        if !self.node.has_ready() {
            return Ok(self.compaction.take().map(|snapshot| self.save_compaction(snapshot)));
        }
        let mut ready = self.node.ready();
        let mut output = Output { reads: read_states(ready.take_read_states()), ..Output::default() };
        let mut batch = Batch { snapshot: self.compaction.take(), ..Batch::default() };

        if !ready.snapshot().is_empty() {
            let meta = ready.snapshot().get_metadata().clone();
            let (index, term, data) = self.incoming.take().ok_or_else(|| RaftError::Raft("a snapshot without data".into()))?;
            assert!((index, term) == (meta.index, meta.term), "the data beside the snapshot is another's");
            let conf = meta.conf_state.clone().unwrap_or_default();
            self.node.mut_store().restore(index, term, conf, data.clone());
            batch.snapshot = Some(SnapshotRecord { index, meta: encode(&meta), data: data.clone(), reset_log: true });
            output.restore = Some((index, data));
            output.membership_changed = true;
            self.reconfigured_at = index;
        }
        let entries = ready.take_entries();
        batch.entries = entries.iter().map(|e| LogRecord { index: e.index, bytes: encode(e) }).collect();
        self.node.mut_store().append(&entries);

        if let Some(hard_state) = ready.hs() {
            self.node.mut_store().hard_state = hard_state.clone();
            self.unsaved_commit = true;
        }
        // A commit index alone may wait for the next batch: it is learnt again from the leader or the entries.
        // Not so for a change of membership: with a voter gone for good, those left may need to know that it is over.
        let changes = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        let membership = ready.committed_entries().iter().any(changes);
        let save = ready.must_sync() || batch.snapshot.is_some() || !batch.entries.is_empty() || membership;
        if save && self.unsaved_commit {
            batch.hard_state = Some(encode(&self.node.store().hard_state));
            self.unsaved_commit = false;
        }

        output.send = self.outgoing(ready.take_messages());
        let held = self.outgoing(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.node.advance_append_async(ready);
        self.commit(committed, &mut output)?;

        if save {
            self.number += 1;
            if membership {
                self.reconfigured_in = Some(self.number);
            }
            self.outstanding = Some(Outstanding {
                number: self.number,
                ready: Some(number),
                held,
                snapshot: output.restore.as_ref().map(|(index, _)| *index),
            });
            output.persist = Some((self.number, batch));
        } else {
            self.node.on_persist_ready(number);
            output.send.extend(held);
        }
        Ok(Some(output))
    }

    fn save_compaction(&mut self, snapshot: SnapshotRecord) -> Output {
        self.number += 1;
        self.outstanding = Some(Outstanding { number: self.number, ready: None, held: Vec::new(), snapshot: None });
        self.unsaved_commit = false;
        let hard_state = Some(encode(&self.node.store().hard_state));
        let batch = Batch { snapshot: Some(snapshot), hard_state, ..Batch::default() };
        Output { persist: Some((self.number, batch)), ..Output::default() }
    }

    fn commit(&mut self, entries: Vec<Entry>, output: &mut Output) -> Result<(), RaftError> {
        let Some(last) = entries.last().map(|e| e.index) else { return Ok(()) };
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            let content;
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => content = Content::Empty,
                EntryType::EntryNormal => content = Content::Command(entry.data.to_vec()),
                // Ours are all of the second version.
                EntryType::EntryConfChange => {
                    return Err(RaftError::Stored { what: "membership entry", why: format!("entry {index} is of an unknown kind") });
                }
                EntryType::EntryConfChangeV2 => {
                    let change = ConfChangeV2::decode(&entry.data[..]).map_err(|e| unreadable(index, &e))?;
                    self.reconfigure(&change)?;
                    output.membership_changed = true;
                    self.reconfigured_at = index;
                    content = Content::Membership(self.membership());
                }
            }
            output.committed.push(Committed { index, term, content });
        }
        self.node.advance_apply_to(last);
        Ok(())
    }

    fn reconfigure(&mut self, change: &ConfChangeV2) -> Result<(), RaftError> {
        let conf = self.node.apply_conf_change(change).map_err(|e| RaftError::Raft(e.to_string()))?;
        // A new leader may find the end of a joint configuration that drops it already in its log. raft-rs would let
        // it go on and panic at its next commit; stepping down leaves the election to those who stay.
        let dropped = self.is_leader() && !conf.voters.contains(&self.member.0) && !conf.voters_outgoing.contains(&self.member.0);
        self.node.mut_store().conf = conf;
        if dropped {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
            self.draw_timeout();
        }
        Ok(())
    }

    /// The batch is durable: what promised it may go.
    pub fn persisted(&mut self, number: u64) -> Vec<Outgoing> {
        let Some(outstanding) = self.outstanding.take_if(|o| o.number == number) else { return Vec::new() };
        self.reconfigured_in.take_if(|batch| *batch == number);
        if let Some(ready) = outstanding.ready {
            self.node.on_persist_ready(ready);
        }
        // What the snapshot holds is applied; raft-rs wants to be told.
        if let Some(index) = outstanding.snapshot {
            self.node.advance_apply_to(index);
        }
        outstanding.held
    }

    /// The leader's snapshot is on its way to the disk.
    fn is_installing(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.snapshot.is_some())
    }

    fn outgoing(&self, messages: Vec<Message>) -> Vec<Outgoing> {
        let mut out = Vec::with_capacity(messages.len());
        for mut message in messages {
            let to = MemberId(message.to);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                // A newer snapshot may have been made since raft-rs wrote the message: it must name the data that goes along.
                let (index, term, conf) = self.node.store().snapshot_meta();
                *message.mut_snapshot().mut_metadata() = snapshot_meta(index, term, conf);
                out.push(Outgoing::Snapshot { to, message: encode(&message), data: self.node.store().snapshot_data() });
            } else {
                out.push(Outgoing::Message { to, bytes: encode(&message) });
            }
        }
        out
    }

    /// raft-rs draws election timeouts from the thread's randomness; ours come from the seed, one per term and role.
    fn draw_timeout(&mut self) {
        let key = (self.node.raft.term, self.node.raft.state);
        if self.drawn_for != key {
            self.drawn_for = key;
            self.chance = self.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        }
        let span = (self.timings.election_max.saturating_sub(self.timings.election_min)).max(1) as u64;
        let timeout = self.timings.election_min as u64 + (self.chance >> 33) % span;
        self.node.raft.set_randomized_election_timeout(timeout as usize);
    }
}

fn read_states(states: Vec<raft::ReadState>) -> Vec<(u64, u64)> {
    let context = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    states.into_iter().filter_map(|s| context(&s.request_ctx).map(|c| (c, s.index))).collect()
}

fn snapshot_meta(index: u64, term: u64, conf: &ConfState) -> SnapshotMetadata {
    SnapshotMetadata { index, term, conf_state: Some(conf.clone()) }
}

fn unreadable(index: u64, error: &prost_for_raft::DecodeError) -> RaftError {
    RaftError::Stored { what: "membership entry", why: format!("entry {index}: {error}") }
}
