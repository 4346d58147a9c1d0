//! Going on alone after the majority was lost for good: the one named exception to "no acknowledged write is lost".
//!
//! Silence proves nothing, so nobody does this by itself: a person says which managers are gone (or the provider does), and
//! asks one node, which answers for itself. It carries out what its log holds, acknowledged or not, takes a *new* seat in a
//! group of one (what is said to its old seat is void from then on), removes the lost nodes for good and raises the epoch,
//! so that operations of the two lives never share an id. Log positions jump ahead: nobody's memory of the old log is newer.

use super::{Replica, contact::Contact, reads::Reads, seat::SeatChange};
use crate::{
    logic::{
        raft::{Membership, originate},
        state::State,
    },
    model::{
        codec,
        command::Proposal,
        ids::{MemberId, NodeId, Ticket},
        io::{Effect, Level},
        node::NodeRecord,
        query::{Answer, RecoverView},
    },
};
use std::sync::Arc;

/// How far log positions jump: farther than a lost majority can have gone on without this node's knowing.
const INDEX_JUMP: u64 = 1 << 20;
/// The same of terms: those lost may have elected leaders that this node never heard of.
const TERM_JUMP: u64 = 1 << 10;

/// A majority that is there has elected somebody within this.
const ELECTS_WITHIN_MS: u64 = 10_000;

/// In a joint configuration it takes a majority of the old voters and one of the new.
fn is_majority(group: &Membership, stands: impl Fn(&MemberId) -> bool) -> bool {
    let majority = |voters: &[MemberId]| voters.iter().filter(|member| stands(member)).count() > voters.len() / 2;
    majority(&group.voters) && (!group.is_joint() || majority(&group.outgoing))
}

impl Replica {
    /// `lost`: the managers that are gone for good, by the asker's word. None: only looks.
    pub(super) fn handle_recover(&mut self, ticket: Ticket, lost: &[NodeId]) {
        match self.look_at_loss() {
            Err((code, why)) => self.refuse(ticket, code, why),
            Ok(view) if lost.is_empty() => self.reply(ticket, Answer::Recover(Box::new(view))),
            Ok(view) => match self.may_leave_behind(&view, lost) {
                Err((code, why)) => self.refuse(ticket, code, why),
                Ok(()) => self.recover(ticket, lost, view.last_index),
            },
        }
    }

    fn look_at_loss(&self) -> Result<RecoverView, (&'static str, String)> {
        let none = || ("not_a_manager", "this node holds no copy of the cluster's state; ask a manager".to_owned());
        let consensus = self.consensus.as_ref().filter(|_| self.applied > 0 && self.seat_change.is_none()).ok_or_else(none)?;
        if let Some((leader, address)) = self.leader_address() {
            return Err(("invalid", format!("node {leader} at {address} leads: there is nothing to recover from")));
        }
        let missing = self.other_voters().filter(|n| n.member.is_some_and(|m| self.is_silent(m))).cloned().collect();
        let (node, name) = (self.config.node, self.config.name.clone());
        Ok(RecoverView { node, name, last_index: consensus.last_index(), last_term: consensus.last_term(), missing })
    }

    fn other_voters(&self) -> impl Iterator<Item = &NodeRecord> {
        let group = self.consensus.as_ref().map(|c| c.membership()).unwrap_or_default();
        let votes = move |n: &&NodeRecord| n.member.is_some_and(|m| group.voters.contains(&m) || group.outgoing.contains(&m));
        self.state.nodes.values().filter(|n| n.id != self.config.node).filter(votes)
    }

    fn may_leave_behind(&self, view: &RecoverView, lost: &[NodeId]) -> Result<(), (&'static str, String)> {
        if let Some(present) = lost.iter().find(|id| !view.missing.iter().any(|n| n.id == **id)) {
            return Err(("invalid", format!("node {present} is not one of the managers that this node misses")));
        }
        let group = self.consensus.as_ref().map(|c| c.membership()).unwrap_or_default();
        let is_lost = |member: &MemberId| self.state.node_of_member(*member).is_some_and(|n| lost.contains(&n.id));
        if !is_majority(&group, |member| !is_lost(member)) {
            return Ok(());
        }
        // Some of those left may have given up their seats without this node's having heard of it. They elect nobody, then;
        // and those who still have theirs must not be able to without this node either.
        let all_named = view.missing.iter().all(|n| lost.contains(&n.id));
        let needed = !is_majority(&group, |member| !is_lost(member) && Some(*member) != self.consensus.as_ref().map(|c| c.member()));
        if all_named && needed && self.leaderless_for_ms() >= ELECTS_WITHIN_MS {
            return Ok(());
        }
        let left = group.voters.iter().filter(|m| !is_lost(m)).count();
        let all = group.voters.len();
        Err(("invalid", format!("{left} of {all} managers are left, which is a majority: it elects a leader by itself")))
    }

    fn recover(&mut self, ticket: Ticket, lost: &[NodeId], last_index: u64) {
        let Some(consensus) = &self.consensus else { return };
        let (term, number) = (consensus.term() + TERM_JUMP, consensus.number());
        let mut state = self.state.clone();
        for (index, term, bytes) in consensus.commands_after(self.applied) {
            match codec::decode::<Proposal>(&bytes) {
                Ok(proposal) => drop(state.apply(index, term, proposal)),
                Err(error) => return self.refuse(ticket, "internal", format!("log entry {index} cannot be read: {error}")),
            }
        }
        let member = state.recover(self.config.node, lost, last_index);
        self.log(Level::Warn, format!("goes on alone from log index {last_index}, without {lost:?}, as member {}", member.0));
        let batch = originate(member, last_index + INDEX_JUMP, term, Arc::new(state.encode()));
        self.keep_orders();
        self.consensus = None;
        self.leading = None;
        self.fail_all("this node goes on without the managers that were lost");
        self.contact = Contact::knowing(Vec::new(), Vec::new(), self.now.mono);
        (self.state, self.applied, self.reads) = (State::default(), 0, Reads::default());
        if let Some(keyring) = &mut self.config.keyring {
            keyring.epoch = state.epoch;
            self.effects.push_back(Effect::Keyring(Some(keyring.clone())));
        }
        self.numbers = number + 1;
        self.seat_change = Some(SeatChange::begin(self.numbers, batch.clone(), member, Some(ticket)));
        self.effects.push_back(Effect::Persist { number: self.numbers, batch });
    }
}
