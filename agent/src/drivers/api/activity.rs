//! Tells when there was something to do, so that memory of a burst can be given back after it.

use async_channel::{Receiver, Sender};

/// Notes of work; clones share them.
#[derive(Clone)]
pub struct Activity {
    note: Sender<()>,
    noted: Receiver<()>,
}

impl Default for Activity {
    fn default() -> Activity {
        let (note, noted) = async_channel::bounded(1);
        Activity { note, noted }
    }
}

impl Activity {
    /// Something was asked that may have taken memory.
    pub fn note(&self) {
        // Full: it is noted already.
        let _ = self.note.try_send(());
    }

    /// Waits for the next note.
    pub async fn wait(&self) {
        self.noted.recv().await.expect("the sender is beside it");
    }
}
