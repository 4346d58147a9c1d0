//! A new CA takes over: its keys are on every manager's disk before the log speaks of it.
//!
//! Keys never are in the log. So the leader hands them to each member of the group, as it hands out keyrings with seats,
//! and proposes the new CA when all have them: whoever leads later can sign. Members that come meanwhile get the leader's
//! keyring, which has them too. Until then nothing has happened, and whoever asked may ask again.

use super::Replica;
use crate::{
    logic::{
        plan::{Call, CallKey},
        token,
    },
    model::{
        authority::{Authorities, NextKeys, Papers},
        codec,
        command::{Command, Proposal},
        ids::{MemberId, NodeId, RequestId, Ticket},
        io::{Effect, Keyring},
        limits::REQUEST_TIMEOUT_MS,
        node::NodeState,
        query::{Answer, Written},
    },
};
use std::collections::BTreeMap;

/// Keys on their way to the members.
pub(super) struct Handover {
    ticket: Ticket,
    request: RequestId,
    ca: Vec<u8>,
    by: u64,
    /// Who has not confirmed them, and whether it was asked to.
    waits: BTreeMap<MemberId, bool>,
}

impl Replica {
    pub(super) fn handle_ca_rotate(&mut self, ticket: Ticket, request: RequestId, mut keys: NextKeys) {
        if self.state.rotation.is_some() {
            // Somebody goes on with it.
            return self.reply(ticket, Answer::Written { index: self.applied, result: Written::Done });
        }
        let present = |state| matches!(state, NodeState::Ready | NodeState::Draining);
        if let Some(absent) = self.state.nodes.values().find(|n| n.member.is_some() && !present(n.state)) {
            let why = format!("manager {} is {}: each one has to be there to get the new keys", absent.name, absent.state.as_str());
            return self.refuse(ticket, "waiting", why);
        }
        let settled = self.leads_settled() && self.handover.is_none() && !self.is_introducing();
        let (Some(consensus), Some(keyring), true) = (&self.consensus, &mut self.config.keyring, settled) else {
            return self.reply(ticket, Answer::Busy);
        };
        keys.term = consensus.term();
        let (me, ca) = (consensus.member(), keys.ca.clone());
        keyring.next = Some(keys);
        self.effects.push_back(Effect::Keyring(Some(keyring.clone())));
        let waits = self.state.nodes.values().filter_map(|n| n.member).filter(|m| *m != me).map(|m| (m, false)).collect();
        self.handover = Some(Handover { ticket, request, ca, by: self.now.mono + REQUEST_TIMEOUT_MS, waits });
        self.hand_over();
    }

    /// A new CA stands in the log and is not applied yet: its keys must not make room for another's.
    fn is_introducing(&self) -> bool {
        let introduces = |bytes: &[u8]| codec::decode::<Proposal>(bytes).is_ok_and(|p| matches!(p.command, Command::CaIntroduce(_)));
        let ahead = self.consensus.iter().flat_map(|consensus| consensus.commands_after(self.applied));
        ahead.into_iter().any(|(_, _, bytes)| introduces(&bytes))
    }

    /// Asks whoever has not confirmed, and proposes the new CA once all have.
    pub(super) fn hand_over(&mut self) {
        let Some(mut handover) = self.handover.take() else { return };
        handover.waits.retain(|member, _| self.state.node_of_member(*member).is_some());
        if handover.waits.is_empty() {
            let Handover { ticket, request, ca, .. } = handover;
            return self.propose_for(ticket, Some(request), None, Command::CaIntroduce(ca), None);
        }
        if handover.by <= self.now.mono {
            let name = |member: &MemberId| self.state.node_of_member(*member).map_or_else(String::new, |n| n.name.clone());
            let names: Vec<String> = handover.waits.keys().map(name).collect();
            let why = format!("{} did not take the new keys in time", names.join(", "));
            return self.reply(handover.ticket, Answer::Unavailable { why });
        }
        for (member, asked) in &mut handover.waits {
            let free = self.leading.as_ref().is_some_and(|l| l.may_call(CallKey::Enlist(*member), self.now.mono));
            if let (true, Some(node)) = (free, self.state.node_of_member(*member).map(|n| n.id)) {
                *asked = true;
                self.call(Call::Enlist { node, member: *member });
            }
        }
        self.handover = Some(handover);
    }

    /// A member has what it was asked to hold.
    pub(super) fn handed_over(&mut self, member: MemberId) {
        // What was under way before carried the old keyring.
        if let Some(handover) = &mut self.handover
            && handover.waits.get(&member) == Some(&true)
        {
            handover.waits.remove(&member);
            self.hand_over();
        }
    }

    pub(super) fn fail_handover(&mut self, answer: &Answer) {
        if let Some(handover) = self.handover.take() {
            self.reply(handover.ticket, answer.clone());
        }
    }

    pub(super) fn forget_handover(&mut self, ticket: Ticket) {
        self.handover.take_if(|handover| handover.ticket == ticket);
    }

    /// The leader gives a keyring again for the seat held here: new keys may have come into it. False: they are not taken,
    /// because those of the last change are still needed here (this node is behind), or these are an earlier leader's.
    pub(super) fn take_next_keys(&mut self, given: Keyring) -> bool {
        let Some(ours) = &self.config.keyring else { return false };
        let Some(next) = given.next else { return true };
        match &ours.next {
            Some(keys) if *keys == next => return true,
            Some(keys) if keys.term > next.term || self.needs_keys_of(&keys.ca) => return false,
            _ => {}
        }
        let ours = Keyring { next: Some(next), ..ours.clone() };
        self.effects.push_back(Effect::Keyring(Some(ours.clone())));
        self.config.keyring = Some(ours);
        true
    }

    /// It is taking over, or has, and its keys are not the keyring yet. Who is far behind may not have applied that it began:
    /// the certificates here, of which reports bring word as well, tell. (Before they are known nothing is given up.)
    fn needs_keys_of(&self, ca: &[u8]) -> bool {
        let takes_over = self.state.rotation.as_ref().is_some_and(|r| r.ca == ca || self.state.ca == ca);
        let mark = token::ca_mark(ca);
        takes_over || self.papers.is_none_or(|papers| [papers.believes, papers.certified, papers.shows].contains(&mark))
    }

    /// The new CA is the only one: its keys are the keyring now.
    pub(super) fn fit_keyring(&mut self) {
        let Some(keyring) = &mut self.config.keyring else { return };
        let over = self.applied > 0 && self.state.rotation.is_none();
        if let Some(next) = keyring.next.take_if(|next| over && next.ca == self.state.ca) {
            (keyring.ca_key, keyring.join_key) = (next.ca_key, next.join_key);
            self.effects.push_back(Effect::Keyring(Some(keyring.clone())));
        }
    }

    pub(super) fn handle_papers(&mut self, papers: Papers) {
        self.papers = Some(papers);
        self.plan_soon();
    }

    /// What this node shows and believes, if the cluster asks for it and does not know.
    pub(super) fn own_papers(&self) -> Option<Command> {
        let (papers, node) = (self.papers?, self.config.node);
        let known = self.state.rotation.as_ref().and_then(|_| self.state.nodes.get(&node))?.papers;
        (known != papers).then_some(Command::NodePapers { node, papers })
    }

    /// Another node's word on the same.
    pub(super) fn hear_papers(&mut self, node: NodeId, papers: Papers) {
        if self.state.rotation.is_some() && self.state.nodes.get(&node).is_some_and(|n| n.papers != papers) {
            self.propose_soon(Command::NodePapers { node, papers });
        }
    }

    /// Whom to believe: by the own copy of the state, or by the answer to the last report, whichever is newer.
    pub(super) fn authorities(&self) -> Authorities {
        let told = self.contact.authorities();
        match self.consensus {
            Some(_) if self.applied > 0 && self.state.ca_version >= told.version => self.state.authorities(),
            _ => told.clone(),
        }
    }
}
