//! Decides what a node lets go of before the kernel takes the whole process.
//!
//! Under a cap (a control group's memory.max) the one who asks for the last page is killed. The script executor and new
//! connections are worth less than the node, and requests less than its place in the Raft group, so they go first, in
//! that order. Each step down comes later than its step up: a node at the edge must not flap.

/// How much a node takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stance {
    /// Everything its limits allow.
    Calm,
    /// No new connections beyond those that a cluster needs, and no script.
    Tight,
    /// No requests but those of other nodes.
    Dire,
}

/// Of a hundred parts of the cap: where a stance begins, and where it ends.
const TIGHT: (u128, u128) = (70, 60);
const DIRE: (u128, u128) = (85, 75);

/// The stance after `before`, with `used` bytes that the kernel could not take back, of `cap`.
pub fn judge(before: Stance, used: u64, cap: u64) -> Stance {
    let percent = u128::from(used) * 100 / u128::from(cap.max(1));
    let holds = |stance, (begins, ends): (u128, u128)| percent >= if before >= stance { ends } else { begins };
    if holds(Stance::Dire, DIRE) {
        Stance::Dire
    } else if holds(Stance::Tight, TIGHT) {
        Stance::Tight
    } else {
        Stance::Calm
    }
}

#[cfg(test)]
mod tests {
    use super::{Stance::*, judge};

    #[test]
    fn a_stance_begins_high_and_ends_low() {
        let table = [
            (Calm, 69, Calm),
            (Calm, 70, Tight),
            (Tight, 60, Tight),
            (Tight, 59, Calm),
            (Tight, 84, Tight),
            (Tight, 85, Dire),
            (Calm, 100, Dire),
            (Dire, 75, Dire),
            (Dire, 74, Tight),
            (Dire, 10, Calm),
        ];
        for (before, percent, after) in table {
            assert_eq!(judge(before, percent * 160_000, 16_000_000), after, "{before:?} at {percent} %");
        }
    }

    #[test]
    fn a_cap_of_nothing_is_dire_and_no_division() {
        assert_eq!(judge(Calm, 1, 0), Dire);
        assert_eq!(judge(Calm, u64::MAX, u64::MAX), Dire);
    }
}
