//! Clients: each has one request under way and repeats it, with its id, until it is answered or given up.
//!
//! What they ask and hear is the history that the linearizability checker judges.

use crate::{
    calls::Caller,
    counts::Count,
    linear::Act,
    mutants::Mutant,
    node::Body,
    world::{Event, World},
};
use agent::model::{
    ids::RequestId,
    query::{Answer, Op, Principal, Query, Request, View, Written},
};
use std::rc::Rc;

pub const TRIES_MAX: u32 = 12;
/// Registers that are written again and again; the last one is deleted now and then.
const REGISTERS: [&str; 3] = ["r0", "r1", "r2"];
/// One of them is watched by the script.
pub const WATCHED: &str = REGISTERS[0];

#[derive(Default)]
pub struct Client {
    sequence: u64,
    pub current: Option<Pending>,
}

#[derive(Clone)]
pub struct Pending {
    what: What,
    key: String,
    floor: u64,
    tries: u32,
    call: u64,
    /// Its name in the history.
    operation: u64,
}

#[derive(Clone)]
enum What {
    Write(Vec<u8>),
    Delete,
    Read { stale: bool },
}

impl What {
    fn act(&self) -> Act {
        match self {
            What::Write(value) => Act::Write(number(value)),
            What::Delete => Act::Delete(None),
            What::Read { .. } => Act::Read(None),
        }
    }
}

/// Values are numbers in their first eight bytes.
pub fn number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

impl World {
    fn think(&mut self, client: usize) {
        let think = self.options.think_ms;
        self.later((think / 2, 2 * think), Event::Client(client));
    }

    pub fn client_acts(&mut self, client: usize) {
        if self.workload.clients[client].current.is_none() {
            if self.workload.closing {
                return;
            }
            self.begin_request(client);
        }
        let to = self.any_host();
        let Some(mut pending) = self.workload.clients[client].current.clone() else { return };
        if pending.tries > 0 {
            self.counts.add(Count::Retries);
        }
        if self.mutant == Some(Mutant::ForgottenRequestId) && pending.tries > 0 {
            self.workload.clients[client].sequence += 1;
        }
        let skips = self.mutant == Some(Mutant::SkippedReadIndex);
        let id = RequestId { client: client as u64 + 1, sequence: self.workload.clients[client].sequence };
        let key = pending.key.clone();
        let request = match &pending.what {
            What::Write(value) => Request::Write { id, op: Op::KvSet { key, value: value.clone() } },
            What::Delete => Request::Write { id, op: Op::KvDelete(key) },
            What::Read { stale } => Request::Read { stale: *stale || skips, query: Query::KvGet(key) },
        };
        if matches!(pending.what, What::Read { .. }) {
            // A read that is asked again is a new read.
            pending.floor = self.checkers.begin(&pending.key, None);
            self.begin_operation(&mut pending);
        }
        let timeout = self.rng.between(400, 4_000);
        pending.call = self.call(Caller::Client(client), to, Principal::Admin, Rc::new(Body::Ask(request)), timeout);
        pending.tries += 1;
        self.workload.clients[client].current = Some(pending);
    }

    fn begin_operation(&mut self, pending: &mut Pending) {
        pending.operation = self.id();
        let stale = matches!(pending.what, What::Read { stale: true });
        if !stale {
            self.checkers.linear.began(&pending.key, pending.operation, pending.what.act(), self.trace.events);
        }
    }

    fn begin_request(&mut self, client: usize) {
        let dice = self.rng.below(100);
        let register = self.rng.pick(&REGISTERS).expect("not empty").to_string();
        // Large values fill the space for values: those keys come round again.
        let own = if self.options.value_bytes > 8 { self.workload.values % 40 } else { self.workload.values };
        let (key, what) = match dice {
            0..40 => (format!("w{own}"), self.new_value()),
            40..44 => (REGISTERS[2].to_string(), What::Delete),
            44..65 => (register, self.new_value()),
            _ => (register, What::Read { stale: dice >= 90 }),
        };
        let floor = match &what {
            What::Write(value) => self.checkers.begin(&key, Some(value)),
            What::Delete => {
                self.checkers.deletes(&key);
                self.checkers.begin(&key, None)
            }
            What::Read { .. } => self.checkers.begin(&key, None),
        };
        let mut pending = Pending { what, key, floor, tries: 0, call: 0, operation: 0 };
        if !matches!(pending.what, What::Read { .. }) {
            self.begin_operation(&mut pending);
        }
        self.workload.clients[client].sequence += 1;
        self.workload.clients[client].current = Some(pending);
    }

    fn new_value(&mut self) -> What {
        self.workload.values += 1;
        let mut value = self.workload.values.to_le_bytes().to_vec();
        value.resize(self.options.value_bytes.max(8), 0);
        What::Write(value)
    }

    pub fn client_hears(&mut self, client: usize, call: u64, answer: Option<Answer>) {
        let Some(pending) = self.workload.clients[client].current.clone().filter(|pending| pending.call == call) else { return };
        let ended = match (&pending.what, answer) {
            (What::Write(value), Some(Answer::Written { index, .. })) => {
                self.checkers.wrote(&pending.key, value, index, pending.floor);
                self.counts.add(Count::AckedWrites);
                Some((pending.what.act(), index))
            }
            (What::Delete, Some(Answer::Written { index, result: Written::Existed(existed) })) => {
                self.checkers.deleted(&pending.key, index, pending.floor);
                self.counts.add(Count::AckedDeletes);
                Some((Act::Delete(Some(existed)), index))
            }
            (What::Read { stale }, Some(Answer::Read { view: View::Kv { value, version }, index })) => {
                if *stale {
                    self.checkers.stale_read(&pending.key, value.as_deref(), version);
                    self.counts.add(Count::StaleReads);
                } else {
                    self.checkers.read(&pending.key, value.as_deref(), version, pending.floor);
                    self.counts.add(Count::Reads);
                }
                let hint = if value.is_some() { version } else { index };
                Some((Act::Read(value.as_deref().map(number)), hint))
            }
            (_, None | Some(Answer::Busy | Answer::Unavailable { .. } | Answer::Elsewhere { .. })) => None,
            (_, Some(other)) => panic!("violation: a client with {} got {other:?}", pending.key),
        };
        if let Some((act, hint)) = ended {
            if !matches!(pending.what, What::Read { stale: true }) {
                self.checkers.linear.ended(&pending.key, pending.operation, act, self.trace.events, hint);
            }
            self.workload.clients[client].current = None;
        } else if pending.tries >= TRIES_MAX && !self.workload.patient {
            if !matches!(pending.what, What::Read { .. }) {
                self.counts.add(Count::UnknownWrites);
            }
            self.workload.clients[client].current = None;
        }
        self.think(client);
    }

    /// After everything else: what the keys hold in the end, as the last reads of the history.
    pub fn read_the_end(&mut self, leader: usize) {
        self.trace.events += 1;
        for key in self.checkers.keys() {
            let floor = self.checkers.begin(&key, None);
            let kv = &self.replica(leader).expect("a leader runs").state().kv;
            let (value, version) = kv.get(&key).map_or((None, 0), |record| (Some(record.value.clone()), record.version));
            self.checkers.read(&key, value.as_deref(), version, floor);
            let id = self.id();
            self.checkers.linear.began(&key, id, Act::Read(None), self.trace.events);
            self.checkers.linear.ended(&key, id, Act::Read(value.as_deref().map(number)), self.trace.events, u64::MAX - 1);
        }
        self.trace.events += 1;
    }
}
