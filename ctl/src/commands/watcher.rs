//! Answers as they change, whichever node gives them: when one goes away, the next is asked.

use crate::client::{CallError, Client, mismatched};
use proto::v1::{self, read_reply, read_request};
use tonic::Streaming;

pub struct Watcher {
    stale: bool,
    query: read_request::Query,
    stream: Option<Streaming<v1::ReadReply>>,
}

impl Watcher {
    /// `stale`: from the asked node's own copy.
    pub fn new(stale: bool, query: read_request::Query) -> Watcher {
        Watcher { stale, query, stream: None }
    }

    /// Asks something else from now on.
    pub fn ask(&mut self, query: read_request::Query) {
        *self = Watcher::new(self.stale, query);
    }

    /// The next answer. After a node was lost the first one may repeat what is known already. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// Refused, or no node answered within the client's patience.
    pub async fn next(&mut self, client: &mut Client) -> Result<read_reply::Result, CallError> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => none.insert(client.watch(self.stale, self.query.clone()).await?),
            };
            match stream.message().await {
                Ok(Some(reply)) => return reply.result.ok_or_else(mismatched),
                // Ended or broken: the same question to the next node. Its refusal, if it has one, comes with the answer.
                Ok(None) | Err(_) => {
                    self.stream = None;
                    client.turn_away();
                    async_io::Timer::after(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}
