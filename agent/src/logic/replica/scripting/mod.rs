//! The cluster's script, as the leader runs it: when which hook is called, and what becomes of the answer.
//!
//! The script itself runs elsewhere; here is only its timetable. `configure` runs once per term and per version of the
//! modules, `leader` once a term; timers, events and changed keys call what `configure` registered. One such call at a
//! time, and beside it one that a person waits for (`asked`): a hook may wait for minutes. A call that fails is told to
//! people and tried again later; whatever a script wants to change carries the term it ran in, so that nothing of a
//! deposed leader's script takes effect.

mod asked;

use super::{
    Replica,
    requests::{Refusal, no_room},
};
use crate::{
    logic::{
        plan,
        state::{bounded, digest},
    },
    model::{
        codec,
        command::Command,
        event::Event,
        ids::Ticket,
        io::{Effect, Level},
        limits::{DECLARATION_BYTES_MAX, EVERY_MS_MIN, REGISTRATIONS_MAX, SCRIPT_CALLS_MAX, SCRIPT_ERROR_BYTES_MAX},
        query::Answer,
        script::{Declaration, Hook, ModuleSet, Registration, RegistrationKind, ScriptCall, ScriptReport},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

const RETRY_MS_MIN: u64 = 1_000;
const RETRY_MS_MAX: u64 = 60_000;
/// A timer whose function fails rests: this long at first, twice as long each further time.
const REST_MS_MIN: u64 = 200;

#[derive(Default)]
pub(super) struct Scripting {
    ids: u64,
    in_flight: Option<(u64, Job)>,
    queue: VecDeque<Job>,
    /// What people wait for.
    asked_in_flight: Option<(u64, Job)>,
    asked: VecDeque<Job>,
    /// The term it runs for; none while this node does not lead (and settled).
    term: Option<u64>,
    /// Version of the modules whose `configure` went well in this term.
    configured: Option<u64>,
    loaded: Option<Arc<ModuleSet>>,
    /// Failures in a row of what must succeed once (`configure`, `leader`), and when it is tried again.
    failures: u32,
    retry_at: u64,
    /// What set the error that people see: its success clears it.
    failing: Option<Hook>,
    registered: Vec<Registration>,
    /// When each `every` is due next, and how often in a row it failed.
    timers: BTreeMap<u32, u64>,
    timer_failures: BTreeMap<u32, u32>,
    /// The newest event that was looked at.
    event: u64,
    /// Watched keys and the version last seen.
    keys: BTreeMap<String, Option<u64>>,
    dropped: u64,
}

#[derive(Clone)]
struct Job {
    hook: Hook,
    purpose: Purpose,
}

#[derive(Clone)]
enum Purpose {
    /// Its result goes into the log.
    Cluster,
    /// Somebody wants to see it only.
    Plan(Ticket, Arc<ModuleSet>),
    Eval(Ticket),
    /// The last words of a term that is over.
    Farewell(u64),
}

impl Job {
    fn cluster(hook: Hook) -> Job {
        Job { hook, purpose: Purpose::Cluster }
    }

    fn ticket(&self) -> Option<Ticket> {
        match self.purpose {
            Purpose::Plan(ticket, _) | Purpose::Eval(ticket) => Some(ticket),
            Purpose::Cluster | Purpose::Farewell(_) => None,
        }
    }
}

impl Replica {
    /// SIGHUP: the modules are evaluated and `configure` runs again.
    pub(super) fn handle_reload(&mut self) {
        if self.script.term.is_none() {
            return self.log(Level::Info, "this node does not lead: the script runs on the leader".into());
        }
        self.begin_anew();
    }

    /// The executor ends; what the script left here is void.
    fn begin_anew(&mut self) {
        self.effects.push_back(Effect::ScriptEnd);
        let script = &mut self.script;
        script.in_flight = None;
        if let Some((_, interrupted)) = script.asked_in_flight.take() {
            script.asked.push_front(interrupted);
        }
        script.queue.clear();
        script.configured = None;
        (script.failures, script.retry_at) = (0, 0);
        script.registered.clear();
        script.timers.clear();
        script.timer_failures.clear();
        script.keys.clear();
    }

    /// Called at every step: begins and ends the script's term, and makes the next call that is due.
    pub(super) fn tend_script(&mut self) {
        let term = self.consensus.as_ref().map(|c| c.term()).filter(|_| self.leads_settled());
        if self.script.term != term {
            if let Some(old) = self.script.term.take() {
                self.script_stepped_down(old);
            }
            if term.is_some() {
                self.script_leads(term);
            }
        }
        if term.is_some() {
            self.notice_new_modules();
            self.fire();
        }
        if self.script.in_flight.is_none()
            && let Some(job) = self.next_job()
        {
            self.call_script(job);
        }
        if self.script.asked_in_flight.is_none()
            && let Some(job) = self.script.asked.pop_front()
        {
            self.call_script(job);
        }
    }

    fn script_leads(&mut self, term: Option<u64>) {
        // Events from this term's beginning on: its first is `leader`.
        let first = self.state.events.iter().rev().find(|e| e.name == "leader").map_or(self.state.next_event, |e| e.id);
        let ids = self.script.ids;
        let farewell = self.script.in_flight.take();
        self.script = Scripting { term, event: first.saturating_sub(1), ids, ..Scripting::default() };
        if farewell.is_some() {
            self.effects.push_back(Effect::ScriptEnd);
        }
    }

    fn script_stepped_down(&mut self, old: u64) {
        let script = std::mem::take(&mut self.script);
        self.script.ids = script.ids;
        let open = script.asked_in_flight.into_iter().map(|(_, job)| job).chain(script.asked);
        for ticket in open.filter_map(|job| job.ticket()).collect::<Vec<_>>() {
            self.reply(ticket, Answer::Unavailable { why: "this node is no longer the leader; ask again".into() });
        }
        self.effects.push_back(Effect::ScriptEnd);
        if script.loaded.is_none() || self.stopped {
            return;
        }
        self.script.loaded = script.loaded;
        let farewell = |hook| Job { hook, purpose: Purpose::Farewell(old) };
        self.script.queue.push_back(farewell(Hook::Follower));
        for registration in script.registered {
            if registration.kind == (RegistrationKind::On { event: "follower".into() }) {
                let argument = json_event(&Event {
                    id: 0,
                    at_ms: self.now.wall,
                    name: "follower".into(),
                    subject: self.config.name.clone(),
                    text: String::new(),
                });
                self.script.queue.push_back(farewell(Hook::Registered { number: registration.number, argument }));
            }
        }
    }

    fn notice_new_modules(&mut self) {
        let loaded = self.script.loaded.as_ref().map_or(0, |set| set.version);
        if loaded == self.state.script.version {
            return;
        }
        if loaded != 0 {
            self.begin_anew();
        }
        self.script.loaded = self.state.script.current().cloned().map(Arc::new);
    }

    /// Timers, events and keys whose time has come.
    fn fire(&mut self) {
        let now = self.now.mono;
        let mut due: Vec<(u32, String)> = Vec::new();
        // Ids count up, and seldom is any event new.
        let seen = self.state.events.partition_point(|e| e.id <= self.script.event);
        let new_events = self.state.events.iter().skip(seen);
        for registration in &self.script.registered {
            let number = registration.number;
            match &registration.kind {
                RegistrationKind::Every { interval_ms } => {
                    let Some(at) = self.script.timers.get(&number).copied() else { continue };
                    if at <= now {
                        self.script.timers.insert(number, (at + interval_ms).max(now + 1));
                        due.push((number, "null".into()));
                    }
                }
                RegistrationKind::On { event } => {
                    due.extend(new_events.clone().filter(|e| e.name == *event).map(|e| (number, json_event(e))));
                }
                RegistrationKind::Key { name } => {
                    let version = self.state.kv.get(name).map(|record| record.version);
                    if self.script.keys.get(name).is_some_and(|seen| *seen != version) {
                        due.push((
                            number,
                            self.state.kv.get(name).map_or("null".into(), |r| json_string(&String::from_utf8_lossy(&r.value))),
                        ));
                    }
                }
            }
        }
        if self.script.configured.is_some() {
            self.script.event = self.state.next_event.saturating_sub(1);
        }
        for (name, seen) in &mut self.script.keys {
            *seen = self.state.kv.get(name).map(|record| record.version);
        }
        for (number, argument) in due {
            self.enqueue(Hook::Registered { number, argument });
        }
    }

    /// A timer that still waits for its last turn gets no second one; when all is full the oldest goes.
    fn enqueue(&mut self, hook: Hook) {
        let script = &mut self.script;
        let running = script.in_flight.iter().map(|(_, job)| &job.hook);
        let is_tick = matches!(&hook, Hook::Registered { number, .. } if script.timers.contains_key(number));
        if is_tick && running.chain(script.queue.iter().map(|job| &job.hook)).any(|waiting| *waiting == hook) {
            return;
        }
        if script.queue.len() >= SCRIPT_CALLS_MAX {
            let oldest = script.queue.iter().position(|job| matches!(job.hook, Hook::Registered { .. }));
            let Some(oldest) = oldest else { return };
            script.queue.remove(oldest);
            script.dropped += 1;
            if script.dropped.is_power_of_two() {
                let text = format!("the script is too slow: {} of its calls were dropped so far in this term", script.dropped);
                self.log(Level::Warn, text);
            }
        }
        self.script.queue.push_back(Job::cluster(hook));
    }

    fn next_job(&mut self) -> Option<Job> {
        let script = &self.script;
        if let (Some(term), Some(set)) = (script.term, &script.loaded)
            && self.now.mono >= script.retry_at
        {
            if script.configured != Some(set.version) {
                return Some(Job::cluster(Hook::Configure));
            }
            if self.state.script.led_term < term && self.state.script.applied == set.version {
                return Some(Job::cluster(Hook::Leader));
            }
        }
        self.script.queue.pop_front()
    }

    fn call_script(&mut self, job: Job) {
        let modules = match &job.purpose {
            Purpose::Plan(_, set) => set.clone(),
            _ => self.script.loaded.clone().unwrap_or_default(),
        };
        let term = match job.purpose {
            Purpose::Farewell(old) => old,
            _ => self.script.term.unwrap_or(0),
        };
        self.script.ids += 1;
        let (id, hook) = (self.script.ids, job.hook.clone());
        let slot = if job.ticket().is_some() { &mut self.script.asked_in_flight } else { &mut self.script.in_flight };
        *slot = Some((id, job));
        self.effects.push_back(Effect::Script { id, call: ScriptCall { modules, term, hook } });
    }

    pub(super) fn handle_scripted(&mut self, id: u64, outcome: Result<ScriptReport, String>) {
        // Anything else was interrupted, and no longer counts.
        let own = self.script.in_flight.take_if(|(waiting, _)| *waiting == id);
        let Some((_, job)) = own.or_else(|| self.script.asked_in_flight.take_if(|(waiting, _)| *waiting == id)) else { return };
        match job.purpose {
            Purpose::Plan(ticket, _) => {
                let answer = match outcome {
                    Ok(report) => {
                        let changes = plan::changes(&self.state, &report.declared.unwrap_or_default());
                        Answer::Planned { changes, error: String::new() }
                    }
                    Err(error) => Answer::Planned { changes: Vec::new(), error },
                };
                self.reply(ticket, answer);
            }
            Purpose::Eval(ticket) => {
                let (value, error) = match outcome {
                    Ok(report) => (report.value, String::new()),
                    Err(error) => (String::new(), error),
                };
                self.reply(ticket, Answer::Evaluated { value, error });
            }
            Purpose::Farewell(_) => {
                if let Err(error) = outcome {
                    self.log(Level::Warn, format!("the script failed after stepping down: {error}"));
                }
                if self.script.queue.is_empty() {
                    self.script.loaded = None;
                    self.effects.push_back(Effect::ScriptEnd);
                }
            }
            Purpose::Cluster => match outcome {
                Ok(report) => self.script_went_well(job.hook, report),
                Err(error) => self.script_failed(job.hook, error),
            },
        }
    }

    fn script_went_well(&mut self, hook: Hook, report: ScriptReport) {
        if matches!(hook, Hook::Configure | Hook::Leader) {
            (self.script.failures, self.script.retry_at) = (0, 0);
        }
        let failed = self.script.failing.take_if(|failing| same_hook(failing, &hook)).is_some();
        if failed || (hook == Hook::Configure && !self.state.script.error.is_empty()) {
            self.propose_for_script(Command::ScriptError(String::new()));
        }
        for number in &report.stopped {
            self.script.timers.remove(number);
        }
        if hook == Hook::Configure {
            // What failed before belongs to a script that is over.
            self.script.failing = None;
        }
        match hook {
            Hook::Configure => self.configured(report),
            Hook::Registered { number, .. } => {
                self.script.timer_failures.remove(&number);
            }
            Hook::Leader => {
                if let Some(term) = self.script.term {
                    self.propose_for_script(Command::ScriptLed(term));
                    // Not again before that is applied.
                    self.script.retry_at = self.now.mono + RETRY_MS_MIN;
                }
            }
            _ => {}
        }
    }

    fn configured(&mut self, report: ScriptReport) {
        let Some(version) = self.script.loaded.as_ref().map(|set| set.version) else { return };
        let (now, script) = (self.now.mono, &mut self.script);
        script.configured = Some(version);
        script.registered = report.registrations;
        script.registered.truncate(REGISTRATIONS_MAX);
        for registration in &mut script.registered {
            match &mut registration.kind {
                RegistrationKind::Every { interval_ms } => {
                    *interval_ms = (*interval_ms).max(EVERY_MS_MIN);
                    script.timers.insert(registration.number, now + *interval_ms);
                }
                RegistrationKind::Key { name } => {
                    script.keys.insert(name.clone(), self.state.kv.get(name).map(|record| record.version));
                }
                RegistrationKind::On { .. } => {}
            }
        }
        self.declare(version, report.declared.unwrap_or_default());
    }

    fn declare(&mut self, version: u64, declaration: Declaration) {
        let bytes = codec::encode(&declaration).len();
        if bytes > DECLARATION_BYTES_MAX {
            // The log would not take it, and nothing would come back to say so.
            return self.declaration_refused(format!("what is declared takes {bytes} bytes, the most is {DECLARATION_BYTES_MAX}"));
        }
        let known = &self.state.script;
        if known.applied != version || known.digest != digest(&declaration) {
            self.propose_for_script(Command::Declare { version, declaration: Box::new(declaration) });
        }
    }

    /// What the script declared could not be carried out, and why.
    pub(super) fn declaration_refused(&mut self, why: String) {
        if self.script.term.is_some() {
            self.script_failed(Hook::Configure, why);
            // The same would be refused again: only other modules, or a reload, help.
            self.script.retry_at = u64::MAX;
        }
    }

    fn script_failed(&mut self, hook: Hook, error: String) {
        self.log(Level::Warn, format!("the script failed: {error}"));
        if matches!(hook, Hook::Configure | Hook::Leader) {
            self.script.failures += 1;
            self.script.retry_at = self.now.mono + (RETRY_MS_MIN << (self.script.failures - 1).min(10)).min(RETRY_MS_MAX);
        }
        if let Hook::Registered { number, .. } = hook
            && let Some(due) = self.script.timers.get_mut(&number)
        {
            let failures = self.script.timer_failures.entry(number).or_default();
            *due = (*due).max(self.now.mono + (REST_MS_MIN << (*failures).min(20)).min(RETRY_MS_MAX));
            *failures += 1;
        }
        self.script.failing = Some(hook);
        let error = if error.is_empty() { "it ended without a word".into() } else { bounded(&error, SCRIPT_ERROR_BYTES_MAX) };
        if self.state.script.error != error {
            self.propose_for_script(Command::ScriptError(error));
        }
    }

    fn propose_for_script(&mut self, command: Command) {
        let Some(term) = self.script.term else { return };
        let declares = matches!(command, Command::Declare { .. });
        let refused = self.propose(None, Some(term), command).err();
        if let Some(Refusal::NoRoom(taken)) = refused
            && declares
        {
            self.script.configured = None;
            self.script_failed(Hook::Configure, no_room(taken));
        } else if refused.is_some() {
            // As if the run had failed: it is repeated.
            self.script.configured = None;
            self.script.retry_at = self.now.mono + RETRY_MS_MIN;
        }
    }

    pub(super) fn script_deadline(&self) -> Option<u64> {
        let script = &self.script;
        script.term?;
        let unfinished = script.in_flight.is_none()
            && script.loaded.as_ref().is_some_and(|set| {
                let led = script.term.is_some_and(|term| self.state.script.led_term >= term);
                script.configured != Some(set.version) || !led
            });
        let retry = unfinished.then_some(script.retry_at).filter(|at| *at > self.now.mono);
        script.timers.values().copied().chain(retry).min()
    }
}

fn same_hook(one: &Hook, other: &Hook) -> bool {
    match (one, other) {
        (Hook::Registered { number: a, .. }, Hook::Registered { number: b, .. }) => a == b,
        _ => one == other,
    }
}

fn json_event(event: &Event) -> String {
    let Event { id, at_ms, name, subject, text } = event;
    format!(
        "{{\"id\":{id},\"at\":{at_ms},\"name\":{},\"subject\":{},\"text\":{}}}",
        json_string(name),
        json_string(subject),
        json_string(text)
    )
}

/// RFC 8259, section 7.
fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if (c as u32) < 0x20 => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
