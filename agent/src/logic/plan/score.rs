//! Which node makes the better manager, as a number; and what a set of voters is worth together.
//!
//! | what | points |
//! |---|---|
//! | memory | 16 for each doubling, counted from 1 MiB |
//! | seen longest | 2 for each doubling of the minutes since it came or came back, 12 at most |
//! | latency | −4 for each doubling of the round trip of its reports above 8 ms, if it is known |
//! | zones | −24 for each pair of voters with the same label `zone` |
//!
//! Free seats go to the best, one after the other. A voter gives its seat to a better node only if the set gains
//! `CLEARLY_BETTER` by it, so that being seen for longer never is reason enough, nor is what comes and goes; and since
//! each swap raises the worth of the set, swaps come to an end.

use super::Sight;
use crate::model::node::NodeRecord;

/// What a swap must gain: as much as twice the memory does.
pub const CLEARLY_BETTER: i64 = 16;
/// What is enough once the better node holds a seat: a swap under way is not given up for a trifle.
pub const STILL_BETTER: i64 = 8;
/// The label that says what fails together.
pub const ZONE: &str = "zone";

const PER_MEMORY_DOUBLING: u64 = 16;
const PER_MINUTES_DOUBLING: u32 = 2;
const MINUTES_COUNTED_MAX: u64 = 64;
const PER_LATENCY_DOUBLING: u32 = 4;
const ROUND_TRIP_GOOD_MS: u32 = 8;
const SAME_ZONE: i64 = 24;

/// A node by itself.
pub fn points(sight: &Sight, node: &NodeRecord) -> i64 {
    let minutes = sight.stamp_ms().saturating_sub(node.since_ms) / 60_000;
    let seen = PER_MINUTES_DOUBLING * minutes.clamp(1, MINUTES_COUNTED_MAX).ilog2();
    let round_trip = sight.observed.round_trip_ms(node.id).unwrap_or(0);
    let slow = PER_LATENCY_DOUBLING * (round_trip / ROUND_TRIP_GOOD_MS).max(1).ilog2();
    memory_points(node.memory) + i64::from(seen) - i64::from(slow)
}

/// Between two powers of two in equal steps.
fn memory_points(bytes: u64) -> i64 {
    let mib = (bytes >> 20).clamp(1, 1 << 40);
    let doublings = mib.ilog2();
    let beyond = ((mib * PER_MEMORY_DOUBLING) >> doublings) - PER_MEMORY_DOUBLING;
    i64::from(doublings) * PER_MEMORY_DOUBLING as i64 + beyond as i64
}

/// What it costs that `node` votes beside `others`.
pub fn crowding(node: &NodeRecord, others: &[&NodeRecord]) -> i64 {
    let Some(zone) = node.labels.get(ZONE) else { return 0 };
    let same = others.iter().filter(|o| o.id != node.id && o.labels.get(ZONE) == Some(zone)).count();
    same as i64 * SAME_ZONE
}

/// A set of voters: points of each, less what each pair in one zone costs.
pub fn worth(sight: &Sight, voters: &[&NodeRecord]) -> i64 {
    let alone: i64 = voters.iter().map(|n| points(sight, n)).sum();
    let crowded: i64 = voters.iter().enumerate().map(|(i, n)| crowding(n, &voters[..i])).sum();
    alone - crowded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_by_its_logarithm() {
        let gib = 1u64 << 30;
        assert_eq!(memory_points(2 * gib) - memory_points(gib), 16);
        assert_eq!(memory_points(gib + gib / 2) - memory_points(gib), 8);
        assert_eq!([0, 1 << 20].map(memory_points), [0, 0]);
        assert!(memory_points(u64::MAX) > memory_points(1 << 40), "the largest there is can be counted");
    }
}
