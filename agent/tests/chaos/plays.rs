//! Plays: one fault each, and what exactly must be seen while it lasts.

use crate::{
    NODES,
    cluster::{Cluster, HEALTHY_WITHIN, SMALL_DISKS},
    common::until,
    ground::Cuts,
    rounds::{look, outlast},
    wire,
    writers::Writers,
};
use std::time::{Duration, Instant};

/// From the loss of a leader to the next acknowledged write, wherever a majority is.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// When a node counts as lost, by default, and a moment more to say so.
const LOST_WITHIN: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_millis(500);

struct Stage<'a> {
    cluster: &'a mut Cluster,
    writers: &'a Writers,
    leader: usize,
}

type Play = (&'static str, bool, fn(&mut Stage));

const PLAYS: &[Play] = &[
    ("a killed leader is succeeded", false, a_killed_leader),
    ("a node that stands still for three seconds is not lost", false, a_short_stop),
    ("a leader that stands still for longer is lost and comes back as a follower", false, a_long_stop),
    ("a slow link slows nobody else down", false, a_slow_link),
    ("a leader that is cut off is succeeded and answers nothing meanwhile", true, a_leader_cut_off),
    ("a leader that hears nobody steps down", true, a_deaf_leader),
    ("a leader that nobody hears is succeeded", true, a_mute_leader),
    ("a follower that does not hear the leader unseats nobody", true, a_pair_apart),
    ("a node with a full disk stops rather than lie, and is back when there is room", true, a_full_disk),
];

/// Plays them all, or those whose sentence has these words.
///
/// # Errors
/// The first that went wrong after its end. What goes wrong in the middle panics.
pub fn run(cluster: &mut Cluster, writers: &Writers, words: Option<&str>) -> Result<(), String> {
    for (sentence, needs_namespaces, play) in PLAYS {
        if words.is_some_and(|words| !sentence.contains(words)) || (*needs_namespaces && !cluster.ground.has_namespaces()) {
            continue;
        }
        let leader = cluster.leader();
        writers.go_on();
        play(&mut Stage { cluster, writers, leader });
        cluster.heal();
        let seen = look(cluster, writers).map_err(|why| format!("{sentence}: {why}"))?;
        if seen.told.pause > PAUSE_MAX {
            return Err(format!("{sentence}: no write was acknowledged for {:.2?}, a majority being there", seen.told.pause));
        }
        println!(
            "{sentence}: {} writes, longest pause {:.2?}, healthy after {:.2?}",
            seen.told.acknowledged, seen.told.pause, seen.healthy_after
        );
    }
    Ok(())
}

impl Stage<'_> {
    fn follower(&self) -> usize {
        (self.leader + 1) % NODES
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (0..NODES).filter(|other| *other != node).collect()
    }

    /// Another one leads, by the word of a majority, and writes go on.
    fn until_succeeded(&self) -> usize {
        let began = Instant::now();
        let others = self.others(self.leader);
        let successor = || others.iter().find_map(|node| self.cluster.leader_by(*node)).filter(|leader| *leader != self.leader);
        let found = until("another leader", PAUSE_MAX, successor);
        self.writers.until_acknowledged(PAUSE_MAX.saturating_sub(began.elapsed()));
        found
    }

    /// What the others say of it.
    fn state_of(&self, node: usize, by: usize) -> Option<String> {
        let status = wire::status(&self.cluster.door(by), PATIENCE).ok()?;
        status.nodes.into_iter().find(|n| n.name == Cluster::name(node)).map(|n| n.state)
    }
}

fn a_killed_leader(stage: &mut Stage) {
    stage.cluster.kill(stage.leader);
    stage.until_succeeded();
}

fn a_short_stop(stage: &mut Stage) {
    for node in [stage.follower(), stage.leader] {
        let since = |stage: &Stage| {
            let events = wire::status(&stage.cluster.door(stage.follower()), PATIENCE).map(|status| status.events);
            events.unwrap_or_default().into_iter().map(|event| event.id).max()
        };
        let before = until("the cluster to answer", HEALTHY_WITHIN, || since(stage));
        stage.cluster.stop(node);
        outlast(Duration::from_secs(3));
        stage.cluster.resume(node);
        let events =
            until("the cluster to answer", HEALTHY_WITHIN, || wire::status(&stage.cluster.door(stage.follower()), PATIENCE).ok()).events;
        let lost: Vec<_> = events.iter().filter(|event| event.id > before && event.name == "node.lost").collect();
        assert!(lost.is_empty(), "{} stood still for 3 s: {lost:?}", Cluster::name(node));
    }
}

fn a_long_stop(stage: &mut Stage) {
    stage.cluster.stop(stage.leader);
    let successor = stage.until_succeeded();
    let lost = || (stage.state_of(stage.leader, successor)? == "lost").then_some(());
    until("the silent node to be lost", LOST_WITHIN, lost);
    stage.cluster.resume(stage.leader);
    let follows = || (stage.cluster.leader_by(stage.leader)? != stage.leader).then_some(());
    until("it to follow", HEALTHY_WITHIN, follows);
}

fn a_slow_link(stage: &mut Stage) {
    let slow = stage.cluster.ground.relayed().find(|node| *node != stage.leader).expect("two are relayed, one leads");
    stage.cluster.ground.delay(slow, 300);
    for _ in 0..5 {
        // A majority is fast: nobody waits for the slow one.
        outlast(Duration::from_secs(1));
        stage.writers.until_acknowledged(Duration::from_millis(500));
    }
    assert_eq!(stage.cluster.leader(), stage.leader, "nobody was unseated");
    let state = until("an answer", HEALTHY_WITHIN, || stage.state_of(slow, stage.leader));
    assert_eq!(state, "ready", "late is not lost");
}

fn a_leader_cut_off(stage: &mut Stage) {
    let (old, others) = (stage.leader, stage.others(stage.leader));
    stage.cluster.ground.cut(&others.iter().flat_map(|other| [(old, *other), (*other, old)]).collect());
    let successor = stage.until_succeeded();
    // It may not answer from what it last knew.
    let key = "cut/off";
    let set = proto::v1::write_request::Op::KvSet(proto::v1::KvSet { key: key.into(), value: b"new".to_vec() });
    stage.cluster.write(successor, set);
    let answer = wire::value(&stage.cluster.door(old), key, Duration::from_secs(12));
    assert!(answer.is_err(), "who was cut off answered {answer:?}");
    let names_the_missing = || {
        let stale = wire::status_stale(&stage.cluster.door(old), PATIENCE).ok()?;
        (stale.leader.is_none() && stale.problems.iter().any(|problem| problem.contains("no majority of the 5 managers"))).then_some(())
    };
    until("it says whom it misses", HEALTHY_WITHIN, names_the_missing);
    until("it to be lost", LOST_WITHIN, || (stage.state_of(old, successor)? == "lost").then_some(()));
}

fn a_deaf_leader(stage: &mut Stage) {
    let (old, others) = (stage.leader, stage.others(stage.leader));
    stage.cluster.ground.cut(&others.iter().map(|other| (*other, old)).collect());
    stage.until_succeeded();
}

fn a_mute_leader(stage: &mut Stage) {
    let (old, others) = (stage.leader, stage.others(stage.leader));
    stage.cluster.ground.cut(&others.iter().map(|other| (old, *other)).collect());
    stage.until_succeeded();
}

fn a_pair_apart(stage: &mut Stage) {
    let (leader, apart) = (stage.leader, stage.follower());
    let term = |stage: &Stage| wire::member(&stage.cluster.door(leader), PATIENCE).map(|member| member.term).ok();
    let before = until("the leader to answer", HEALTHY_WITHIN, || term(stage));
    stage.cluster.ground.cut(&Cuts::from([(leader, apart), (apart, leader)]));
    // Several times the longest election timeout.
    outlast(Duration::from_secs(6));
    assert_eq!(stage.cluster.leader_by(leader), Some(leader), "it still leads");
    assert_eq!(term(stage), Some(before), "and no term began: pre-vote holds the other one back");
}

fn a_full_disk(stage: &mut Stage) {
    let full = *SMALL_DISKS.iter().find(|node| **node != stage.leader).expect("two are small, one leads");
    stage.cluster.fill_disk(full);
    until("the node with the full disk to stop", HEALTHY_WITHIN, || (!stage.cluster.is_running(full)).then_some(()));
    let log = stage.cluster.log(full);
    assert!(log.contains("No space left"), "it says why:\n{log}");
    stage.writers.until_acknowledged(PAUSE_MAX);
    // Its machine would start it again, and again it says so.
    stage.cluster.start(full);
    until("it to stop again", HEALTHY_WITHIN, || (!stage.cluster.is_running(full)).then_some(()));
}
