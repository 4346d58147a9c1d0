//! Watching: the same read again after each change, sent when its result differs.

use super::{Api, disco::wrong_reply};
use async_channel::{Receiver, Sender};
use futures_lite::{FutureExt, Stream, stream};
use proto::v1::{self, forward_reply::Reply, forward_request::Request as Wire};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tonic::{Request, Status};

/// Streams of `Watch` one node serves at once.
pub const WATCHERS_MAX: usize = 32;
/// Changes that come closer together than this are sent as one.
const GAP: Duration = Duration::from_millis(100);
/// Some of what is read (who leads, which member is missing) changes without a change of the replicated state, and a node
/// without a copy of it hears of no change at all: look again after this long.
const LOOK: Duration = Duration::from_secs(1);

/// Wakes watchers; clones share the list.
#[derive(Clone, Default)]
pub struct Changes(Arc<Mutex<Vec<Sender<()>>>>);

impl Changes {
    /// Called after each change of the replicated state.
    pub fn notify(&self) {
        self.watchers().retain(|watcher| !watcher.is_closed() && (watcher.try_send(()).is_ok() || watcher.is_full()));
    }

    /// `None`: there are `WATCHERS_MAX` already.
    pub fn subscribe(&self) -> Option<Receiver<()>> {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| !watcher.is_closed());
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (wake, woken) = async_channel::bounded(1);
        watchers.push(wake);
        Some(woken)
    }

    fn watchers(&self) -> std::sync::MutexGuard<'_, Vec<Sender<()>>> {
        self.0.lock().expect("no code that holds this lock can panic")
    }
}

struct Watcher {
    api: Arc<Api>,
    caller: Request<()>,
    request: v1::ReadRequest,
    changes: Receiver<()>,
    last: Option<v1::ReadReply>,
    failed: bool,
}

/// Who may watch, completing "only administrators and managers may …".
pub(super) const WHAT: &str = "watch the cluster's state";

/// Ends with the first error. The caller is looked up again before each answer: it may have been removed meanwhile.
pub(super) fn stream(
    api: Arc<Api>,
    caller: Request<()>,
    request: v1::ReadRequest,
    changes: Receiver<()>,
) -> impl Stream<Item = Result<v1::ReadReply, Status>> + Send {
    let watcher = Watcher { api, caller, request, changes, last: None, failed: false };
    stream::unfold(watcher, |mut watcher| async move {
        if watcher.failed {
            return None;
        }
        let next = watcher.next().await;
        watcher.failed = next.is_err();
        Some((next, watcher))
    })
}

impl Watcher {
    async fn next(&mut self) -> Result<v1::ReadReply, Status> {
        loop {
            if self.last.is_some() {
                self.wait().await;
            }
            let principal = self.api.gate.person(&self.caller, WHAT)?;
            let reply = match self.api.settle(principal, Wire::Read(self.request.clone())).await? {
                Reply::Read(reply) => reply,
                _ => return Err(wrong_reply()),
            };
            let same = self.last.as_ref().is_some_and(|last| last.result == reply.result);
            if !same {
                self.last = Some(reply.clone());
                return Ok(reply);
            }
        }
    }

    async fn wait(&self) {
        async_io::Timer::after(GAP).await;
        let changed = async {
            let _ = self.changes.recv().await;
        };
        let look = async {
            async_io::Timer::after(LOOK).await;
        };
        changed.or(look).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_bounded_and_make_room_when_they_leave() {
        let changes = Changes::default();
        let mut watching: Vec<_> = (0..WATCHERS_MAX).map(|_| changes.subscribe().expect("there is room")).collect();
        assert!(changes.subscribe().is_none());
        watching.pop();
        assert!(changes.subscribe().is_some());
    }

    #[test]
    fn changes_in_a_row_wake_a_watcher_once() {
        let changes = Changes::default();
        let woken = changes.subscribe().expect("there is room");
        changes.notify();
        changes.notify();
        assert!(woken.try_recv().is_ok());
        assert!(woken.try_recv().is_err());
        changes.notify();
        assert!(woken.try_recv().is_ok(), "a watcher that was slow is still in the list");
    }
}
