//! SIGTERM: a leader hands leadership on; membership and identity stay, and so do tasks unless the config says otherwise.

use super::Replica;
use crate::{logic::raft::Consensus, model::ids::MemberId};

impl Replica {
    pub(super) fn handle_shutdown(&mut self) {
        /// How long a leader waits for an heir.
        const HAND_ON_MS: u64 = 3_000;
        let ending_ms = if self.config.on_stop_end_tasks { self.end_tasks() } else { 0 };
        let heir = self.consensus.as_ref().filter(|c| c.is_leader()).and_then(|c| {
            let others: Vec<MemberId> = c.membership().voters.into_iter().filter(|m| *m != c.member()).collect();
            c.most_caught_up(&others)
        });
        if let (Some(consensus), Some(heir)) = (&mut self.consensus, heir) {
            consensus.transfer(heir);
        }
        let patience_ms = if heir.is_some() { HAND_ON_MS.max(ending_ms) } else { ending_ms };
        self.stopping_by = Some(self.now.mono + patience_ms);
        self.hands_on = heir.is_some();
    }

    /// Asked to stop: it leads still while there is an heir, or its tasks are ending.
    pub(super) fn has_to_wait(&self) -> bool {
        self.hands_on && self.consensus.as_ref().is_some_and(Consensus::is_leader) || self.tasks_are_ending()
    }
}
