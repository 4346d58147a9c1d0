//! Nodes that start from one image at any moments become one cluster: drawn histories of a few nodes and what passes
//! between them.

#[path = "sim/rng.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod rng;

use agent::logic::forming::{Forming, Next, Seen};
use agent::model::ids::NodeId;
use rng::Rng;

const WINDOW_MS: u64 = 10_000;
const PAUSE_MS: u64 = 500;
/// One question and its answer, or the wait for an answer that does not come.
const ASK_MS: (u64, u64) = (1, 400);
/// In a thousand; never more than so many in a row between the same two.
const LOST: u64 = 300;
const LOST_IN_A_ROW: u32 = 2;
/// A node that originates takes this long until it answers, and may let nobody in for this long after.
const MAKES_MS: u64 = 3_000;
const BUSY_MS: u64 = 40_000;
const HISTORIES: u64 = 20_000;

enum Phase {
    Off,
    Looks(Forming),
    /// Will answer as a cluster at the first time, and let others in from the second.
    Formed {
        answers: u64,
        lets_in: u64,
    },
    In,
}

struct Node {
    id: NodeId,
    phase: Phase,
    /// When it does something next.
    due: u64,
    /// It is killed then, once, if it still looks.
    dies: Option<u64>,
    lost: Vec<u32>,
}

fn draw(rng: &mut Rng) -> Vec<Node> {
    let count = rng.between(2, 5) as usize;
    let late = *rng.pick(&[0, 300, WINDOW_MS, 3 * WINDOW_MS]).expect("not empty");
    let mut nodes = Vec::new();
    for place in 0..count {
        let due = rng.below(late + 1);
        let dies = rng.chance(200).then(|| due + rng.below(2 * WINDOW_MS));
        nodes.push(Node { id: NodeId(rng.next() << 3 | place as u64), phase: Phase::Off, due, dies, lost: vec![0; count] });
    }
    nodes
}

/// What `asker` sees of the others, one after the other, and when it has; none if it was let in.
fn look(nodes: &mut [Node], asker: usize, rng: &mut Rng) -> (Option<Seen>, u64) {
    let (mut seen, mut now) = (Seen::default(), nodes[asker].due);
    for other in (0..nodes.len()).filter(|other| *other != asker) {
        now += rng.between(ASK_MS.0, ASK_MS.1);
        let lost = &mut nodes[asker].lost[other];
        *lost = if rng.chance(LOST) && *lost < LOST_IN_A_ROW { *lost + 1 } else { 0 };
        if *lost > 0 {
            continue;
        }
        match &nodes[other].phase {
            Phase::Looks(_) => seen.unformed.push(nodes[other].id),
            Phase::Formed { lets_in, .. } if *lets_in <= now => return (None, now),
            Phase::Formed { answers, .. } if *answers <= now => seen.formed = true,
            Phase::Off | Phase::Formed { .. } | Phase::In => {}
        }
    }
    (Some(seen), now)
}

/// Plays until nobody looks any more: how many clusters there are then.
fn clusters(seed: u64) -> usize {
    let rng = &mut Rng::new(seed);
    let mut nodes = draw(rng);
    while let Some(place) =
        (0..nodes.len()).filter(|n| matches!(nodes[*n].phase, Phase::Off | Phase::Looks(_))).min_by_key(|n| nodes[*n].due)
    {
        let now = nodes[place].due;
        assert!(now < 30 * WINDOW_MS, "seed {seed}: a node neither finds a cluster nor begins one");
        if nodes[place].dies.is_some_and(|at| at <= now) {
            nodes[place].dies = None;
            (nodes[place].phase, nodes[place].due) = (Phase::Off, now + rng.below(2 * WINDOW_MS));
            continue;
        }
        if matches!(nodes[place].phase, Phase::Off) {
            nodes[place].phase = Phase::Looks(Forming::new(nodes[place].id, WINDOW_MS, now));
        }
        let (seen, now) = look(&mut nodes, place, rng);
        nodes[place].due = now + PAUSE_MS;
        let Phase::Looks(forming) = &mut nodes[place].phase else { unreachable!("it looks") };
        let next = seen.map(|seen| forming.looked(&seen, now));
        match next {
            None => nodes[place].phase = Phase::In,
            Some(Next::LookAgain) => {}
            Some(Next::Originate) => {
                let answers = now + rng.below(MAKES_MS);
                nodes[place].phase = Phase::Formed { answers, lets_in: answers + rng.below(BUSY_MS) };
            }
        }
    }
    nodes.iter().filter(|node| matches!(node.phase, Phase::Formed { .. })).count()
}

#[test]
fn whenever_they_start_there_is_one_cluster_and_all_are_in_it() {
    for seed in 0..HISTORIES {
        assert_eq!(clusters(seed), 1, "seed {seed}");
    }
}

#[test]
fn a_cluster_that_lets_nobody_in_now_is_never_given_up_for_another() {
    let mut forming = Forming::new(NodeId(1), WINDOW_MS, 0);
    let not_now = Seen { formed: true, ..Seen::default() };
    assert_eq!(forming.looked(&not_now, 100), Next::LookAgain);
    for now in [WINDOW_MS, 10 * WINDOW_MS, 1_000 * WINDOW_MS] {
        assert_eq!(forming.looked(&Seen::default(), now), Next::LookAgain, "at {now} ms");
    }
}

#[test]
fn the_lowest_begins_and_the_others_wait_another_window_for_it() {
    let of = |unformed: &[u64]| Seen { unformed: unformed.iter().copied().map(NodeId).collect(), formed: false };
    let mut lowest = Forming::new(NodeId(1), WINDOW_MS, 0);
    let mut other = Forming::new(NodeId(2), WINDOW_MS, 0);
    assert_eq!(lowest.looked(&of(&[2]), WINDOW_MS - 1), Next::LookAgain);
    assert_eq!(lowest.looked(&of(&[2]), WINDOW_MS), Next::Originate);
    assert_eq!(other.looked(&of(&[1]), WINDOW_MS), Next::LookAgain);
    // It went away.
    assert_eq!(other.looked(&of(&[]), 2 * WINDOW_MS - 1), Next::LookAgain);
    assert_eq!(other.looked(&of(&[]), 2 * WINDOW_MS), Next::Originate);
}
