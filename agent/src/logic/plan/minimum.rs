//! Whether enough nodes live for services to run: `min_nodes`.
//!
//! Below it tasks stop, stand still or go on, as `below_min` says; the cluster itself (membership, joins, launches) goes on
//! in any case. The leader counts; what follows from it every node reads in its orders.

use super::{Decision, Sight};
use crate::model::{command::Command, settings::BelowMin};

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    let (live, below) = count(sight);
    if below != sight.state.below_min {
        decisions.push(Decision::Propose(Command::MinNodes { below, live }));
    }
}

pub(super) fn problem(sight: &Sight) -> Option<String> {
    if !sight.state.below_min {
        return None;
    }
    let what = match sight.state.settings.below_min {
        BelowMin::Stop => "services are stopped until there are enough",
        BelowMin::Pause => "services stand still until there are enough",
        BelowMin::Keep => "services go on",
    };
    Some(format!("{} of at least {} nodes live: {what}", count(sight).0, sight.state.settings.min_nodes))
}

fn count(sight: &Sight) -> (u32, bool) {
    let state = sight.state;
    let live = state.nodes.values().filter(|n| sight.is_ready(n) && !state.is_leaving(n)).count() as u32;
    (live, live < state.settings.min_nodes && !state.destroying)
}
