//! A voter dies the moment it becomes one, its leader with it, and only the voter comes back.
//!
//! Two of three are there then, which is enough; but the one that comes back has on its disk no more than it had written
//! in that moment, and the only one that could tell it who the other is lies dead.

use crate::{
    counts::Count,
    history::{LOOK_EVERY_MS, settle},
    world::{Event, World},
};
use agent::{
    logic::raft::{Consensus, Membership},
    model::{ids::MemberId, query::Op, settings::SettingsChange},
};

const VOTERS: usize = 3;
/// How long it may take one node to become a cluster of three voters.
const FORMED_WITHIN_MS: u64 = 90_000;
/// Of two voters: both drew the longest time-out, and the first vote was split.
const ELECTED_WITHIN_MS: u64 = 12_000;
const SLOW_MS_MAX: u64 = 900;

pub fn play_in(world: &mut World) {
    world.note(53, 0, || "one node is wanted, then three: two voters at once".into());
    manage(world, VOTERS as u32);
    world.workload.grow(1);
    settle(world);
    // By hand joined as many as there are; the moment is another one then.
    let alone = world.leader().and_then(|leader| world.consensus(leader)).is_some_and(|c| c.membership().voters.len() == 1);
    if alone {
        world.workload.grow(VOTERS as u32);
        if let Some((leader, comes_back)) = moment(world) {
            die(world, leader, comes_back);
        }
    }
    world.machines.iter_mut().for_each(|machine| machine.slow_disk_ms = 0);
    settle(world);
}

pub fn manage(world: &mut World, managers: u32) {
    world.workload.managers = managers;
    world.workload.managers_most = world.workload.managers_most.max(managers);
    world.workload.admin.todo.push_back(Op::Configure(SettingsChange { managers: Some(managers), ..SettingsChange::default() }));
}

/// Waits until three vote and one follower has that on disk. Who leads, and who is to come back: the other one.
fn moment(world: &mut World) -> Option<(usize, usize)> {
    let end = world.now + FORMED_WITHIN_MS;
    let slow_ms = world.rng.below(SLOW_MS_MAX);
    while world.now < end {
        world.run_until(world.now + 1);
        let Some(leader) = world.leader() else { continue };
        let group = membership(world, leader);
        slow_down(world, &group, slow_ms);
        if group.voters.len() != VOTERS || group.is_joint() {
            continue;
        }
        let others: Vec<usize> = group.voters.iter().filter_map(|member| seat(world, *member)).filter(|host| *host != leader).collect();
        let knows = |host: &&usize| membership(world, **host).voters == group.voters && !membership(world, **host).is_joint();
        let stays = others.iter().filter(knows).find(|host| !world.machines[**host].disk.is_writing()).copied();
        let Some(stays) = stays else { continue };
        return others.into_iter().find(|host| *host != stays).map(|host| (leader, host));
    }
    None
}

/// The first learner's disk: what it holds by the time it votes is then less than the others'.
fn slow_down(world: &mut World, group: &Membership, slow_ms: u64) {
    if let [only] = group.learners[..]
        && let Some(host) = seat(world, only)
    {
        world.machines[host].slow_disk_ms = slow_ms;
    }
}

fn die(world: &mut World, leader: usize, comes_back: usize) {
    let more = world.rng.below(30);
    world.run_until(world.now + more);
    if world.leader() != Some(leader) || !world.is_up(comes_back) {
        return;
    }
    world.note(54, comes_back as u64, || format!("n{comes_back} dies and is back at once; its leader n{leader} stays dead"));
    world.machines[comes_back].slow_disk_ms = 0;
    world.stop_process(comes_back);
    world.stop_process(leader);
    world.at(world.now + 10, Event::Boot { host: comes_back });
    let end = world.now + ELECTED_WITHIN_MS;
    while world.leader().is_none() {
        assert!(world.now < end, "violation: two of three voters are there, one of them started anew, and nobody leads");
        world.run_until(world.now + LOOK_EVERY_MS);
    }
    world.counts.add(Count::PromotedDied);
    // Whom no provider made nobody else starts.
    world.boot_later(leader);
}

pub fn membership(world: &World, host: usize) -> Membership {
    world.consensus(host).map(Consensus::membership).unwrap_or_default()
}

fn seat(world: &World, member: MemberId) -> Option<usize> {
    world.hosts().into_iter().find(|host| world.consensus(*host).is_some_and(|consensus| consensus.member() == member))
}
