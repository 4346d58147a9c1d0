//! Tells when there was something to do, so that memory of it can be given back afterwards.

use async_channel::{Receiver, Sender};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Somebody asked for it: more of it is likely to follow.
    Asked,
    /// The node's own, now and then: a change applied, an answer of the provider.
    Routine,
}

/// Notes of work; clones share them.
#[derive(Clone)]
pub struct Activity {
    note: Sender<()>,
    noted: Receiver<()>,
    asked: Arc<AtomicBool>,
}

impl Default for Activity {
    fn default() -> Activity {
        let (note, noted) = async_channel::bounded(1);
        Activity { note, noted, asked: Arc::default() }
    }
}

impl Activity {
    /// Something was done that may have taken memory.
    pub fn note(&self, work: Work) {
        if work == Work::Asked {
            self.asked.store(true, Ordering::Release);
        }
        // Full: it is noted already.
        let _ = self.note.try_send(());
    }

    /// Waits for the next note. Of several since the last time, one that was asked for counts.
    pub async fn wait(&self) -> Work {
        self.noted.recv().await.expect("the sender is beside it");
        if self.asked.swap(false, Ordering::Acquire) { Work::Asked } else { Work::Routine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_not_lost_among_what_is_routine() {
        let activity = Activity::default();
        activity.note(Work::Routine);
        activity.note(Work::Asked);
        activity.note(Work::Routine);
        assert_eq!(smol::block_on(activity.wait()), Work::Asked);
        activity.note(Work::Routine);
        assert_eq!(smol::block_on(activity.wait()), Work::Routine);
    }
}
