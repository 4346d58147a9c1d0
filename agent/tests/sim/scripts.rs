//! A script in one line: `web 3 a;all every b` declares two services. Its calls take time, fail, and write when they may not.
//!
//! A hook's write carries the term that the hook ran in; it is sent late now and then, when another leader may have
//! been elected. The key it writes must never show an older term after a newer one.

use crate::{
    calls::Caller,
    counts::Count,
    mutants::Mutant,
    node::Body,
    rng::Rng,
    tasks::BROKEN,
    world::{Event, World},
};
use agent::model::{
    ids::RequestId,
    io::Input,
    query::{Op, Principal, Request},
    script::{Declaration, Hook, Registration, RegistrationKind, ScriptCall, ScriptReport},
    service::{PortSpec, Replicas, ServiceSpec, Update},
};
use std::{collections::BTreeMap, rc::Rc};

/// The key that hooks write their term to.
pub const FENCED: &str = "term";

/// Some modules; `wild` ones may hold what does not run.
pub fn write(rng: &mut Rng, wild: bool) -> BTreeMap<String, String> {
    let mut lines = Vec::new();
    for name in ["web", "db", "all"] {
        if rng.chance(200) {
            continue;
        }
        let program = if wild && rng.chance(150) { BROKEN } else { rng.pick(&["a", "b", "c"]).expect("not empty") };
        let copies = if name == "all" { "every".into() } else { rng.between(0, 4).to_string() };
        lines.push(format!("{name} {copies} {program} {} {}", rng.below(2), rng.between(1, 3)));
    }
    BTreeMap::from([("cluster.js".to_string(), lines.join(";"))])
}

fn declaration(text: &str) -> Declaration {
    let mut services = BTreeMap::new();
    for line in text.split(';').filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, copies, program, order, parallel] = words[..] else { panic!("a line of five words: {line}") };
        let replicas = copies.parse().map_or(Replicas::EveryNode, Replicas::Count);
        // A fixed port on each node, for one service that never has more copies than there may be nodes.
        let ports = if name == "all" { vec![PortSpec { port: 80, public: Some(80), udp: false }] } else { Vec::new() };
        let update = Update {
            start_first: order == "1",
            parallel: parallel.parse().expect("it was written as a number"),
            ..ServiceSpec::default().update
        };
        let spec = ServiceSpec { command: vec![program.into()], replicas, ports, update, ..ServiceSpec::default() };
        services.insert(name.to_string(), spec);
    }
    Declaration { services, keys: BTreeMap::new(), ..Declaration::default() }
}

impl World {
    pub fn script_called(&mut self, host: usize, life: u64, id: u64, call: ScriptCall) {
        self.note(45, host as u64, || format!("n{host} script {:?} in term {}", call.hook, call.term));
        self.counts.add(Count::ScriptCalls);
        let generation = self.machines[host].executor;
        let text = call.modules.files.get("cluster.js").cloned().unwrap_or_default();
        let outcome = if self.rng.chance(self.options.task_trouble / 2) {
            self.counts.add(Count::ScriptCallsFailed);
            Err("Error: by chance, at cluster.js:1".to_string())
        } else {
            let every = Registration { number: 0, kind: RegistrationKind::Every { interval_ms: 900 } };
            let on = Registration { number: 1, kind: RegistrationKind::On { event: "task.exited".into() } };
            Ok(match call.hook {
                Hook::Configure => {
                    ScriptReport { declared: Some(declaration(&text)), registrations: vec![every, on], ..ScriptReport::default() }
                }
                _ => ScriptReport::default(),
            })
        };
        if matches!(call.hook, Hook::Leader | Hook::Registered { .. } | Hook::Follower) {
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
        let id = RequestId { client: 2_000 + host as u64, sequence: self.id() };
        let op = Op::KvSet { key: FENCED.into(), value: term.to_string().into_bytes() };
        let principal = if self.mutant == Some(Mutant::ForgottenFence) { Principal::Admin } else { Principal::Script { term } };
        self.call(Caller::Script, Some(host), principal, Rc::new(Body::Ask(Request::Write { id, op })), 3_000);
    }
}
