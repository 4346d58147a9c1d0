//! The way in to the replica: everything that happens outside becomes an `Input` here.
//!
//! There are three lanes, because what may wait differs:
//! - `sure`: answers to effects (persisted, launched, unreachable …). There is at most one per effect, so the lane needs
//!   no bound of its own, and refusing one would leave the replica waiting for ever.
//! - `peers`: Raft messages. The lane is short; when it is full the stream they came on waits, and so does its sender.
//! - `requests`: what people and nodes ask. When it is full they are told so at once.

use crate::model::{
    ids::Ticket,
    io::Input,
    limits,
    query::{Answer, Principal, Request},
};
use async_channel::{Receiver, Sender};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Inputs the `peers` lane holds; each is at most one message of the wire.
const PEERS_LANE: usize = 8;
/// Requests the `requests` lane holds before the next is answered `Busy`.
const REQUESTS_LANE: usize = 128;

/// Makes the door and the inbox behind it.
pub fn open() -> (Door, Inbox) {
    let (sure, sure_out) = async_channel::unbounded();
    let (peers, peers_out) = async_channel::bounded(PEERS_LANE);
    let (requests, requests_out) = async_channel::bounded(REQUESTS_LANE);
    let door = Door(Arc::new(Shared { sure, peers, requests, waiting: Mutex::default() }));
    (door, Inbox { sure: sure_out, peers: peers_out, requests: requests_out })
}

/// What the pump reads from.
pub struct Inbox {
    pub sure: Receiver<Input>,
    pub peers: Receiver<Input>,
    pub requests: Receiver<Input>,
}

impl Inbox {
    /// The next input, answers to effects first. `None` once every door is gone.
    pub async fn next(&self) -> Option<Input> {
        let sure = self.sure.recv();
        let peers = self.peers.recv();
        let requests = self.requests.recv();
        futures_lite::future::or(sure, futures_lite::future::or(peers, requests)).await.ok()
    }

    /// The next input if one is there already.
    pub fn try_next(&self) -> Option<Input> {
        self.sure.try_recv().or_else(|_| self.peers.try_recv()).or_else(|_| self.requests.try_recv()).ok()
    }
}

/// A handle to ask the replica; clones share it.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    sure: Sender<Input>,
    peers: Sender<Input>,
    requests: Sender<Input>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    replies: BTreeMap<Ticket, Sender<Answer>>,
}

impl Door {
    /// Asks and waits. Dropping the future cancels the request. A full queue answers `Busy`, a stopping node `Unavailable`.
    pub async fn ask(&self, principal: Principal, request: Request) -> Answer {
        self.put(|ticket| Input::Request { ticket, principal, request }).await
    }

    /// Like `ask`, for an input of another kind that carries a ticket.
    pub async fn put(&self, input: impl FnOnce(Ticket) -> Input) -> Answer {
        let Some((asking, reply)) = self.ticket() else { return Answer::Busy };
        match self.0.requests.try_send(input(asking.ticket)) {
            Ok(()) => reply.recv().await.unwrap_or_else(|_| stopping()),
            Err(error) => {
                self.waiting().replies.remove(&asking.ticket);
                if error.is_full() { Answer::Busy } else { stopping() }
            }
        }
    }

    /// Hands in what a peer sent; waits while the lane is full. `false`: the node is stopping.
    pub async fn hand_in(&self, input: Input) -> bool {
        self.0.peers.send(input).await.is_ok()
    }

    /// Reports how an effect ended. Never refused, never waits.
    pub fn report(&self, input: Input) {
        // A closed lane means that the pump has ended: nobody is left to care.
        let _ = self.0.sure.try_send(input);
    }

    /// Gives the asker its answer; an asker that went away is no error.
    pub fn answer(&self, ticket: Ticket, answer: Answer) {
        let reply = self.waiting().replies.remove(&ticket);
        if let Some(reply) = reply {
            let _ = reply.try_send(answer);
        }
    }

    fn ticket(&self) -> Option<(Asking<'_>, Receiver<Answer>)> {
        let mut waiting = self.waiting();
        if waiting.replies.len() >= limits::REQUESTS_PENDING_MAX + limits::READS_PENDING_MAX {
            return None;
        }
        waiting.last += 1;
        let ticket = Ticket(waiting.last);
        let (reply, answer) = async_channel::bounded(1);
        waiting.replies.insert(ticket, reply);
        Some((Asking { door: self, ticket }, answer))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().expect("no code that holds this lock can panic")
    }
}

fn stopping() -> Answer {
    Answer::Unavailable { why: "this node is stopping".into() }
}

/// Tells the replica when the asker stops waiting before its answer came.
struct Asking<'a> {
    door: &'a Door,
    ticket: Ticket,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let unanswered = self.door.waiting().replies.remove(&self.ticket).is_some();
        if unanswered {
            self.door.report(Input::Cancelled { ticket: self.ticket });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::query::Query;
    use futures_lite::future::{block_on, poll_once, zip};

    fn read() -> Request {
        Request::Read { stale: true, query: Query::Status }
    }

    #[test]
    fn an_answer_reaches_the_one_who_asked() {
        let (door, inbox) = open();
        block_on(async {
            let replica = async {
                let Some(Input::Request { ticket, .. }) = inbox.next().await else { panic!("a request comes out") };
                door.answer(ticket, Answer::Busy);
            };
            let (answer, ()) = zip(door.ask(Principal::Admin, read()), replica).await;
            assert_eq!(answer, Answer::Busy);
        });
        assert!(inbox.try_next().is_none(), "an answered request is not cancelled");
    }

    #[test]
    fn who_stops_waiting_is_cancelled() {
        let (door, inbox) = open();
        block_on(async {
            assert!(poll_once(door.ask(Principal::Admin, read())).await.is_none());
        });
        let cancelled = inbox.try_next().expect("the cancellation");
        assert!(matches!(cancelled, Input::Cancelled { ticket: Ticket(1) }));
    }

    #[test]
    fn a_full_queue_says_busy_but_takes_every_report() {
        let (door, inbox) = open();
        block_on(async {
            let mut waiting = Vec::new();
            for _ in 0..REQUESTS_LANE {
                let mut ask = Box::pin(door.ask(Principal::Admin, read()));
                assert!(poll_once(&mut ask).await.is_none());
                waiting.push(ask);
            }
            assert_eq!(door.ask(Principal::Admin, read()).await, Answer::Busy);
            for number in 0..1000 {
                door.report(Input::Persisted { number });
            }
            assert!(matches!(inbox.try_next(), Some(Input::Persisted { number: 0 })), "reports go first");
            drop(inbox);
            assert!(matches!(door.ask(Principal::Admin, read()).await, Answer::Unavailable { .. }));
        });
    }
}
