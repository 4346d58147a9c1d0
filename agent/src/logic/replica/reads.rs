//! Linearizable reads: the quorum confirms the leader once per batch of reads, then the applied state answers.

use super::Replica;
use crate::model::{
    ids::Ticket,
    limits::{READS_PENDING_MAX, REQUEST_TIMEOUT_MS},
    query::{Answer, Query},
};

/// raft-rs drops a read index silently at times: ask again with a new context.
const ASK_AGAIN_MS: u64 = 500;

struct Read {
    ticket: Ticket,
    query: Query,
    by: u64,
}

#[derive(Default)]
pub(super) struct Reads {
    /// Not yet asked about.
    waiting: Vec<Read>,
    /// Asked about under this context, since then.
    asked: Option<(u64, u64)>,
    riding: Vec<Read>,
    /// Confirmed: to be answered once this index is applied.
    confirmed: Vec<(u64, Vec<Read>)>,
    contexts: u64,
}

impl Reads {
    fn len(&self) -> usize {
        self.waiting.len() + self.riding.len() + self.confirmed.iter().map(|(_, r)| r.len()).sum::<usize>()
    }

    /// The quorum confirmed these contexts at these indexes. Only the newest context counts.
    pub(super) fn confirmed(&mut self, states: Vec<(u64, u64)>) {
        for (context, index) in states {
            if self.asked.take_if(|(asked, _)| *asked == context).is_some() {
                self.confirmed.push((index, std::mem::take(&mut self.riding)));
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        // Reads that raft would not take yet are asked about again with whatever comes in next: a leader's heartbeats are due anyway.
        self.asked.map(|(_, at)| at + ASK_AGAIN_MS)
    }

    fn take_all(&mut self) -> Vec<Read> {
        self.asked = None;
        let mut all = std::mem::take(&mut self.waiting);
        all.append(&mut self.riding);
        all.extend(std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, reads)| reads));
        all
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.waiting.retain(|r| r.ticket != ticket);
        self.riding.retain(|r| r.ticket != ticket);
        for (_, reads) in &mut self.confirmed {
            reads.retain(|r| r.ticket != ticket);
        }
    }
}

impl Replica {
    pub(super) fn handle_read(&mut self, ticket: Ticket, stale: bool, query: Query) {
        if stale || query == Query::Member {
            let answer = Answer::Read { index: self.applied, view: self.view(&query) };
            return self.reply(ticket, answer);
        }
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        if self.reads.len() >= READS_PENDING_MAX {
            return self.reply(ticket, Answer::Busy);
        }
        self.reads.waiting.push(Read { ticket, query, by: self.now.mono + REQUEST_TIMEOUT_MS });
    }

    /// Starts a round of confirmation if reads wait and none is under way. True if raft has news from it.
    pub(super) fn ask_reads(&mut self) -> bool {
        let reads = &mut self.reads;
        if reads.asked.is_some_and(|(_, at)| at + ASK_AGAIN_MS <= self.now.mono) {
            reads.asked = None;
            let mut riding = std::mem::take(&mut reads.riding);
            riding.append(&mut reads.waiting);
            reads.waiting = riding;
        }
        if reads.asked.is_some() || reads.waiting.is_empty() {
            return false;
        }
        let Some(consensus) = &mut self.consensus else { return false };
        // The process' boot number keeps a context of an earlier life from being taken for one of this.
        let context = self.config.boot.rotate_left(24) ^ reads.contexts;
        if !consensus.read_index(context) {
            return false;
        }
        reads.contexts += 1;
        reads.asked = Some((context, self.now.mono));
        reads.riding = std::mem::take(&mut reads.waiting);
        true
    }

    pub(super) fn answer_reads(&mut self) {
        let applied = self.applied;
        let due: Vec<Read> = self.reads.confirmed.extract_if(.., |(index, _)| *index <= applied).flat_map(|(_, reads)| reads).collect();
        for read in due {
            let answer = Answer::Read { index: applied, view: self.view(&read.query) };
            self.reply(read.ticket, answer);
        }
    }

    pub(super) fn fail_reads(&mut self, answer: &Answer) {
        for read in self.reads.take_all() {
            self.reply(read.ticket, answer.clone());
        }
    }

    pub(super) fn expire_reads(&mut self) {
        let oldest =
            self.reads.waiting.iter().chain(&self.reads.riding).chain(self.reads.confirmed.iter().flat_map(|(_, r)| r)).map(|r| r.by).min();
        if oldest.is_some_and(|by| by <= self.now.mono) {
            let answer = self.unavailable();
            self.fail_reads(&answer);
        }
    }
}
