//! Who votes: keeps `managers` voters, an odd set, moved by one joint change at a time.
//!
//! Order of choice: the leader, voters that are ready, voters lost for a short while (no needless moves), learners,
//! other ready nodes by age, and voters lost for long, which give way to anybody ready. With two nodes one votes and
//! one learns. A node that is leaving is not chosen; a leader that is leaving hands leadership on first.

use super::{Call, CallKey, Decision, Sight};
use crate::{
    logic::raft::Change,
    model::{
        command::Command,
        ids::MemberId,
        node::{NodeRecord, NodeState, Role},
    },
};

/// A lost voter keeps its seat this long when somebody else could take it.
const VOTER_SWAP_AFTER_MS: u64 = 30_000;

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    if sight.membership.pending {
        return;
    }
    let my_seat = sight.state.nodes.get(&sight.me).and_then(|n| n.member);
    if sight.membership.is_joint() {
        decisions.extend(leave_joint(sight, my_seat));
        return;
    }
    let chosen = choose(sight);
    if !chosen.voters.iter().any(|n| n.id == sight.me) {
        hand_on(sight, &chosen, decisions);
    } else if let Some(change) = next_change(sight, &chosen, my_seat, decisions) {
        decisions.push(Decision::Change(change));
    }
    give_up_seats(sight, &chosen, decisions);
}

/// A voter of the old set may have been elected meanwhile: it hands on first, because a leader that removes itself
/// can no longer commit (and raft-rs panics).
fn leave_joint(sight: &Sight, my_seat: Option<MemberId>) -> Option<Decision> {
    let stays = |member: &MemberId| sight.membership.voters.contains(member);
    if my_seat.as_ref().is_some_and(stays) {
        return Some(Decision::Change(Change::LeaveJoint));
    }
    let heir = sight.membership.voters.iter().copied().find(|member| (sight.caught_up)(*member));
    heir.map(Decision::Transfer)
}

struct Chosen<'a> {
    voters: Vec<&'a NodeRecord>,
    learners: Vec<&'a NodeRecord>,
}

impl Chosen<'_> {
    fn all(&self) -> impl Iterator<Item = &NodeRecord> {
        self.voters.iter().chain(&self.learners).copied()
    }

    fn wants(&self, member: MemberId) -> bool {
        self.all().any(|n| n.member == Some(member))
    }
}

fn choose<'a>(sight: &Sight<'a>) -> Chosen<'a> {
    let mut ranked: Vec<(u8, u64, &NodeRecord)> = Vec::new();
    let mut lost_learners = Vec::new();
    for node in sight.state.nodes.values() {
        if node.admitted != Role::Manager || sight.state.is_leaving(node) {
            continue;
        }
        let votes = node.member.is_some_and(|m| sight.membership.voters.contains(&m));
        let learns = node.member.is_some_and(|m| sight.membership.learners.contains(&m));
        let lost_ms = sight.ailing_ms(node);
        let rank = match node.state {
            _ if node.id == sight.me => 0,
            NodeState::Ready | NodeState::Draining if votes => 1,
            NodeState::Lost | NodeState::Joining if votes && lost_ms < VOTER_SWAP_AFTER_MS => 2,
            NodeState::Ready if learns => 3,
            NodeState::Ready => 4,
            NodeState::Lost | NodeState::Joining if votes => 5,
            NodeState::Lost if learns => {
                lost_learners.push(node);
                continue;
            }
            _ => continue,
        };
        ranked.push((rank, node.joined_ms, node));
    }
    ranked.sort_by_key(|(rank, joined, node)| (*rank, *joined, node.id));
    let seats = (sight.state.settings.managers as usize).min(ranked.len());
    let odd = if seats.is_multiple_of(2) { seats.saturating_sub(1) } else { seats };
    let mut nodes = ranked.into_iter().map(|(_, _, node)| node);
    let voters: Vec<_> = nodes.by_ref().take(odd).collect();
    let mut learners: Vec<_> = nodes.take(seats - odd).collect();
    let room = (sight.state.settings.managers as usize).saturating_sub(seats);
    learners.extend(lost_learners.into_iter().take(room));
    Chosen { voters, learners }
}

/// This leader is not to stay one: hand over to a ready voter.
fn hand_on(sight: &Sight, chosen: &Chosen, decisions: &mut Vec<Decision>) {
    let able = |n: &&NodeRecord| sight.is_ready(n) && n.member.is_some_and(|m| sight.membership.voters.contains(&m));
    let heir = chosen.all().filter(able).filter_map(|n| n.member).find(|m| (sight.caught_up)(*m));
    decisions.extend(heir.map(Decision::Transfer));
}

fn next_change(sight: &Sight, chosen: &Chosen, my_seat: Option<MemberId>, decisions: &mut Vec<Decision>) -> Option<Change> {
    let group = sight.membership;
    // Seats first: everybody chosen becomes at least a learner.
    for node in chosen.all().filter(|n| sight.is_ready(n)) {
        match node.member {
            None => decisions.push(Decision::Propose(Command::MemberAssign(node.id))),
            Some(member) if group.contains(member) || node.seated => {}
            Some(member) if sight.observed.is_enlisted(member) => return Some(Change::AddLearner(member)),
            Some(member) => {
                if sight.observed.may_call(CallKey::Enlist(member), sight.now.mono) {
                    decisions.push(Decision::Call(Call::Enlist { node: node.id, member }));
                }
            }
        }
    }
    let want: Vec<MemberId> = chosen.voters.iter().filter_map(|n| n.member).filter(|m| group.contains(*m)).collect();
    let joins: Vec<MemberId> = want.iter().copied().filter(|m| !group.voters.contains(m)).collect();
    let leaves: Vec<MemberId> = group.voters.iter().copied().filter(|m| !want.contains(m)).collect();
    let complete = want.len() == chosen.voters.len() && my_seat.is_some_and(|m| want.contains(&m));
    if complete && (!joins.is_empty() || !leaves.is_empty()) {
        let able = |m: &MemberId| (sight.caught_up)(*m) && sight.state.node_of_member(*m).is_some_and(|n| sight.is_ready(n));
        if !joins.iter().all(able) {
            return None;
        }
        let (learners, remove) = leaves.into_iter().partition(|m| chosen.wants(*m));
        return Some(Change::Joint { voters: joins, learners, remove });
    }
    if joins.is_empty() && leaves.is_empty() {
        return group.learners.iter().copied().find(|m| !chosen.wants(*m)).map(Change::RemoveLearner);
    }
    None
}

/// Nodes that are out of the group give up what they hold: the seat, or their place in the cluster.
fn give_up_seats(sight: &Sight, chosen: &Chosen, decisions: &mut Vec<Decision>) {
    for node in sight.state.nodes.values() {
        let inside = node.member.is_some_and(|m| sight.membership.contains(m));
        if inside || node.id == sight.me {
            continue;
        }
        if sight.state.is_leaving(node) {
            let seat = node.member.map(|_| Command::MemberClear(node.id));
            decisions.push(Decision::Propose(seat.unwrap_or(Command::NodeRemove(node.id))));
            continue;
        }
        let Some(member) = node.member else { continue };
        let unused = !node.seated && !chosen.wants(member);
        if !(node.seated || unused) {
            continue;
        }
        if sight.observed.is_discharged(member) {
            decisions.push(Decision::Propose(Command::MemberClear(node.id)));
        } else if sight.is_ready(node) && sight.observed.may_call(CallKey::Discharge(member), sight.now.mono) {
            decisions.push(Decision::Call(Call::Discharge { node: node.id, member }));
        }
    }
}
