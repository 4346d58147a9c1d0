//! Who votes: keeps `managers` voters, an odd set, moved by one joint change at a time.
//!
//! Order of choice: whom a person wants as a manager, the leader, voters that are ready, voters lost for a short while (no
//! needless moves), nodes with a seat, other ready nodes, whom a person does not want as a manager, and voters lost for
//! long. Among equals the better one is chosen (`score.rs`). A person's wish never costs a seat: with nobody else to take
//! it, it waits. With two nodes one votes and one learns. A node that is leaving is not chosen; a leader that is not to
//! vote any more hands leadership on first.
//!
//! A lost voter whose seat nobody can take is left out in the end, and the set shrinks to the next odd number: five
//! nodes that die one after the other leave one that still decides. The voters chosen are never such that those of
//! them that are lost could keep the others from deciding.
//!
//! When all voters are there and have been the same for a while, a voter gives way to a clearly better node.

use super::{Call, CallKey, Decision, Sight, score};
use crate::{
    logic::raft::Change,
    model::{
        command::Command,
        ids::{MemberId, NodeId},
        node::{NodeRecord, NodeState, Role},
    },
};

/// A lost voter keeps its seat this long when somebody else could take it.
const VOTER_SWAP_AFTER_MS: u64 = 30_000;
/// And this long when nobody can: longer than most machines take to start again.
const SHRINK_AFTER_MS: u64 = 60_000;
/// Ranks of voters that are lost: for a short while, and for long.
const LOST_LATELY: u8 = 4;
const LOST_LONG: u8 = 9;

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    if sight.membership.pending {
        return;
    }
    if sight.membership.is_joint() {
        decisions.extend(leave_joint(sight));
        return;
    }
    let chosen = choose(sight, None);
    let stays = chosen.voters.iter().any(|n| n.id == sight.me);
    if !stays && chosen.all().any(|n| can_succeed(sight, n)) {
        hand_on(sight, &chosen, decisions);
    } else if let Some(change) = next_change(sight, &chosen, decisions) {
        decisions.push(Decision::Change(change));
    }
    give_up_seats(sight, &chosen, decisions);
}

/// A voter of the old set may lead (it was the only one, or was elected meanwhile): it hands on first, because a leader that removes itself
/// can no longer commit (and raft-rs panics).
fn leave_joint(sight: &Sight) -> Option<Decision> {
    let my_seat = sight.state.nodes.get(&sight.me).and_then(|n| n.member);
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

/// A person's wish that is not in the state (yet).
type Wish = Option<(NodeId, Role)>;

/// Whether a wish can be carried out now.
///
/// # Errors
/// Why not, for a person: nobody would give way, or take over.
pub fn partner(sight: &Sight, id: NodeId, role: Role) -> Result<(), String> {
    let Some(node) = sight.state.nodes.get(&id) else { return Ok(()) };
    let name = &node.name;
    let votes = choose(sight, Some((id, role))).voters.iter().any(|n| n.id == id);
    match role {
        _ if sight.state.is_leaving(node) => Err(format!("node {name} is leaving the cluster")),
        Role::Manager if !votes && !sight.is_ready(node) => Err(format!("node {name} is {}", node.state.as_str())),
        Role::Manager if !votes => Err(format!("no manager can give its seat to {name}: each was promoted by hand; demote one first")),
        Role::Worker if votes => Err(format!("no node can take the seat of {name}: it needs one that is ready, may vote and does not yet")),
        _ => Ok(()),
    }
}

fn choose<'a>(sight: &Sight<'a>, wish: Wish) -> Chosen<'a> {
    let mut ranked: Vec<(u8, &NodeRecord)> = Vec::new();
    let mut lost_learners = Vec::new();
    for node in sight.state.nodes.values() {
        let preference = wish.filter(|(id, _)| *id == node.id).map(|(_, role)| role).or(node.preference);
        let admitted = node.admitted == Role::Manager || preference == Some(Role::Manager);
        if !admitted || sight.state.is_leaving(node) {
            continue;
        }
        let aside = node.id == sight.me && sight.observed.stands_aside(sight.now.mono);
        let (wanted, spared) = (preference == Some(Role::Manager) && !aside, preference == Some(Role::Worker) || aside);
        let votes = node.member.is_some_and(|m| sight.membership.voters.contains(&m));
        let learns = node.member.is_some_and(|m| sight.membership.learners.contains(&m));
        let rank = match node.state {
            NodeState::Ready | NodeState::Draining if wanted && votes => 0,
            NodeState::Ready if wanted => 1,
            _ if node.id == sight.me && !spared => 2,
            NodeState::Ready | NodeState::Draining if votes && !spared => 3,
            NodeState::Lost | NodeState::Joining if votes && sight.ailing_ms(node) < VOTER_SWAP_AFTER_MS => LOST_LATELY,
            NodeState::Ready if node.member.is_some() && !spared => 5,
            NodeState::Ready if !spared => 6,
            NodeState::Ready | NodeState::Draining if votes => 7,
            NodeState::Ready => 8,
            NodeState::Lost | NodeState::Joining if votes && sight.ailing_ms(node) < SHRINK_AFTER_MS => LOST_LONG,
            NodeState::Lost if learns => {
                lost_learners.push(node);
                continue;
            }
            _ => continue,
        };
        ranked.push((rank, node));
    }
    let seats = (sight.state.settings.managers as usize).min(ranked.len());
    let odd = if seats.is_multiple_of(2) { seats.saturating_sub(1) } else { seats };
    // Of a set of one none may be lost, of three one, and so on: else it could not decide.
    let lately = ranked.iter_mut().filter(|(rank, _)| *rank == LOST_LATELY);
    lately.skip(odd.saturating_sub(1) / 2).for_each(|(rank, _)| *rank = LOST_LONG);
    let able: Vec<&NodeRecord> = ranked.iter().filter(|(rank, _)| (5..=6).contains(rank)).map(|(_, node)| *node).collect();
    let mut voters = take_best(sight, &mut ranked, odd, Vec::new());
    if let Some((worse, better)) = swap(sight, &voters, &able, wish) {
        ranked.push((3, voters[worse]));
        voters[worse] = better;
        ranked.retain(|(_, node)| node.id != better.id);
    }
    let mut learners = take_best(sight, &mut ranked, seats, voters.clone()).split_off(odd);
    let room = (sight.state.settings.managers as usize).saturating_sub(seats);
    learners.extend(lost_learners.into_iter().take(room));
    Chosen { voters, learners }
}

/// Fills `taken` up to `seats`, rank by rank, the best of a rank beside those taken first.
fn take_best<'a>(sight: &Sight, from: &mut Vec<(u8, &'a NodeRecord)>, seats: usize, mut taken: Vec<&'a NodeRecord>) -> Vec<&'a NodeRecord> {
    while taken.len() < seats {
        let worth = |node: &NodeRecord| score::points(sight, node) - score::crowding(node, &taken);
        let best = from.iter().enumerate().min_by_key(|(_, (rank, n))| (*rank, -worth(n), n.joined_ms, n.id));
        let Some(best) = best.map(|(place, _)| place) else { break };
        taken.push(from.swap_remove(best).1);
    }
    taken
}

/// The place of a voter that gives way, and to whom. Neither the leader does nor whom a person chose; and all is calm.
fn swap<'a>(sight: &Sight, voters: &[&'a NodeRecord], able: &[&'a NodeRecord], wish: Wish) -> Option<(usize, &'a NodeRecord)> {
    let calm_since = sight.observed.voters_since()?;
    let votes = |n: &NodeRecord| sight.is_ready(n) && n.member.is_some_and(|m| sight.membership.voters.contains(&m));
    let calm = calm_since + sight.swap_after_ms <= sight.now.mono && voters.len() == sight.membership.voters.len();
    if wish.is_some() || !calm || !voters.iter().all(|n| votes(n)) {
        return None;
    }
    let now = score::worth(sight, voters);
    let steady = |n: &&&NodeRecord| sight.stamp_ms().saturating_sub(n.since_ms) >= sight.swap_after_ms;
    let mut best = None;
    for better in able.iter().filter(|n| !votes(n)).filter(steady) {
        let enough = if better.member.is_some() { score::STILL_BETTER } else { score::CLEARLY_BETTER };
        for worse in 0..voters.len() {
            if voters[worse].id == sight.me || voters[worse].preference.is_some() {
                continue;
            }
            let mut set = voters.to_vec();
            set[worse] = better;
            let gain = score::worth(sight, &set) - now;
            if gain >= enough && best.is_none_or(|(most, _, _)| gain > most) {
                best = Some((gain, worse, *better));
            }
        }
    }
    best.map(|(_, worse, better)| (worse, better))
}

fn can_succeed(sight: &Sight, node: &NodeRecord) -> bool {
    node.id != sight.me && sight.is_ready(node) && node.member.is_some_and(|m| sight.membership.voters.contains(&m))
}

/// This leader is not to stay one: hand over to a ready voter.
fn hand_on(sight: &Sight, chosen: &Chosen, decisions: &mut Vec<Decision>) {
    let able = chosen.all().filter(|n| can_succeed(sight, n));
    let heir = able.filter_map(|n| n.member).find(|m| (sight.caught_up)(*m));
    decisions.extend(heir.map(Decision::Transfer));
}

fn next_change(sight: &Sight, chosen: &Chosen, decisions: &mut Vec<Decision>) -> Option<Change> {
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
    // By its own ears: what the leader before recorded of them may be over, and it takes them to get out of the change again.
    let present = chosen.voters.iter().filter(|n| n.id == sight.me || sight.is_ready(n) && sight.observed.has_heard(n.id)).count();
    let complete = !want.is_empty() && want.len() == chosen.voters.len() && 2 * present > want.len();
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
        if !node.seated {
            // Never used, and its number never will be: to take it away by a call could meet a later wish to use it after
            // all. Who took it meanwhile reports a seat that nobody knows, and gives it up then.
            if !chosen.wants(member) {
                decisions.push(Decision::Propose(Command::MemberClear(node.id)));
            }
            continue;
        }
        if sight.observed.is_discharged(member) {
            decisions.push(Decision::Propose(Command::MemberClear(node.id)));
        } else if sight.is_ready(node) && sight.observed.may_call(CallKey::Discharge(member), sight.now.mono) {
            decisions.push(Decision::Call(Call::Discharge { node: node.id, member }));
        }
    }
}
