//! A script in one line: `web 3 a …;all every b …` declares two services. Its calls take time, fail, and write when they may not.
//!
//! A hook's write carries the term that the hook ran in; it is sent late now and then, when another leader may have
//! been elected. Whatever of it takes effect must stand at an entry of that very term.

use crate::{
    calls::Caller,
    clients::WATCHED,
    counts::Count,
    mutants::Mutant,
    node::Body,
    rng::Rng,
    services,
    tasks::BROKEN,
    world::{Event, World},
};
use agent::model::{
    ids::RequestId,
    io::Input,
    query::{Answer, Op, Principal, Request},
    script::{Declaration, Hook, Registration, RegistrationKind, ScriptCall, ScriptReport},
    service::{PortSpec, Replicas, ServiceSpec, Update},
};
use std::{collections::BTreeMap, rc::Rc};

/// The key that hooks write their term to.
pub const FENCED: &str = "term";
/// A service that only hooks declare.
const EXTRA: &str = "extra";
/// What the script registers, in this order.
const REGISTERED: [Count; 3] = [Count::TimersFired, Count::EventsHeard, Count::KeyChangesHeard];

/// Some modules; `wild` ones may hold what does not run. Those that are not run a program that was never there before.
pub fn write(rng: &mut Rng, wild: bool) -> BTreeMap<String, String> {
    let mut lines = Vec::new();
    for name in ["web", "db", "all"] {
        if rng.chance(200) {
            continue;
        }
        let program = match wild {
            true if rng.chance(150) => BROKEN,
            true => rng.pick(&["a", "b", "c"]).expect("not empty"),
            false => "final",
        };
        let copies = if name == "all" { "every".into() } else { services::copies(rng).to_string() };
        let memory_mib = if name == "all" { 0 } else { *rng.pick(&[0, 0, 300, 700]).expect("not empty") };
        let zone = if name == "db" { *rng.pick(&["-", "-", "a", "b"]).expect("not empty") } else { "-" };
        let deadline_s = if wild && rng.chance(200) { 5 } else { 300 };
        let (order, parallel, rollback) = (rng.below(2), rng.between(1, 3), rng.below(2));
        lines.push(format!("{name} {copies} {program} {order} {parallel} {rollback} {memory_mib} {zone} {deadline_s}"));
    }
    BTreeMap::from([("cluster.js".to_string(), lines.join(";"))])
}

fn declaration(text: &str) -> Declaration {
    let mut services = BTreeMap::new();
    for line in text.split(';').filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, copies, program, order, parallel, rollback, memory_mib, zone, deadline_s] = words[..] else {
            panic!("a line of nine words: {line}")
        };
        let number = |word: &str| word.parse::<u64>().expect("it was written as a number");
        let replicas = copies.parse().map_or(Replicas::EveryNode, Replicas::Count);
        // A fixed port on each node, for one service that never has more copies than there may be nodes.
        let ports = if name == "all" { vec![PortSpec { port: 80, public: Some(80), udp: false }] } else { Vec::new() };
        let update = Update {
            start_first: order == "1",
            parallel: number(parallel) as u32,
            rollback: rollback == "1",
            deadline_ms: number(deadline_s) * 1000,
        };
        let memory = Some(number(memory_mib) << 20).filter(|bytes| *bytes > 0);
        let cpus_milli = (name == "db").then_some(400);
        let labels = if zone == "-" { BTreeMap::new() } else { BTreeMap::from([("zone".to_string(), zone.to_string())]) };
        let spec =
            ServiceSpec { command: vec![program.into()], replicas, ports, update, memory, cpus_milli, labels, ..ServiceSpec::default() };
        services.insert(name.to_string(), spec);
    }
    Declaration { services, keys: BTreeMap::from([("declared".to_string(), text.to_string())]), ..Declaration::default() }
}

impl World {
    pub fn script_called(&mut self, host: usize, life: u64, id: u64, call: ScriptCall) {
        self.note(45, host as u64, || format!("n{host} script {:?} in term {}", call.hook, call.term));
        self.counts.add(Count::ScriptCalls);
        self.counts.add(match &call.hook {
            Hook::Configure => Count::Configured,
            Hook::Leader => Count::LeaderHooks,
            Hook::Follower => Count::FollowerHooks,
            Hook::Eval { .. } => Count::Evaluated,
            Hook::Registered { number, .. } => REGISTERED[*number as usize],
        });
        let generation = self.machines[host].executor;
        let text = call.modules.files.get("cluster.js").cloned().unwrap_or_default();
        let outcome = if self.rng.chance(self.options.task_trouble / 2) {
            self.counts.add(Count::ScriptCallsFailed);
            Err("Error: by chance, at cluster.js:1".to_string())
        } else {
            Ok(match &call.hook {
                Hook::Configure => {
                    ScriptReport { declared: Some(declaration(&text)), registrations: registrations(), ..ScriptReport::default() }
                }
                Hook::Eval { expression } => ScriptReport { value: expression.clone(), ..ScriptReport::default() },
                _ => ScriptReport::default(),
            })
        };
        if matches!(call.hook, Hook::Leader | Hook::Registered { .. } | Hook::Follower) && !self.workload.quiet {
            self.write_fenced(host, call.term);
        }
        let takes = if self.rng.chance(50) { 3_000 } else { 50 };
        self.later((1, takes), Event::Scripted { host, life, generation, input: Box::new(Input::Scripted { id, outcome }) });
    }

    pub fn script_ends(&mut self, host: usize) {
        self.machines[host].executor += 1;
    }

    pub fn scripted(&mut self, host: usize, generation: u64, input: Input) {
        if generation == self.machines[host].executor {
            self.input(host, input);
        }
    }

    fn write_fenced(&mut self, host: usize, term: u64) {
        let late = if self.rng.chance(300) { 6_000 } else { 20 };
        self.later((1, late), Event::FencedWrite { host, term });
    }

    /// From the executor to the agent beside it, whoever leads by now.
    pub fn fenced_write(&mut self, host: usize, term: u64) {
        if self.workload.quiet {
            return;
        }
        let id = RequestId { client: 2_000 + host as u64, sequence: self.id() };
        let dice = if self.workload.patient { 99 } else { self.rng.below(100) };
        let op = match dice {
            0..8 => Op::ServiceScale { name: "web".into(), replicas: services::copies(&mut self.rng) as u32 },
            8..14 => {
                let spec = ServiceSpec { command: vec!["x".into()], replicas: Replicas::Count(1), ..ServiceSpec::default() };
                Op::ServiceSet { name: EXTRA.into(), spec: Box::new(spec) }
            }
            14..18 => Op::ServiceRemove(EXTRA.into()),
            _ => Op::KvSet { key: FENCED.into(), value: term.to_string().into_bytes() },
        };
        let principal =
            if self.mutant == Some(Mutant::StaleTermScriptCommandAccepted) { Principal::Admin } else { Principal::Script { term } };
        self.call(Caller::Script { term }, Some(host), principal, Rc::new(Body::Ask(Request::Write { id, op })), 3_000);
    }

    pub fn script_hears(&mut self, term: u64, answer: Option<Answer>) {
        match answer {
            Some(Answer::Written { index, .. }) => {
                self.counts.add(Count::FencedWrites);
                self.checkers.logs.scripted(index, term);
            }
            Some(Answer::Refused { code: "stale", .. }) => self.counts.add(Count::FencedRefused),
            _ => {}
        }
    }

    /// `disco eval` and `disco plan`, by somebody who only looks.
    pub fn ask_script(&mut self) {
        let to = self.any_host();
        let request = match self.rng.below(2) {
            0 => Request::Eval { expression: "1 + 1".into() },
            _ => Request::Plan { modules: Some(write(&mut self.rng, true)) },
        };
        self.counts.add(Count::ScriptAsked);
        self.call(Caller::Onlooker, to, Principal::Admin, Rc::new(Body::Ask(request)), 8_000);
    }

    pub fn onlooker_hears(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer::Evaluated { value, error }) => {
                assert!(!error.is_empty() || value == "1 + 1", "violation: an expression came back as {value}");
                self.counts.add(Count::ScriptAnswers);
            }
            Some(Answer::Planned { .. }) => self.counts.add(Count::ScriptAnswers),
            None | Some(Answer::Busy | Answer::Unavailable { .. } | Answer::Elsewhere { .. }) => {}
            Some(other) => panic!("violation: an onlooker got {other:?}"),
        }
    }
}

fn registrations() -> Vec<Registration> {
    let kinds = [
        RegistrationKind::Every { interval_ms: 900 },
        RegistrationKind::On { event: "task.exited".into() },
        RegistrationKind::Key { name: WATCHED.into() },
    ];
    (0..).zip(kinds).map(|(number, kind)| Registration { number, kind }).collect()
}
