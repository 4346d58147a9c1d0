//! The last answers per client, so that a retried request never applies twice.

use super::apply::Outcome;
use crate::model::{
    ids::{NodeId, RequestId},
    limits::{ANSWERS_PER_CLIENT_MAX, CLIENTS_MAX},
};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Clients {
    #[n(0)]
    clients: BTreeMap<u64, Client>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Client {
    /// Log index of its newest answer: the client silent for longest is forgotten first.
    #[n(0)]
    used: u64,
    #[n(1)]
    answers: VecDeque<Remembered>,
    /// The newest sequence whose answer is no longer remembered.
    #[n(2)]
    forgotten: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Remembered {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    index: u64,
    #[n(2)]
    outcome: Stored,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Stored {
    #[n(0)]
    Done,
    #[n(1)]
    Existed(#[n(0)] bool),
    #[n(2)]
    Token(#[n(0)] String),
    #[n(3)]
    Refused(#[n(0)] String, #[n(1)] String),
    #[n(4)]
    Joined(#[n(0)] NodeId, #[n(1)] u64),
}

/// Codes a refusal may carry; stable, part of the wire.
pub const CODES: [&str; 11] =
    ["not_found", "invalid", "limit", "denied", "token_unknown", "token_expired", "token_used", "taken", "removed", "too_old", "stale"];

impl Clients {
    /// The log index and outcome of a request that was applied before.
    pub fn answer(&self, id: RequestId) -> Option<(u64, Outcome)> {
        let client = self.clients.get(&id.client)?;
        let remembered = client.answers.iter().find(|a| a.sequence == id.sequence)?;
        let outcome = match &remembered.outcome {
            Stored::Done => Outcome::Done,
            Stored::Existed(existed) => Outcome::Existed(*existed),
            Stored::Token(id) => Outcome::TokenCreated { id: id.clone() },
            Stored::Joined(node, stamp_ms) => Outcome::Joined { node: *node, stamp_ms: *stamp_ms },
            Stored::Refused(code, why) => {
                let code = CODES.iter().find(|c| *c == code).copied().unwrap_or("invalid");
                Outcome::Refused { code, why: why.clone() }
            }
        };
        Some((remembered.index, outcome))
    }

    /// Whether this request is so old that it may have been applied and forgotten: applying it might be the second time.
    pub(super) fn may_be_forgotten(&self, id: RequestId) -> bool {
        self.clients.get(&id.client).is_some_and(|client| id.sequence <= client.forgotten)
    }

    pub(super) fn remember(&mut self, id: RequestId, index: u64, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done => Stored::Done,
            Outcome::Existed(existed) => Stored::Existed(*existed),
            Outcome::TokenCreated { id } => Stored::Token(id.clone()),
            Outcome::Joined { node, stamp_ms } => Stored::Joined(*node, *stamp_ms),
            Outcome::Refused { code, why } => Stored::Refused((*code).into(), why.clone()),
        };
        if !self.clients.contains_key(&id.client) && self.clients.len() >= CLIENTS_MAX {
            let oldest = self.clients.iter().min_by_key(|(_, c)| c.used).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                self.clients.remove(&oldest);
            }
        }
        let client = self.clients.entry(id.client).or_default();
        client.used = index;
        client.answers.push_back(Remembered { sequence: id.sequence, index, outcome });
        if client.answers.len() > ANSWERS_PER_CLIENT_MAX {
            let forgotten = client.answers.pop_front().map_or(0, |answer| answer.sequence);
            client.forgotten = client.forgotten.max(forgotten);
        }
    }
}
