//! The mind of a node: `handle(Input, now)` → `poll_effect()`, and `poll_deadline()` says when to call again.
//!
//! It composes the rest: raft decides the order of commands, `state` carries them out, `plan` decides on the leader
//! what comes next. It does nothing itself; the daemon and the simulator wrap this very same type.
//! - `seat.rs`: this node's place in the Raft group     - `requests.rs`: writes, joins, reports
//! - `reads.rs`: linearizable reads                      - `leading.rs`: what only a leader does
//! - `contact.rs`: how a node without a leader's messages stays in touch     - `tasks.rs`: this node's own tasks
//! - `shutdown.rs`: what SIGTERM asks for
//! - `scripting.rs`: when which hook of the script runs  - `recovery.rs`: going on after the majority was lost
//! - `rotation.rs`: a new CA takes over                  - `access.rs`: whom the drivers are to let in

mod access;
mod contact;
mod leading;
mod reads;
mod recovery;
mod requests;
mod rotation;
mod scripting;
mod seat;
mod shutdown;
mod tasks;
mod views;

use super::{
    plan::CallKey,
    raft::{Consensus, Content, Outgoing, Output, RaftError, TickTimings, originate},
    state::State,
};
use crate::model::{
    authority::Papers,
    codec::{self, DecodeError},
    command::{Joiner, KINDS_KNOWN, Proposal},
    ids::{ClusterId, MemberId, NodeId, Now},
    io::{Access, Effect, Input, Keyring, Level, Restored},
    limits::{LOG_BYTES_MAX, TICK_MS},
    query::Way,
    task::Orders,
    token::TokenRecord,
};
use contact::Contact;
use leading::Leading;
use reads::Reads;
use requests::Waiting;
use rotation::Handover;
use scripting::Scripting;
use seat::SeatChange;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tasks::Tasks;

/// Ticks fed at once after a pause: enough for any timeout to pass, few enough not to stall.
const TICKS_FED_MAX: u64 = 100;
/// Entries applied since the last snapshot that make a new one.
const ENTRIES_PER_SNAPSHOT: u64 = 4096;
/// So long after the last entry a log of more than so many is compacted as well.
const QUIET_MS: u64 = 5_000;
const QUIET_ENTRIES: u64 = 256;

/// Who this node is and how it is set up.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// Random per start of the process.
    pub boot: u64,
    pub name: String,
    /// `host:port` where others reach it.
    pub address: String,
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    pub labels: BTreeMap<String, String>,
    pub instance: Option<String>,
    /// Raw ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// Held by voters and learners.
    pub keyring: Option<Keyring>,
    /// Set on a node that is to begin a cluster; ignored once it has a seat.
    pub originate: Option<Genesis>,
    /// Where to report to while no manager is known.
    pub seeds: Vec<Way>,
    /// What it was last told to run, as the data dir remembers it.
    pub assignment: Option<Orders>,
    /// Whether this node's provider can make machines.
    pub has_provider: bool,
    /// Whether this node's tasks end when it is asked to stop; otherwise they go on without it.
    pub on_stop_end_tasks: bool,
    pub timings: Timings,
}

/// A cluster about to begin.
#[derive(Clone, Debug)]
pub struct Genesis {
    pub cluster: ClusterId,
    pub name: String,
    /// The CA's certificate, DER.
    pub ca: Vec<u8>,
    /// Tokens that are out already: a baked image's.
    pub tokens: Vec<TokenRecord>,
}

/// All in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    pub lost_after_ms: u64,
    /// A better node takes a voter's seat after it was ready, and the voters the same, for this long.
    pub swap_after_ms: u64,
    /// An agent that starts and hears of no manager for this long goes by its last assignment.
    pub alone_after_ms: u64,
}

impl Default for Timings {
    fn default() -> Timings {
        use crate::model::limits::{ALONE_AFTER_MS, LOST_AFTER_MS, SWAP_AFTER_MS};
        Timings {
            heartbeat_ms: 200,
            election_min_ms: 1000,
            election_max_ms: 2000,
            lost_after_ms: LOST_AFTER_MS,
            swap_after_ms: SWAP_AFTER_MS,
            alone_after_ms: ALONE_AFTER_MS,
        }
    }
}

/// Why a node cannot start on what it found.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the stored Raft data cannot be used")]
    Raft(#[from] RaftError),
    #[error("the stored snapshot of the state cannot be read")]
    Snapshot(#[source] DecodeError),
    #[error("this node holds a seat in the Raft group but its keyring is missing")]
    NoKeyring,
}

pub struct Replica {
    config: Config,
    state: State,
    applied: u64,
    /// When the newest entry was applied.
    applied_at: u64,
    seed: u64,
    consensus: Option<Consensus>,
    effects: VecDeque<Effect>,
    now: Now,
    ticked_at: u64,
    /// Writes by the log index they stand at.
    writes: BTreeMap<u64, Waiting>,
    reads: Reads,
    leading: Option<Leading>,
    seat_change: Option<SeatChange>,
    contact: Contact,
    tasks: Tasks,
    script: Scripting,
    access: Option<Arc<Access>>,
    handover: Option<Handover>,
    /// What the drivers say of the certificates here.
    papers: Option<Papers>,
    /// SIGTERM came: when to stop waiting for an heir.
    stopping_by: Option<u64>,
    hands_on: bool,
    stopped: bool,
    numbers: u64,
}

impl Replica {
    /// # Errors
    /// Stored data that cannot be read or does not fit together: the node must not start on it.
    pub fn new(mut config: Config, restored: Restored, seed: u64, now: Now) -> Result<Replica, StartError> {
        let mut replica = Replica {
            state: State::default(),
            applied: 0,
            applied_at: 0,
            seed,
            consensus: None,
            effects: VecDeque::new(),
            now,
            ticked_at: now.mono,
            writes: BTreeMap::new(),
            reads: Reads::default(),
            leading: None,
            seat_change: None,
            contact: Contact::new(now.mono),
            tasks: Tasks::new(config.assignment.take(), now.mono + config.timings.alone_after_ms),
            script: Scripting::default(),
            access: None,
            handover: None,
            papers: None,
            stopping_by: None,
            hands_on: false,
            stopped: false,
            numbers: 0,
            config,
        };
        if let Some(member) = restored.member {
            if replica.config.keyring.is_none() {
                return Err(StartError::NoKeyring);
            }
            replica.resume(member, &restored)?;
        } else if let Some(genesis) = replica.config.originate.take() {
            replica.originate(genesis)?;
        } else if replica.config.keyring.take().is_some() {
            // The process ended between giving up the seat and deleting it, or between getting it and taking the seat.
            replica.effects.push_back(Effect::Keyring(None));
        }
        replica.settle();
        Ok(replica)
    }

    fn resume(&mut self, member: MemberId, restored: &Restored) -> Result<(), StartError> {
        let mut consensus = Consensus::new(member, restored, self.tick_timings(), self.seed, self.numbers)?;
        if let Some(snapshot) = &restored.snapshot {
            self.state = State::decode(&snapshot.data).map_err(StartError::Snapshot)?;
            self.applied = snapshot.index;
        }
        consensus.campaign_if_alone();
        self.consensus = Some(consensus);
        Ok(())
    }

    /// The first seat of a new cluster: the state begins as a snapshot, made durable like any other.
    fn originate(&mut self, genesis: Genesis) -> Result<(), StartError> {
        let joiner = self.as_joiner();
        let mut state = State::genesis(genesis.cluster, genesis.name, genesis.ca, joiner, self.now.wall);
        state.tokens.extend(genesis.tokens.into_iter().map(|token| (token.id.clone(), token)));
        let batch = originate(MemberId(1), 1, 1, Arc::new(state.encode()));
        self.numbers += 1;
        self.seat_change = Some(SeatChange::begin(self.numbers, batch.clone(), MemberId(1), None));
        self.effects.push_back(Effect::Persist { number: self.numbers, batch });
        Ok(())
    }

    fn as_joiner(&self) -> Joiner {
        let config = &self.config;
        Joiner {
            id: config.node,
            name: config.name.clone(),
            address: config.address.clone(),
            public_key: config.public_key.clone(),
            cpus: config.cpus,
            memory: config.memory,
            labels: config.labels.clone(),
            instance: config.instance.clone(),
            commands_known: KINDS_KNOWN,
        }
    }

    fn tick_timings(&self) -> TickTimings {
        let ticks = |ms: u64| (ms / TICK_MS).max(1) as usize;
        let timings = self.config.timings;
        TickTimings {
            heartbeat: ticks(timings.heartbeat_ms),
            election_min: ticks(timings.election_min_ms),
            election_max: ticks(timings.election_max_ms),
        }
    }

    /// Takes something in. Never fails: a full queue answers `Busy` through a `Reply`.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        self.feed_ticks();
        match input {
            Input::Tick => {}
            Input::Persisted { number } => self.handle_persisted(number),
            Input::StoreFailed { why } => self.stop(true, format!("the store failed: {why}")),
            Input::Raft { from, to, messages } => self.handle_raft(from, to, &messages),
            Input::Snapshot { from, to, message, data } => self.handle_snapshot(from, to, &message, data),
            Input::SnapshotSent { to, ok } => {
                if let Some(consensus) = &mut self.consensus {
                    consensus.snapshot_sent(to, ok);
                }
            }
            Input::Unreachable { node } => self.handle_unreachable(node),
            Input::Request { ticket, principal, request } => self.handle_request(ticket, &principal, request),
            Input::Cancelled { ticket } => {
                self.forget(ticket);
                self.forget_script_ticket(ticket);
                self.forget_handover(ticket);
            }
            Input::Enlist { ticket, from, member, keyring } => self.handle_enlist(ticket, from, member, keyring),
            Input::Discharge { ticket, from: _, member } => self.handle_discharge(ticket, member),
            Input::Enlisted { member, ok, .. } => self.handle_seat_answer(CallKey::Enlist(member), ok),
            Input::Discharged { member, ok, .. } => self.handle_seat_answer(CallKey::Discharge(member), ok),
            Input::Provided { id, outcome } => self.handle_provided(id, outcome),
            Input::Task { number, event } => self.handle_task(number, event),
            Input::TasksFound { orders } => self.handle_tasks_found(orders),
            Input::Scripted { id, outcome } => self.handle_scripted(id, outcome),
            Input::ReloadScript => self.handle_reload(),
            Input::ReportAnswered { leader, managers, removed, orders, authorities } => {
                self.handle_report_answered(leader, managers, removed, orders, authorities);
            }
            Input::Seeds(more) => self.config.seeds.extend(more),
            Input::Papers(papers) => self.handle_papers(papers),
            Input::Removed => self.handle_removed(),
            Input::Shutdown => self.handle_shutdown(),
        }
        self.settle();
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Monotonic milliseconds at which `Input::Tick` is due.
    pub fn poll_deadline(&self) -> u64 {
        let mut due = u64::MAX;
        if let Some(consensus) = &self.consensus {
            due = due.min(self.ticked_at + consensus.ticks_until_due() * TICK_MS);
        }
        for candidate in [
            self.leading_deadline(),
            self.reads.deadline(),
            self.contact_deadline(),
            self.tasks_deadline(),
            self.script_deadline(),
            self.writes_deadline(),
            self.stopping_by,
        ] {
            due = due.min(candidate.unwrap_or(u64::MAX));
        }
        due.max(self.now.mono + 1).min(self.now.mono + 3_600_000)
    }

    /// The replicated state as applied here. For checks and views; changing it is `apply`'s alone.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Log index up to which the state stands.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The seat this node holds, with what raft says of it.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.consensus.as_ref()
    }

    fn feed_ticks(&mut self) {
        let due = (self.now.mono - self.ticked_at) / TICK_MS;
        self.ticked_at += due * TICK_MS;
        if let Some(consensus) = &mut self.consensus {
            for _ in 0..due.min(TICKS_FED_MAX) {
                consensus.tick();
            }
        }
    }

    /// Carries on until nothing more follows from what came in.
    fn settle(&mut self) {
        while !self.stopped {
            self.drain_consensus();
            self.compact();
            self.check_leadership();
            self.tend_tasks();
            self.tend_script();
            let more = self.lead() | self.ask_reads();
            if !more {
                break;
            }
        }
        self.expire();
        self.keep_in_touch();
        self.fit_keyring();
        self.refresh_access();
    }

    fn drain_consensus(&mut self) {
        while let Some(consensus) = &mut self.consensus {
            match consensus.poll() {
                Ok(Some(output)) => self.carry_out(output),
                Ok(None) => break,
                Err(error) => return self.stop(true, error.to_string()),
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        self.send(output.send);
        if let Some((number, batch)) = output.persist {
            self.numbers = number;
            self.effects.push_back(Effect::Persist { number, batch });
        }
        if let Some((index, data)) = output.restore {
            match State::decode(&data) {
                Ok(state) => {
                    self.state = state;
                    self.applied = index;
                    self.log(Level::Info, format!("took over the state as of log entry {index}: {} bytes from the leader", data.len()));
                    self.orders_changed();
                }
                Err(error) => return self.stop(true, format!("the leader's snapshot cannot be read: {error}")),
            }
        }
        let applied_before = self.applied;
        for entry in output.committed {
            self.applied = entry.index;
            match entry.content {
                Content::Command(bytes) => match codec::decode::<Proposal>(&bytes) {
                    Ok(proposal) => self.apply(entry.index, entry.term, proposal),
                    Err(error) => {
                        return self.stop(true, format!("log entry {} cannot be carried out by this build: {error}", entry.index));
                    }
                },
                Content::Membership(group) => {
                    self.state.seats_taken(|m| group.contains(m));
                    self.lost_write(entry.index);
                }
                Content::Empty => self.lost_write(entry.index),
            }
        }
        self.reads.confirmed(output.reads);
        if self.applied != applied_before || output.membership_changed {
            self.applied_at = self.now.mono;
            self.plan_soon();
            self.effects.push_back(Effect::Changed { index: self.applied, access: None });
        }
        self.answer_reads();
    }

    fn compact(&mut self) {
        let Some(consensus) = &mut self.consensus else { return };
        let long = consensus.entries_since_snapshot() >= ENTRIES_PER_SNAPSHOT;
        let big = consensus.log_bytes() > LOG_BYTES_MAX / 2 && consensus.entries_since_snapshot() > 0;
        // After a busy time the entries of it are memory that nobody needs: an idle node does not keep them until the next one.
        let quiet = self.now.mono >= self.applied_at + QUIET_MS && consensus.entries_since_snapshot() > QUIET_ENTRIES;
        if consensus.take_wants_snapshot() || long || big || quiet {
            consensus.compact(Arc::new(self.state.encode()));
        }
    }

    fn send(&mut self, outgoing: Vec<Outgoing>) {
        let mut by_member: BTreeMap<MemberId, Vec<Vec<u8>>> = BTreeMap::new();
        for message in outgoing {
            match message {
                Outgoing::Message { to, bytes } => by_member.entry(to).or_default().push(bytes),
                Outgoing::Snapshot { to, message, data } => {
                    if let Some((node, address)) = self.whereabouts(to) {
                        self.effects.push_back(Effect::SendSnapshot { node, address, to, message, data });
                    } else if let Some(consensus) = &mut self.consensus {
                        consensus.snapshot_sent(to, false);
                    }
                }
            }
        }
        for (to, messages) in by_member {
            if let Some((node, address)) = self.whereabouts(to) {
                self.effects.push_back(Effect::Send { node, address, to, messages });
            }
        }
    }

    fn whereabouts(&self, member: MemberId) -> Option<(NodeId, String)> {
        if let Some(node) = self.state.node_of_member(member) {
            return Some((node.id, node.address.clone()));
        }
        self.contact.whereabouts(member)
    }

    fn log(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Log { level, text });
    }

    fn stop(&mut self, failed: bool, why: String) {
        if !self.stopped {
            self.stopped = true;
            self.effects.push_back(Effect::Stop { failed, why });
        }
    }

    fn expire(&mut self) {
        self.expire_writes();
        self.expire_reads();
        if let Some(by) = self.stopping_by
            && (self.now.mono >= by || !self.has_to_wait())
        {
            self.stop(false, "asked to stop".into());
        }
    }
}
