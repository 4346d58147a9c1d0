//! The store's own thread: a disk that takes its time must not stop heartbeats.

use super::Store;
use crate::model::io::Batch;
use std::{
    io,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

/// Jobs that wait while one is written. The replica has one outstanding; one more lets it hand over the next without a wait.
const WAITING_MAX: usize = 1;
/// redb walks trees a few levels deep; untouched stack costs nothing.
const STACK_BYTES: usize = 512 * 1024;

/// Where batches go. Dropping it waits for what was handed over and closes the store.
pub struct StoreHandle {
    jobs: Option<SyncSender<(u64, Batch)>>,
    thread: Option<JoinHandle<()>>,
}

/// Gives the store a thread. `completion` is called on it, in order, once a job: the number made durable, or why
/// the store failed, after which it is never called again.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(mut store: Store, completion: Box<dyn Fn(Result<u64, String>) + Send>) -> io::Result<StoreHandle> {
    let (jobs, incoming) = sync_channel::<(u64, Batch)>(WAITING_MAX);
    let work = move || {
        for (number, batch) in incoming {
            match store.write(&batch) {
                Ok(()) => completion(Ok(number)),
                Err(error) => return completion(Err(told(&error))),
            }
        }
    };
    let thread = Builder::new().name("store".into()).stack_size(STACK_BYTES).spawn(work)?;
    Ok(StoreHandle { jobs: Some(jobs), thread: Some(thread) })
}

impl StoreHandle {
    /// Hands over a batch. Waits only if two are already on their way.
    /// After a failure batches go nowhere: the completion has said so.
    pub fn persist(&self, number: u64, batch: Batch) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after it reported a failure, so there is nobody else to tell.
            let _ = jobs.send((number, batch));
        }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It ends by itself once it has no more jobs; a panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

/// An error and its causes on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
