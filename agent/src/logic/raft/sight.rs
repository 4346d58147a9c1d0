//! What raft-rs knows, for those who only look.

use super::{Consensus, Membership};
use crate::model::{ids::MemberId, limits::TICK_MS};
use raft::{GetEntriesContext, ProgressState, StateRole, eraftpb::EntryType};

impl Consensus {
    /// The newest number given to a batch.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn member(&self) -> MemberId {
        self.member
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    pub fn leader(&self) -> Option<MemberId> {
        (self.node.raft.leader_id != 0).then_some(MemberId(self.node.raft.leader_id))
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    pub fn last_term(&self) -> u64 {
        self.node.raft.raft_log.last_term()
    }

    /// Every command in the log after `index`, committed or not: its position, term and bytes.
    pub fn commands_after(&self, index: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let entries = self.node.raft.raft_log.entries(index + 1, None, GetEntriesContext::empty(false)).unwrap_or_default();
        let commands = entries.into_iter().filter(|e| e.get_entry_type() == EntryType::EntryNormal && !e.data.is_empty());
        commands.map(|e| (e.index, e.term, e.data.to_vec())).collect()
    }

    /// Milliseconds since a leader was heard, as far as ticks tell.
    pub fn leader_silent_ms(&self) -> u64 {
        self.node.raft.election_elapsed as u64 * TICK_MS
    }

    pub fn role(&self) -> &'static str {
        match self.node.raft.state {
            StateRole::Leader => "leader",
            StateRole::Candidate | StateRole::PreCandidate => "candidate",
            StateRole::Follower if self.membership().learners.contains(&self.member) => "learner",
            StateRole::Follower => "follower",
        }
    }

    pub fn membership(&self) -> Membership {
        Membership::from_raft(&self.node.store().conf, self.node.raft.has_pending_conf() || self.would_forget_change())
    }

    /// That the newest change of membership is committed is not durable here yet.
    pub fn would_forget_change(&self) -> bool {
        self.reconfigured_in.is_some()
    }

    /// Whether this peer holds nearly all of the log (leader only), and durably who sits in the group: a voter that loses
    /// what it had not written yet must still know the others, because they may be all that is left to elect a leader.
    pub fn is_caught_up(&self, member: MemberId) -> bool {
        let Some(progress) = self.node.raft.prs().get(member.0) else { return false };
        // What matched is certain, however it was found out: after a snapshot a peer of an idle log stays in `Probe`.
        let nearly = progress.matched + 16 >= self.node.raft.raft_log.last_index() && progress.matched >= self.reconfigured_at;
        progress.state != ProgressState::Snapshot && progress.recent_active && nearly
    }

    /// The member with the longest log among these (leader only): the best to hand leadership to.
    pub fn most_caught_up(&self, among: &[MemberId]) -> Option<MemberId> {
        among.iter().copied().max_by_key(|m| (self.node.raft.prs().get(m.0).map_or(0, |p| p.matched), u64::MAX - m.0))
    }
}
