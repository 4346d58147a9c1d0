//! This node's place in the Raft group: taking it, leaving it, and what comes over the wire for it.

use super::{Level, Replica, Waiting, contact::Contact, reads::Reads};
use crate::{
    logic::{raft::Consensus, state::State},
    model::{
        ids::{MemberId, NodeId, Ticket},
        io::{Batch, Effect, Keyring, Restored, Seat},
        query::{Answer, Written},
    },
};
use std::collections::BTreeMap;

/// A seat being taken or left: not before it is durable.
pub(super) struct SeatChange {
    number: u64,
    kind: Kind,
    ticket: Option<Ticket>,
}

enum Kind {
    /// Restart from what the batch makes durable.
    Begin(Box<Batch>, MemberId),
    Take(MemberId),
    Leave,
}

impl SeatChange {
    /// A group of one begins, from what the batch makes durable.
    pub(super) fn begin(number: u64, batch: Batch, member: MemberId, ticket: Option<Ticket>) -> SeatChange {
        SeatChange { number, kind: Kind::Begin(Box::new(batch), member), ticket }
    }
}

impl Replica {
    pub(super) fn handle_persisted(&mut self, number: u64) {
        if let Some(change) = self.seat_change.take_if(|c| c.number == number) {
            return self.seat_changed(change);
        }
        if let Some(consensus) = &mut self.consensus {
            let waited = consensus.would_forget_change();
            let held = consensus.persisted(number);
            let goes_on = waited && !consensus.would_forget_change();
            self.send(held);
            if goes_on {
                self.plan_soon();
            }
        }
    }

    fn seat_changed(&mut self, change: SeatChange) {
        let begun = match change.kind {
            Kind::Begin(batch, member) => {
                let restored =
                    Restored { member: Some(member), snapshot: batch.snapshot, entries: Vec::new(), hard_state: batch.hard_state };
                self.resume(member, &restored)
            }
            Kind::Take(member) => self.resume(member, &Restored { member: Some(member), ..Restored::default() }),
            Kind::Leave => {
                // Not before the seat is given up for good: a seat without its keyring would keep the node from starting.
                self.effects.push_back(Effect::Keyring(None));
                Ok(())
            }
        };
        if let Err(error) = begun {
            return self.stop(true, error.to_string());
        }
        if let Some(ticket) = change.ticket {
            self.reply(ticket, Answer::Written { index: self.applied, result: Written::Done });
        }
    }

    /// The leader gives this node a seat. Asking again for the same one is answered again.
    pub(super) fn handle_enlist(&mut self, ticket: Ticket, from: NodeId, member: MemberId, keyring: Keyring) {
        let held = self.consensus.as_ref().map(Consensus::member);
        if self.seat_change.is_some() {
            return self.reply(ticket, Answer::Busy);
        }
        if held == Some(member) {
            let taken = self.take_next_keys(keyring);
            return self.reply(ticket, if taken { Answer::Written { index: self.applied, result: Written::Done } } else { Answer::Busy });
        }
        if held.is_some_and(|held| held > member) {
            return self.refuse(ticket, "stale", format!("this node holds the newer seat {}", held.expect("just compared").0));
        }
        self.vacate();
        self.contact.enlisted_by(from);
        self.config.keyring = Some(keyring.clone());
        self.effects.push_back(Effect::Keyring(Some(keyring)));
        self.change_seat(Seat::Take(member), Kind::Take(member), ticket);
    }

    /// The leader took this node out of the group.
    pub(super) fn handle_discharge(&mut self, ticket: Ticket, member: MemberId) {
        if self.seat_change.is_some() {
            return self.reply(ticket, Answer::Busy);
        }
        if self.consensus.as_ref().map(Consensus::member) != Some(member) {
            return self.reply(ticket, Answer::Written { index: 0, result: Written::Done });
        }
        self.vacate();
        self.config.keyring = None;
        self.change_seat(Seat::Leave, Kind::Leave, ticket);
    }

    fn change_seat(&mut self, seat: Seat, kind: Kind, ticket: Ticket) {
        self.numbers += 1;
        self.seat_change = Some(SeatChange { number: self.numbers, kind, ticket: Some(ticket) });
        self.effects.push_back(Effect::Persist { number: self.numbers, batch: Batch { seat: Some(seat), ..Batch::default() } });
    }

    /// Forgets everything that the seat gave, but not whom to report to.
    fn vacate(&mut self) {
        self.keep_orders();
        let Some(consensus) = self.consensus.take() else { return };
        self.leading = None;
        self.fail_all("this node left the Raft group");
        let managers = self.peers_in(&consensus.membership());
        self.contact = Contact::knowing(managers, self.state.removed.iter().copied().collect(), self.now.mono);
        self.numbers = consensus.number();
        self.state = State::default();
        self.applied = 0;
        self.writes = BTreeMap::<u64, Waiting>::new();
        self.reads = Reads::default();
    }

    pub(super) fn handle_raft(&mut self, from: NodeId, to: MemberId, messages: &[Vec<u8>]) {
        let dropped: Vec<String> = messages.iter().filter_map(|bytes| self.step(from, to, bytes, None).err()).collect();
        // One line a batch: the log is not the sender's to fill.
        if let Some(why) = dropped.first() {
            self.log(Level::Warn, format!("{} of {} Raft messages from node {from} were dropped: {why}", dropped.len(), messages.len()));
        }
        self.heard(from);
    }

    pub(super) fn handle_snapshot(&mut self, from: NodeId, to: MemberId, message: &[u8], data: Vec<u8>) {
        // Read it now: raft-rs must not be told of a state that this build cannot hold.
        if let Err(error) = State::decode(&data) {
            return self.log(Level::Error, format!("the snapshot from node {from} cannot be read: {error}"));
        }
        if let Err(why) = self.step(from, to, message, Some(data)) {
            self.log(Level::Warn, format!("a snapshot from node {from} was dropped: {why}"));
        }
        self.heard(from);
    }

    fn step(&mut self, from: NodeId, to: MemberId, bytes: &[u8], data: Option<Vec<u8>>) -> Result<(), String> {
        let sender = Consensus::claimed_sender(bytes).ok_or("it cannot be read")?;
        if !self.may_speak_as(from, sender) {
            return Err(format!("node {from} is not member {}", sender.0));
        }
        let Some(consensus) = &mut self.consensus else { return Ok(()) };
        if consensus.member() != to {
            // For a seat this node held before, or will hold soon.
            return Ok(());
        }
        if self.state.node_of_member(sender).is_none() {
            self.contact.spoke(sender, from);
        }
        self.contact.heard_member(sender, self.now.mono);
        match data {
            None => consensus.step(sender, bytes),
            Some(data) => consensus.step_snapshot(sender, bytes, data),
        }
    }

    /// A member speaks through the certificate of its own node only. A seat newer than any this node has heard of (it may
    /// be behind) is believed of nodes it knows as managers by other ways; a leader is never behind, and an older seat
    /// that nobody holds was given up for good.
    fn may_speak_as(&self, from: NodeId, member: MemberId) -> bool {
        match self.state.node_of_member(member) {
            Some(owner) => owner.id == from,
            None if self.leading.is_some() || member.0 < self.state.next_member => false,
            None => self.contact.trusts(from) || self.state.nodes.get(&from).is_some_and(|n| n.member.is_some()),
        }
    }
}
