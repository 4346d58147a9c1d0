//! Keeps this node's tasks as ordered: orders and what became of processes go in, calls to the runtime come out.
//!
//! A task starts only when three things are known: what lay on disk when the agent started (it may still run), what
//! the cluster wants (said by a leader in this life of the agent, not by old records), and that nothing runs here
//! which was moved elsewhere meanwhile. What runs already goes on running in any case.
//!
//! While too few nodes are there, orders say "hold": processes end or stand still, and nothing is started, until they
//! say otherwise.

use super::state::bounded;
use crate::model::{
    limits::EVENT_TEXT_BYTES_MAX,
    service::{RestartPolicy, ServiceSpec},
    task::{Exit, Hold, TaskCall, TaskEvent, TaskNumber, TaskOrder, TaskSeen, TaskState},
};
use std::collections::BTreeMap;

pub const BACKOFF_MS_MAX: u64 = 60_000;
/// After staying up this long a task's restarts are counted anew.
pub const STEADY_AFTER_MS: u64 = 60_000;

#[derive(Default)]
pub struct Keeper {
    orders: BTreeMap<TaskNumber, TaskOrder>,
    entries: BTreeMap<TaskNumber, Entry>,
    /// What came before the runtime had said everything that it found.
    early: Vec<(TaskNumber, TaskEvent)>,
    found: bool,
    trusted: bool,
}

struct Entry {
    order: TaskOrder,
    phase: Phase,
    restarts: u32,
    /// Since it last was steady.
    in_a_row: u32,
    pid: u32,
    /// It was told to stop because too few nodes are there, not for good.
    held: bool,
    /// Whether its processes stand still; unknown of one that was found running.
    paused: Option<bool>,
    ports: BTreeMap<u16, u16>,
    exit: Option<Exit>,
    error: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of it runs; to be started then, if it still may be.
    Waiting {
        until: u64,
    },
    /// `Start` was called and not answered yet.
    Starting,
    Up {
        since: u64,
        grace_passed: bool,
    },
    /// `Stop` was called, the end not seen yet.
    Stopping,
    /// Nothing of it runs while too few nodes are there.
    Held,
    /// Nothing of it runs, nor shall.
    Ended {
        failed: bool,
    },
}

impl Entry {
    fn new(order: TaskOrder, now: u64) -> Entry {
        let phase = Phase::Waiting { until: now };
        Entry {
            order,
            phase,
            restarts: 0,
            in_a_row: 0,
            pid: 0,
            held: false,
            paused: Some(false),
            ports: BTreeMap::new(),
            exit: None,
            error: String::new(),
        }
    }

    fn spec(&self) -> &ServiceSpec {
        &self.order.spec
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Up { .. } | Phase::Stopping)
    }

    fn seen(&self) -> TaskSeen {
        let state = match self.phase {
            Phase::Up { .. } if self.paused == Some(true) => TaskState::Paused,
            Phase::Held => TaskState::Held,
            Phase::Waiting { .. } | Phase::Starting | Phase::Up { grace_passed: false, .. } => TaskState::Starting,
            Phase::Up { grace_passed: true, .. } => TaskState::Running,
            Phase::Stopping => TaskState::Stopping,
            Phase::Ended { failed: false } => TaskState::Exited,
            Phase::Ended { failed: true } => TaskState::Failed,
        };
        let (exit, error, ports) = (self.exit, self.error.clone(), self.ports.clone());
        TaskSeen { number: self.order.number, state, exit, error, ports, restarts: self.restarts, pid: self.pid }
    }

    /// Processes that stand still would not hear the signal.
    fn stop(&mut self, number: TaskNumber, calls: &mut Vec<TaskCall>) {
        self.pause(number, false, calls);
        self.phase = Phase::Stopping;
        let (signal, timeout_ms) = (self.spec().stop_signal, self.spec().stop_timeout_ms);
        calls.push(TaskCall::Stop { number, signal, timeout_ms });
    }

    fn pause(&mut self, number: TaskNumber, on: bool, calls: &mut Vec<TaskCall>) {
        if self.paused != Some(on) {
            self.paused = Some(on);
            calls.push(TaskCall::Pause { number, on });
        }
    }

    /// It ended (or could not be started): what comes of it.
    fn over(&mut self, exit: Option<Exit>, why: String, now: u64) {
        let steady = matches!(self.phase, Phase::Up { since, .. } if now.saturating_sub(since) >= STEADY_AFTER_MS);
        let asked = self.phase == Phase::Stopping || !self.order.wanted;
        (self.exit, self.error, self.pid) = (exit, bounded(&why, EVENT_TEXT_BYTES_MAX), 0);
        self.ports.clear();
        if steady {
            self.in_a_row = 0;
        }
        let well = exit == Some(Exit::Code(0));
        let restart = self.spec().restart;
        let again = match restart.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !well,
            RestartPolicy::Never => false,
        };
        self.paused = Some(false);
        let held = std::mem::take(&mut self.held) && asked && self.order.wanted;
        self.phase = if held {
            // The hold may have ended before its process did.
            self.error.clear();
            if self.order.hold.is_some() { Phase::Held } else { Phase::Waiting { until: now } }
        } else if asked {
            self.error.clear();
            Phase::Ended { failed: false }
        } else if !again || restart.max.is_some_and(|max| self.in_a_row >= max) {
            Phase::Ended { failed: !well }
        } else {
            let wait = restart.backoff_ms.saturating_mul(1 << self.in_a_row.min(20)).min(BACKOFF_MS_MAX);
            self.in_a_row += 1;
            self.restarts += 1;
            Phase::Waiting { until: now + wait }
        };
    }
}

impl Keeper {
    pub fn new() -> Keeper {
        Keeper::default()
    }

    /// What this node is to run, whole. Orders it had before and that are not among these are void.
    pub fn set_orders(&mut self, orders: impl IntoIterator<Item = TaskOrder>) {
        self.orders = orders.into_iter().map(|order| (order.number, order)).collect();
        for (number, order) in &self.orders {
            if let Some(entry) = self.entries.get_mut(number) {
                // A task that is told to stop keeps the way of stopping that it was started with.
                if order.wanted {
                    entry.order = order.clone();
                } else {
                    entry.order.wanted = false;
                }
            }
        }
    }

    /// Whether the orders are a leader's word in this life of the agent: only then is anything started, and what no
    /// order speaks of ended.
    pub fn set_trusted(&mut self, trusted: bool) {
        self.trusted = trusted;
    }

    /// Whether there is anything to ask a leader about.
    pub fn has_work(&self) -> bool {
        self.found && !(self.orders.is_empty() && self.entries.is_empty())
    }

    /// Whether the tasks on disk are known, and so all that it says of its tasks is true.
    pub fn knows(&self) -> bool {
        self.found
    }

    /// Nothing that this agent looks after runs any more.
    pub fn is_idle(&self) -> bool {
        self.entries.values().all(|entry| !entry.runs())
    }

    /// The runtime has said everything that lay on disk.
    pub fn handle_found(&mut self, orders: Vec<TaskOrder>, now: u64) {
        self.found = true;
        for order in orders {
            let number = order.number;
            let order = self.orders.get(&number).filter(|o| o.wanted).cloned().unwrap_or(order);
            let mut entry = Entry::new(order, now);
            entry.order.wanted = self.orders.get(&number).is_none_or(|o| o.wanted);
            self.entries.entry(number).or_insert(entry);
        }
        for (number, event) in std::mem::take(&mut self.early) {
            self.handle(number, event, now);
        }
    }

    pub fn handle(&mut self, number: TaskNumber, event: TaskEvent, now: u64) {
        if !self.found {
            return self.early.push((number, event));
        }
        let Some(entry) = self.entries.get_mut(&number) else { return };
        match event {
            TaskEvent::Up { pid, ports, adopted } => {
                (entry.pid, entry.ports) = (pid, ports);
                entry.paused = if adopted { None } else { Some(false) };
                let grace_passed = adopted || entry.spec().grace_ms == 0;
                if entry.phase != Phase::Stopping {
                    entry.phase = Phase::Up { since: now, grace_passed };
                }
                if grace_passed {
                    entry.error.clear();
                }
            }
            TaskEvent::Ended(exit) => {
                let why = match exit {
                    Exit::Code(code) => format!("exit code {code}"),
                    Exit::Signal(signal) => format!("ended by signal {signal}"),
                    Exit::Unknown => "ended while nobody looked".into(),
                };
                entry.over(Some(exit), why, now);
            }
            TaskEvent::NotStarted { why } => entry.over(None, why, now),
        }
    }

    /// What the runtime is to do now.
    pub fn poll(&mut self, now: u64) -> Vec<TaskCall> {
        let mut calls = Vec::new();
        if !self.found {
            return calls;
        }
        self.drop_void(&mut calls);
        self.stop_unwanted(&mut calls);
        if self.trusted {
            self.hold(now, &mut calls);
        }
        self.pass_grace(now);
        // What was moved away ends before anything else begins.
        if self.trusted && !self.has_strays() {
            self.start(now, &mut calls);
        }
        calls
    }

    fn has_strays(&self) -> bool {
        self.entries.keys().any(|number| !self.orders.contains_key(number))
    }

    /// No order speaks of it any more, and nothing of it runs.
    fn drop_void(&mut self, calls: &mut Vec<TaskCall>) {
        if !self.trusted {
            return;
        }
        let orders = &self.orders;
        let void = self.entries.extract_if(.., |number, entry| !orders.contains_key(number) && !entry.runs());
        calls.extend(void.map(|(number, _)| TaskCall::Forget { number }));
    }

    fn stop_unwanted(&mut self, calls: &mut Vec<TaskCall>) {
        for (number, entry) in &mut self.entries {
            let wanted = match self.orders.get(number) {
                Some(order) => order.wanted,
                None => !self.trusted,
            };
            match entry.phase {
                _ if wanted => {}
                Phase::Up { .. } => {
                    entry.held = false;
                    entry.stop(*number, calls);
                }
                Phase::Waiting { .. } | Phase::Held => entry.phase = Phase::Ended { failed: false },
                // It is stopped once its start was answered.
                Phase::Starting | Phase::Stopping | Phase::Ended { .. } => {}
            }
        }
    }

    /// Stops, pauses or lets go on what is wanted, as the orders say.
    fn hold(&mut self, now: u64, calls: &mut Vec<TaskCall>) {
        for (number, order) in self.orders.iter().filter(|(_, order)| order.wanted) {
            let Some(entry) = self.entries.get_mut(number) else { continue };
            match (entry.phase, order.hold) {
                (Phase::Up { .. }, Some(Hold::Stop)) => {
                    entry.held = true;
                    entry.stop(*number, calls);
                }
                (Phase::Up { .. }, hold) => entry.pause(*number, hold == Some(Hold::Pause), calls),
                (Phase::Waiting { .. }, Some(_)) => entry.phase = Phase::Held,
                (Phase::Held, None) => entry.phase = Phase::Waiting { until: now },
                _ => {}
            }
        }
    }

    fn pass_grace(&mut self, now: u64) {
        for entry in self.entries.values_mut() {
            if let Phase::Up { since, grace_passed: false } = entry.phase
                && now >= since + entry.spec().grace_ms
            {
                entry.phase = Phase::Up { since, grace_passed: true };
                entry.error.clear();
                entry.exit = None;
            }
        }
    }

    fn start(&mut self, now: u64, calls: &mut Vec<TaskCall>) {
        for (number, order) in &self.orders {
            let entry = self.entries.entry(*number).or_insert_with(|| Entry::new(order.clone(), now));
            match entry.phase {
                Phase::Waiting { .. } if !order.wanted => entry.phase = Phase::Ended { failed: false },
                Phase::Waiting { .. } if order.hold.is_some() => entry.phase = Phase::Held,
                Phase::Waiting { until } if until <= now => {
                    entry.phase = Phase::Starting;
                    calls.push(TaskCall::Start { order: Box::new(order.clone()), restarts: entry.restarts });
                }
                _ => {}
            }
        }
    }

    /// Every task here as it is now.
    pub fn seen(&self) -> Vec<TaskSeen> {
        self.entries.values().map(Entry::seen).collect()
    }

    /// When `poll` has something to do by itself.
    pub fn deadline(&self) -> Option<u64> {
        let may_start = self.found && self.trusted && !self.has_strays();
        let due = |entry: &Entry| match entry.phase {
            Phase::Waiting { until } if may_start => Some(until),
            Phase::Up { since, grace_passed: false } => Some(since + entry.spec().grace_ms),
            _ => None,
        };
        self.entries.values().filter_map(due).min()
    }
}
