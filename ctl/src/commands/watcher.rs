//! Answers as they change, whichever node gives them: when one goes away, the next is asked.

use crate::client::{CallError, Client, mismatched};
use crate::out::Out;
use proto::v1::{self, read_reply, read_request};
use std::time::{Duration, Instant};
use tonic::Streaming;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

pub struct Watcher {
    stale: bool,
    query: read_request::Query,
    stream: Option<Streaming<v1::ReadReply>>,
    /// Somebody who has seen an answer wants to see it come back, however long it takes.
    answered: bool,
    /// Since when nothing but refusals came.
    refused_since: Option<Instant>,
    /// What was told last of why nothing comes.
    told: String,
}

impl Watcher {
    /// `stale`: from the asked node's own copy.
    pub fn new(stale: bool, query: read_request::Query) -> Watcher {
        Watcher { stale, query, stream: None, answered: false, refused_since: None, told: String::new() }
    }

    /// The first answer was seen already, by other ways.
    pub fn go_on(mut self) -> Watcher {
        self.answered = true;
        self
    }

    /// Asks something else from now on.
    pub fn ask(&mut self, query: read_request::Query) {
        (self.query, self.stream) = (query, None);
    }

    /// The next answer. After a node was lost the first one may repeat what is known already. Dropping the future
    /// loses nothing. Once there was an answer, it says on stderr why no other one comes, and waits.
    ///
    /// # Errors
    /// Refused, or there was no answer at all within the client's patience.
    pub async fn next(&mut self, client: &mut Client, out: Out) -> Result<read_reply::Result, CallError> {
        loop {
            match self.try_next(client).await {
                Err(CallError::Unanswered { tried, .. }) if self.answered => {
                    let why = tried.into_iter().next().map_or_else(String::new, |(address, why)| format!(" ({address}: {why})"));
                    if self.told != why {
                        out.say(format!("no node of the cluster answers{why}; still trying"));
                        self.told = why;
                    }
                }
                Ok(result) => {
                    self.answered = true;
                    self.told.clear();
                    return Ok(result);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_next(&mut self, client: &mut Client) -> Result<read_reply::Result, CallError> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => none.insert(client.watch(self.stale, self.query.clone()).await?),
            };
            let refusal = match stream.message().await {
                Ok(Some(reply)) => {
                    self.refused_since = None;
                    return reply.result.ok_or_else(mismatched);
                }
                Ok(None) => None,
                Err(status) => Some(status),
            };
            // Ended or broken: the same question to the next node.
            self.stream = None;
            let asked = client.addresses().into_iter().next().unwrap_or_default();
            client.turn_away();
            let since = *self.refused_since.get_or_insert_with(Instant::now);
            if let Some(status) = refusal.filter(|_| since.elapsed() > client.patience().answered) {
                self.refused_since = None;
                return Err(client.unanswered(vec![(asked, status.message().to_owned())]));
            }
            async_io::Timer::after(AGAIN).await;
        }
    }
}
