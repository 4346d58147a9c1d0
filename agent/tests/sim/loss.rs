//! A majority of the voters is lost: nobody goes on by silence, one survivor does by a person's word, and the lost ones
//! that come back find that it goes on without them.
//!
//! Before it happens there is work, and some who will survive are cut off, so that what only the lost ones held is lost
//! with them. Exactly that may be lost (`operator.rs`).

use crate::{
    counts::Count,
    history::{self, LOOK_EVERY_MS, settle},
    mutants::Mutant,
    promotion::{manage, membership},
    world::{Event, World},
};
use agent::{
    logic::raft::{Consensus, Membership},
    model::{
        ids::{MemberId, RequestId},
        instance::InstanceState,
        limits,
        query::{Answer, Op, Request},
    },
};

/// Who led and is left steps down within this; who waits for the lost ones does so at least as long.
const SILENT_MS: (u64, u64) = (8_000, 16_000);
const STORM_MS: (u64, u64) = (300, 6_000);
/// Nodes that stay beside the managers.
const WORKERS_MAX: u64 = 3;
const BACK_WITHIN_MS: u64 = 2_000;
/// A change that was under way is carried out within this.
const CARRIED_OUT_MS: u64 = 20_000;
/// How soon who comes back may do so without being a majority with those who have not heard yet.
const HARMLESS_WITHIN_MS: u64 = 60_000;
/// How soon who comes back knows that it was removed.
const TOLD_WITHIN_MS: u64 = 20_000;
const ANSWER_MS: u64 = 4_000;
/// Who asks whether a write is refused.
const ASKER: u64 = 2_000;

/// Who was lost, and what the groups looked like by the word of each who was there.
struct Loss {
    /// Down, and their disks with them or not.
    away: Vec<usize>,
    groups: Vec<Membership>,
}

pub fn play_in(world: &mut World) {
    world.note(62, 0, || "a majority is going to be lost".into());
    let managers = *world.rng.pick(&[3, 3, 5]).expect("not empty");
    let nodes = if world.rng.chance(100) { 2 } else { managers + world.rng.below(WORKERS_MAX) as u32 };
    // Machines of which the survivors do not know cost money until they are ended.
    world.workload.allow(2 * nodes);
    manage(world, managers);
    world.workload.grow(nodes);
    settle(world);
    let victims = draw_victims(world);
    storm(world, &victims, nodes);
    world.network.heal();
    if let Some(loss) = strike(world, victims) {
        live_on(world, &loss);
    }
    // What they were asked for may have been lost too.
    manage(world, managers);
    world.workload.grow(nodes);
    settle(world);
    history::close(world);
    removed_go(world);
    settle(world);
}

fn live_on(world: &mut World, loss: &Loss) {
    let back: Vec<usize> = loss.away.iter().copied().filter(|host| !world.machines[*host].gone).collect();
    if !stays_silent(world, loss) {
        // Those left are enough.
        back.into_iter().for_each(|host| world.boot_later(host));
        return;
    }
    let enough = loss.groups.iter().all(|group| stands(world, group, &[up(world), back.clone()].concat()));
    if enough && world.rng.chance(300) {
        world.note(63, 0, || "those lost come back: nothing is lost".into());
        back.into_iter().for_each(|host| world.boot_later(host));
        world.counts.add(Count::MajoritiesBack);
        return if_they_are_none(world);
    }
    world.recover();
    world.counts.add(Count::LivesBegun);
    come_back(world, loss, back);
}

/// A change of the voters may have been under way when it happened: those who come back carry it out, and find that the new
/// ones are among the lost.
fn if_they_are_none(world: &mut World) {
    world.run_until(world.now + CARRIED_OUT_MS);
    let group = newest_group(world);
    if group.is_some_and(|group| !stands(world, &group, &up(world))) {
        world.recover();
        world.counts.add(Count::LivesBegun);
    }
}

/// A majority of the voters, or one more than that; and now and then others.
fn draw_victims(world: &mut World) -> Vec<usize> {
    let Some(leader) = world.leader() else { return Vec::new() };
    let group = membership(world, leader);
    let seats = seats(world, &group);
    let mut victims = Vec::new();
    while stands(world, &group, &without(&seats, &victims)) && victims.len() + 1 < seats.len() {
        let left: Vec<usize> = voters(world, &group).into_iter().filter(|host| !victims.contains(host)).collect();
        victims.extend(world.rng.pick(&left).copied());
    }
    let others: Vec<usize> = up(world).into_iter().filter(|host| !seats.contains(host)).collect();
    victims.extend(others.into_iter().filter(|_| world.rng.chance(200)).collect::<Vec<_>>());
    victims
}

/// Work goes on, and of those who will be left some are cut off from the others, one after the other.
fn storm(world: &mut World, victims: &[usize], nodes: u32) {
    world.workload.closing = false;
    for client in 0..world.workload.clients.len() {
        world.at(world.now, Event::Client(client));
    }
    if world.rng.chance(400) {
        let change = world.rng.between(1, u64::from(nodes) + 2) as u32;
        world.workload.grow(change.max(2));
    }
    if world.rng.chance(300) {
        let managers = *world.rng.pick(&[3, 5]).expect("not empty");
        manage(world, managers);
    }
    let left: Vec<usize> = up(world).into_iter().filter(|host| !victims.contains(host)).collect();
    for host in left {
        let wait = world.rng.between(STORM_MS.0, STORM_MS.1) / 2;
        world.run_until(world.now + wait);
        if world.rng.chance(600) {
            world.network.isolate(host, victims);
        }
    }
    let wait = world.rng.between(STORM_MS.0, STORM_MS.1);
    world.run_until(world.now + wait);
}

/// All at once, for ever or for now. None if they cannot be a majority of those there are, or nobody would be left.
fn strike(world: &mut World, mut victims: Vec<usize>) -> Option<Loss> {
    let group = newest_group(world)?;
    let seats = seats(world, &group);
    victims.retain(|host| !world.machines[*host].gone);
    loop {
        let left = without(&seats, &victims);
        if !left.iter().any(|host| world.replica(*host).is_some_and(|replica| replica.applied() > 0)) {
            return None;
        }
        if !stands(world, &group, &left) {
            break;
        }
        let more: Vec<usize> = voters(world, &group).into_iter().filter(|host| left.contains(host)).collect();
        victims.push(*world.rng.pick(&more)?);
    }
    let groups: Vec<Membership> = up(world).into_iter().filter_map(|host| Some(world.consensus(host)?.membership())).collect();
    for host in &victims {
        // Who alone was a majority once might take itself for one.
        let alone = groups.iter().any(|group| stands(world, group, &[*host]));
        let for_ever = alone || world.rng.chance(500);
        lose(world, *host, for_ever);
    }
    Some(Loss { away: victims, groups })
}

fn lose(world: &mut World, host: usize, for_ever: bool) {
    world.note(64, host as u64, || format!("n{host} is lost (for ever: {for_ever})"));
    world.stop_process(host);
    if !for_ever {
        // Its agent alone, now and then: what it runs goes on.
        if world.rng.chance(700) {
            world.tasks_end(host);
        }
        // Who comes back asks who leads long before that.
        world.machines[host].alone_after_ms = limits::ALONE_AFTER_MS;
        return;
    }
    world.tasks_end(host);
    world.machines[host].gone = true;
    // Whom no provider made nobody else misses; and it may be refused, for who is lost is removed by `recover` as well.
    if world.machines[host].instance.is_none() {
        let node = world.machines[host].identity.node.to_string();
        world.workload.admin.todo.push_back(Op::NodeRemove(node));
    }
    if let Some(id) = world.machines[host].instance.clone() {
        world.cloud.set(&id, InstanceState::Terminated);
        world.cloud.instances.get_mut(&id).expect("it is known").vanished = world.rng.chance(500);
    }
}

/// Nobody leads, nothing is decided, and who asks is told who is missing. False if those left are a majority after all.
fn stays_silent(world: &mut World, loss: &Loss) -> bool {
    let epoch = epoch(world);
    let wait = world.rng.between(SILENT_MS.0, SILENT_MS.1);
    world.run_until(world.now + wait / 2);
    if world.mutant == Some(Mutant::RecoveredBySilence) {
        goes_on_by_itself(world);
    }
    world.run_until(world.now + wait / 2);
    assert!(epoch == self::epoch(world), "violation: a survivor goes on without the majority, and nobody asked it to");
    if world.leader().is_some() {
        return false;
    }
    for host in up(world) {
        refuses(world, host, loss);
    }
    world.counts.add(Count::MajoritiesLost);
    true
}

fn refuses(world: &mut World, host: usize, loss: &Loss) {
    let Some(replica) = world.replica(host).filter(|replica| replica.applied() > 0) else { return };
    let group = replica.consensus().map(Consensus::membership).unwrap_or_default();
    let node = |member: &MemberId| replica.state().node_of_member(*member).map(|node| (node.id, node.name.clone()));
    let is_away = |id| loss.away.iter().any(|away| world.machines[*away].identity.node == id);
    let missing: Vec<String> = group.voters.iter().filter_map(node).filter(|(id, _)| is_away(*id)).map(|(_, name)| name).collect();
    let id = RequestId { client: ASKER + host as u64, sequence: 1 };
    let op = Op::KvSet { key: "refused".into(), value: b"no".to_vec() };
    match world.ask(Some(host), Request::Write { id, op }, ANSWER_MS) {
        Some(Answer::Unavailable { why }) => {
            let unnamed = missing.iter().find(|name| !why.contains(name.as_str()));
            assert!(unnamed.is_none(), "violation: n{host} misses {missing:?} and says: {why}");
        }
        Some(Answer::Busy) => {}
        other => panic!("violation: without a majority n{host} answers a write with {other:?}"),
    }
}

/// A mutant: whoever is first takes silence for proof.
fn goes_on_by_itself(world: &mut World) {
    for host in up(world) {
        if let Some(Answer::Recover(view)) = world.ask(Some(host), Request::Recover { lost: Vec::new() }, ANSWER_MS) {
            let lost = view.missing.iter().map(|node| node.id).collect();
            world.ask(Some(host), Request::Recover { lost }, ANSWER_MS);
            return;
        }
    }
}

/// Those lost for now come back with the disks they had: one after the other, and never so many that they and those who
/// have not heard yet are a majority. (Against that a person's word is all there is.)
fn come_back(world: &mut World, loss: &Loss, back: Vec<usize>) {
    for host in back {
        let wait = world.rng.below(BACK_WITHIN_MS);
        world.run_until(world.now + wait);
        let end = world.now + HARMLESS_WITHIN_MS;
        while !is_harmless(world, loss, host) {
            assert!(world.now < end, "violation: survivors do not follow the one that went on");
            world.run_until(world.now + LOOK_EVERY_MS);
        }
        if !world.machines[host].gone && !world.is_up(host) {
            world.note(65, host as u64, || format!("n{host} comes back with its old disk"));
            world.counts.add(Count::OldVotersBack);
            world.boot_later(host);
            // Before the next one is let in, or it has ended.
            let soon = world.options.boot_ms.1 + 1;
            world.run_until(world.now + soon);
        }
    }
}

fn is_harmless(world: &World, loss: &Loss, host: usize) -> bool {
    let from = world.checkers.life_from();
    let is_old = |host: &usize| world.machines[*host].disk.durable.snapshot.as_ref().is_none_or(|snapshot| snapshot.index < from);
    let mut old: Vec<usize> = up(world).into_iter().filter(is_old).collect();
    old.push(host);
    !loss.groups.iter().any(|group| stands(world, group, &old))
}

/// Whom the new life removed is told so, and stops.
fn removed_go(world: &mut World) {
    let leader = world.leader().expect("a cluster at rest has a leader");
    let removed = world.replica(leader).expect("a leader runs").state().removed.clone();
    let end = world.now + TOLD_WITHIN_MS;
    while let Some(host) = up(world).into_iter().find(|host| removed.contains(&world.machines[*host].identity.node)) {
        assert!(world.now < end, "violation: n{host} was removed and goes on");
        world.run_until(world.now + LOOK_EVERY_MS);
    }
    for host in world.hosts().into_iter().filter(|host| !world.is_up(*host)) {
        assert!(world.machines[host].runtime.running.is_empty(), "violation: n{host} is not there any more, and its tasks are");
    }
}

// ---- who is there

fn up(world: &World) -> Vec<usize> {
    world.hosts().into_iter().filter(|host| world.is_up(*host)).collect()
}

/// Counts the lives of the cluster, by the word of its nodes.
fn epoch(world: &World) -> Option<u32> {
    up(world).into_iter().filter_map(|host| Some(world.replica(host)?.state().epoch)).max()
}

/// What the member that has applied most says.
fn newest_group(world: &World) -> Option<Membership> {
    let newest = up(world)
        .into_iter()
        .filter(|host| world.consensus(*host).is_some())
        .max_by_key(|host| world.replica(*host).map(|r| r.applied()))?;
    Some(membership(world, newest))
}

fn seats(world: &World, group: &Membership) -> Vec<usize> {
    let sits = |host: &usize| world.consensus(*host).is_some_and(|consensus| group.contains(consensus.member()));
    up(world).into_iter().filter(sits).collect()
}

fn voters(world: &World, group: &Membership) -> Vec<usize> {
    let votes = |host: &usize| {
        let member = world.machines[*host].disk.durable.member;
        member.is_some_and(|member| group.voters.contains(&member) || group.outgoing.contains(&member))
    };
    up(world).into_iter().filter(votes).collect()
}

fn without(hosts: &[usize], lost: &[usize]) -> Vec<usize> {
    hosts.iter().copied().filter(|host| !lost.contains(host)).collect()
}

/// Whether these machines hold a majority of the group's seats, or both majorities of a joint one.
fn stands(world: &World, group: &Membership, hosts: &[usize]) -> bool {
    let held = |member: &&MemberId| hosts.iter().any(|host| world.machines[*host].disk.durable.member == Some(**member));
    let majority = |voters: &[MemberId]| voters.iter().filter(held).count() > voters.len() / 2;
    majority(&group.voters) && (group.outgoing.is_empty() || majority(&group.outgoing))
}
