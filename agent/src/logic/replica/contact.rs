//! How a node that hears no leader stays in touch: it reports, and learns who the managers are.
//!
//! Raft members hear the leader's messages and stay silent; all others, and members that lost contact, report about
//! once a second to whoever may lead.

use super::Replica;
use crate::{
    logic::raft::Membership,
    model::{
        authority::Authorities,
        command::{Command, KINDS_KNOWN},
        ids::{MemberId, NodeId},
        io::Effect,
        limits::{MANAGERS_MAX, REPORT_INTERVAL_MS},
        query::{Peer, Report, Way},
        task::Orders,
    },
};
use std::collections::BTreeMap;

/// A member that heard no leader for this long reports like a worker.
const LEADER_SILENT_MS: u64 = 2_500;
/// A report whose answer never came is given up.
const REPORT_FORGOTTEN_AFTER_MS: u64 = 15_000;

#[derive(Debug, Default)]
pub(super) struct Contact {
    leader: Option<(NodeId, String)>,
    managers: Vec<Peer>,
    removed: Vec<NodeId>,
    authorities: Authorities,
    /// The manager that gave this node its seat, until the state says who is who.
    enlisted_by: Option<NodeId>,
    /// Which node spoke last for a member that the state does not know (yet); cleared once it knows.
    speakers: BTreeMap<MemberId, NodeId>,
    /// Nodes that could not be reached lately, with the time: who is missing, for a person.
    silent: BTreeMap<NodeId, u64>,
    /// When each member last spoke to this one.
    spoke_at: BTreeMap<MemberId, u64>,
    /// Since when this member knows no leader.
    leaderless_since: Option<u64>,
    next_report: u64,
    asked_at: Option<u64>,
    /// Of the reports, smoothed: the first one to a leader includes the handshake.
    round_trip_ms: Option<u32>,
}

/// A failure to reach a node counts as silence this long.
const SILENT_FOR_MS: u64 = 10_000;
/// Members without a leader ask each other for votes more often than this: who says nothing for so long is missed.
const SPEAKS_WITHIN_MS: u64 = 5_000;

impl Contact {
    pub(super) fn new(now: u64) -> Contact {
        Contact { next_report: now, ..Contact::default() }
    }

    pub(super) fn knowing(managers: Vec<Peer>, removed: Vec<NodeId>, now: u64) -> Contact {
        Contact { managers, removed, next_report: now, ..Contact::default() }
    }

    pub(super) fn enlisted_by(&mut self, node: NodeId) {
        self.enlisted_by = Some(node);
    }

    pub(super) fn trusts(&self, node: NodeId) -> bool {
        self.enlisted_by == Some(node) || self.managers.iter().any(|p| p.node == node)
    }

    pub(super) fn managers(&self) -> &[Peer] {
        &self.managers
    }

    pub(super) fn removed(&self) -> &[NodeId] {
        &self.removed
    }

    pub(super) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    pub(super) fn leader(&self) -> Option<(NodeId, String)> {
        self.leader.clone()
    }

    /// A fresh member answers whoever spoke to it: before it has a state, that is all it knows.
    pub(super) fn whereabouts(&self, member: MemberId) -> Option<(NodeId, String)> {
        let known = |id: NodeId| self.managers.iter().find(|p| p.node == id).map(|p| (p.node, p.address.clone()));
        let speaker = self.speakers.get(&member).copied().or(self.enlisted_by);
        speaker.and_then(known).or_else(|| self.leader.clone())
    }

    fn learn(&mut self, managers: Vec<Peer>, removed: Vec<NodeId>, authorities: Authorities) {
        (self.managers, self.removed) = (managers, removed);
        if authorities.version >= self.authorities.version {
            self.authorities = authorities;
        }
    }

    /// `node` spoke for `member`, of which the state knows nothing. At most as many as there are managers are kept.
    pub(super) fn spoke(&mut self, member: MemberId, node: NodeId) {
        if self.speakers.len() >= MANAGERS_MAX && !self.speakers.contains_key(&member) {
            self.speakers.clear();
        }
        self.speakers.insert(member, node);
    }

    /// At most as many as take part in a joint configuration are kept.
    pub(super) fn heard_member(&mut self, member: MemberId, now: u64) {
        if self.spoke_at.len() >= 2 * MANAGERS_MAX && !self.spoke_at.contains_key(&member) {
            self.spoke_at.retain(|_, at| *at + SPEAKS_WITHIN_MS > now);
        }
        self.spoke_at.insert(member, now);
    }
}

impl Replica {
    pub(super) fn handle_report_answered(
        &mut self,
        leader: Option<(NodeId, String)>,
        managers: Vec<Peer>,
        removed: Vec<NodeId>,
        orders: Orders,
        authorities: Authorities,
    ) {
        let asked_at = self.contact.asked_at.take();
        if leader.is_some() {
            if let Some(asked_at) = asked_at {
                let took = u32::try_from(self.now.mono - asked_at).unwrap_or(u32::MAX);
                let before = self.contact.round_trip_ms.unwrap_or(took);
                self.contact.round_trip_ms = Some(before - before / 4 + took / 4);
            }
            self.contact.leader = leader;
            // Whoever only knows who leads names no managers, and has no orders to give.
            if !managers.is_empty() {
                self.handle_orders(orders);
                self.contact.learn(managers, removed, authorities);
            }
        }
    }

    pub(super) fn contact_lost(&mut self, node: NodeId) {
        let now = self.now.mono;
        self.contact.silent.retain(|_, at| *at + SILENT_FOR_MS > now);
        self.contact.silent.insert(node, now);
    }

    pub(super) fn is_silent(&self, member: MemberId) -> bool {
        let at = self.state.node_of_member(member).and_then(|n| self.contact.silent.get(&n.id));
        at.is_some_and(|at| *at + SILENT_FOR_MS > self.now.mono)
    }

    /// Nothing came from this member though it must have had reason to speak: weaker than `is_silent`, which is evidence.
    pub(super) fn is_missed(&self, member: MemberId) -> bool {
        let quiet = self.contact.spoke_at.get(&member).is_none_or(|at| *at + SPEAKS_WITHIN_MS <= self.now.mono);
        self.is_silent(member) || quiet && self.leaderless_for_ms() >= LEADER_SILENT_MS
    }

    /// How long this member has known no leader.
    pub(super) fn leaderless_for_ms(&self) -> u64 {
        self.contact.leaderless_since.map_or(0, |since| self.now.mono.saturating_sub(since))
    }

    fn wants_to_report(&self) -> bool {
        match &self.consensus {
            _ if self.seat_change.is_some() => false,
            None => !self.config.seeds.is_empty() || !self.contact.managers.is_empty(),
            Some(consensus) => {
                let alone = self.state.nodes.len() == 1;
                // A fresh member that has no state yet hears the leader but may not know where to answer.
                let lost = self.applied == 0;
                // One that campaigns in vain may have been removed meanwhile, which only a report tells.
                let leaderless = self.contact.leaderless_since.is_some_and(|since| since + LEADER_SILENT_MS < self.now.mono);
                let silent = leaderless || consensus.leader_silent_ms() > LEADER_SILENT_MS;
                !consensus.is_leader() && !alone && (lost || self.own_update().is_some() || self.own_papers().is_some() || silent)
            }
        }
    }

    /// What the record says of this node's machine and build is not so any more.
    pub(super) fn own_update(&self) -> Option<Command> {
        let (record, config) = (self.state.nodes.get(&self.config.node)?, &self.config);
        let same = record.address == config.address
            && record.cpus == config.cpus
            && record.memory == config.memory
            && record.commands_known == KINDS_KNOWN;
        let (address, cpus, memory) = (config.address.clone(), config.cpus, config.memory);
        (!same).then_some(Command::NodeUpdate { node: config.node, address, cpus, memory, commands_known: KINDS_KNOWN })
    }

    pub(super) fn keep_in_touch(&mut self) {
        let leaderless = self.consensus.as_ref().is_some_and(|c| c.leader().is_none());
        let since = self.contact.leaderless_since.take().unwrap_or(self.now.mono);
        self.contact.leaderless_since = leaderless.then_some(since);
        let given_up = self.contact.asked_at.is_some_and(|at| at + REPORT_FORGOTTEN_AFTER_MS <= self.now.mono);
        let waiting = self.contact.asked_at.is_some() && !given_up;
        if self.stopped || waiting || self.report_due().is_none_or(|at| self.now.mono < at) {
            return;
        }
        self.contact.asked_at = Some(self.now.mono);
        self.contact.next_report = self.now.mono + REPORT_INTERVAL_MS;
        let report = Report {
            node: self.config.node,
            boot: self.config.boot,
            address: self.config.address.clone(),
            cpus: self.config.cpus,
            memory: self.config.memory,
            commands_known: KINDS_KNOWN,
            member: self.consensus.as_ref().map(|c| c.member()),
            tasks: self.tell_tasks(),
            round_trip_ms: self.contact.round_trip_ms,
            papers: self.papers.unwrap_or_default(),
        };
        self.effects.push_back(Effect::Report { report, try_in_order: self.ways_to_try() });
    }

    fn ways_to_try(&self) -> Vec<Way> {
        let leader = self.contact.leader.iter().map(|(node, address)| Way::to(*node, address.clone()));
        let managers = self.contact.managers.iter().map(|p| Way::to(p.node, p.address.clone()));
        let members = self.state.nodes.values().filter(|n| n.member.is_some()).map(|n| Way::to(n.id, n.address.clone()));
        let is_removed = |node: &NodeId| self.contact.removed.contains(node) || self.state.removed.contains(node);
        let mut ways: Vec<Way> = Vec::new();
        for way in leader.chain(managers).chain(members).chain(self.config.seeds.iter().cloned()) {
            if way.address != self.config.address && !ways.contains(&way) && !way.node.as_ref().is_some_and(is_removed) {
                ways.push(way);
            }
        }
        ways
    }

    pub(super) fn contact_deadline(&self) -> Option<u64> {
        let due = self.report_due()?;
        Some(self.contact.asked_at.map_or(due, |at| at + REPORT_FORGOTTEN_AFTER_MS))
    }

    /// When the next report goes out, if one is needed: to stay in touch, or with news of tasks.
    fn report_due(&self) -> Option<u64> {
        let may_report = self.seat_change.is_none();
        let routine = self.wants_to_report().then_some(self.contact.next_report);
        routine.into_iter().chain(self.news_due().filter(|_| may_report)).min()
    }

    /// The members of a group as others need to know them.
    pub(super) fn peers_in(&self, group: &Membership) -> Vec<Peer> {
        let managers = self.state.nodes.values().filter(|n| n.member.is_some_and(|m| group.contains(m)));
        managers.map(|n| Peer { node: n.id, address: n.address.clone(), public_key: n.public_key.clone() }).collect()
    }

    /// Who leads and where, as far as this node knows.
    pub(super) fn leader_address(&self) -> Option<(NodeId, String)> {
        match &self.consensus {
            Some(consensus) => {
                // A learner waits for its leader for ever: it never asks for a vote.
                let heard = consensus.is_leader() || consensus.leader_silent_ms() <= LEADER_SILENT_MS;
                let leader = self.state.node_of_member(consensus.leader().filter(|_| heard)?)?;
                Some((leader.id, leader.address.clone()))
            }
            None => self.contact.leader(),
        }
    }
}
