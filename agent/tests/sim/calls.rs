//! Calls: a request goes there, an answer comes back, and either may be lost or come twice.
//!
//! What the daemon's thin layers do with an answer is here too: a follower's "elsewhere" is forwarded to the leader, a
//! joiner asks the next seed, a report goes down its list.

use crate::{
    counts::Count,
    mutants::Mutant,
    network::{Endpoint, Fate},
    node::{Asked, Body, Process},
    papers::Held,
    world::{Event, World},
};
use agent::model::{
    ids::{MemberId, NodeId, Ticket},
    io::Input,
    query::{Answer, Principal, Report, Request, Way},
};
use std::rc::Rc;

/// As the driver has it.
const REPORT_TRIES_MAX: usize = 12;
/// How often a person looks for the answer.
const ASKED_EVERY_MS: u64 = 10;

pub struct Call {
    pub caller: Caller,
    to: usize,
}

#[derive(Clone)]
pub enum Caller {
    /// A client of the workload.
    Client(usize),
    /// The administrator of the workload.
    Admin,
    /// Whoever performs a play, or a person in an ending.
    Stage,
    /// A hook of the script, which ran in this term.
    Script {
        term: u64,
    },
    /// Somebody who asks what the script would say.
    Onlooker,
    /// Somebody with a token and another key.
    Thief {
        secret: String,
        key: Vec<u8>,
    },
    Join {
        host: usize,
        life: u64,
    },
    Report(Reporting),
    Enlist {
        host: usize,
        life: u64,
        node: NodeId,
        member: MemberId,
    },
    Discharge {
        host: usize,
        life: u64,
        node: NodeId,
        member: MemberId,
    },
    /// A follower on behalf of somebody who asked it.
    Forward {
        host: usize,
        life: u64,
        asked: Asked,
    },
}

/// A report on its way down a list.
#[derive(Clone)]
pub struct Reporting {
    host: usize,
    life: u64,
    report: Report,
    left: Vec<Way>,
    /// The newest one waits for its answer.
    asked: Vec<Way>,
    /// Who leads, by the word of a manager of whom this is all there is to hear.
    directed: Option<(NodeId, String)>,
}

impl Caller {
    pub fn process(&self) -> Option<(usize, Option<u64>)> {
        match self {
            Caller::Client(_) | Caller::Admin | Caller::Stage | Caller::Script { .. } | Caller::Onlooker | Caller::Thief { .. } => None,
            Caller::Join { host, life }
            | Caller::Report(Reporting { host, life, .. })
            | Caller::Enlist { host, life, .. }
            | Caller::Discharge { host, life, .. }
            | Caller::Forward { host, life, .. } => Some((*host, Some(*life))),
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.process().map_or(Endpoint::Outside, |(host, _)| Endpoint::Host(host))
    }

    fn carries_keyring(&self) -> bool {
        matches!(self, Caller::Enlist { .. } | Caller::Discharge { .. })
    }
}

impl World {
    /// One attempt. Its caller hears an answer or, after `timeout` at the latest, that there is none.
    pub fn call(&mut self, caller: Caller, to: Option<usize>, principal: Principal, body: Rc<Body>, timeout: u64) -> u64 {
        let call = self.id();
        let from = caller.endpoint();
        let forwarded = matches!(caller, Caller::Forward { .. });
        let keyring = caller.carries_keyring();
        self.calls.insert(call, Call { caller, to: to.unwrap_or(0) });
        self.at(self.now + timeout, Event::CallReturn { call, answer: None });
        let Some(to) = to.filter(|host| self.is_up(*host)) else {
            // Connection refused, or nothing at all.
            if self.rng.chance(600) {
                self.later((1, 20), Event::CallReturn { call, answer: None });
            }
            return call;
        };
        // Answers come back on the connection that the caller made.
        let met = self.believe_each_other(from, Endpoint::Host(to));
        let carried = self.carry(from, Endpoint::Host(to), self.options.call_loss);
        let fate = if met { carried } else { Fate::Lost { cut: true } };
        let arrive =
            |body: &Rc<Body>| Event::CallArrive { host: to, call, from, principal: principal.clone(), body: body.clone(), forwarded };
        match fate {
            Fate::Lost { .. } => {
                self.counts.add(Count::CallsLost);
                if keyring {
                    self.counts.add(Count::KeyringCallsLost);
                }
            }
            Fate::Once(first) => self.at(first, arrive(&body)),
            Fate::Twice(first, second) => {
                self.at(first, arrive(&body));
                self.at(second, arrive(&body));
            }
        }
        call
    }

    /// One call of a person at a machine (or at whoever leads), and the world goes on until it ends.
    pub fn ask(&mut self, host: Option<usize>, request: Request, patience_ms: u64) -> Option<Answer> {
        let to = host.or_else(|| self.leader());
        self.heard = None;
        self.call(Caller::Stage, to, Principal::Admin, Rc::new(Body::Ask(request)), patience_ms);
        let end = self.now + patience_ms;
        while self.heard.is_none() && self.now <= end {
            self.run_until(self.now + ASKED_EVERY_MS);
        }
        self.heard.take().flatten()
    }

    pub fn call_arrives(&mut self, host: usize, call: u64, from: Endpoint, principal: Principal, body: Rc<Body>, forwarded: bool) {
        let ticket = Ticket(self.id());
        let sender = match from {
            Endpoint::Host(host) => Some(self.machines[host].identity.node),
            Endpoint::Outside => None,
        };
        let Some(running) = self.machines[host].running() else { return };
        // The gate of the API: who is not known is refused, and only managers hand out seats.
        let admitted = match &*body {
            Body::Enlist { from, .. } | Body::Discharge { from, .. } => running.knows_as_manager(*from),
            Body::Ask(Request::Report(report)) => running.knows(report.node) || running.removed.contains(&report.node),
            Body::Ask(Request::Join { .. }) => true,
            Body::Ask(_) => sender.is_none_or(|sender| running.knows_as_manager(sender)),
        };
        if let (false, Body::Ask(Request::Report(_)), Some(access)) = (admitted, &*body, &running.access)
            && let Some((leader, address)) = access.leader.clone()
        {
            self.counts.add(Count::StrangersDirected);
            return self.at(self.now + 1, Event::CallReturn { call, answer: Some(Answer::Elsewhere { leader, address }) });
        }
        if !admitted {
            return self.at(self.now + 1, Event::CallReturn { call, answer: None });
        }
        let body = match &*body {
            Body::Ask(Request::Join { secret, node }) if self.mutant == Some(Mutant::TokenNotBoundToItsKey) => {
                let holder = self.machines.iter().position(|machine| machine.identity.secret == *secret);
                let node = holder.map_or(node.clone(), |holder| self.joiner(holder));
                Rc::new(Body::Ask(Request::Join { secret: secret.clone(), node }))
            }
            _ => body,
        };
        let Some(running) = self.machines[host].running() else { return };
        let asked = Asked { call, from, principal: principal.clone(), body: body.clone(), forwarded };
        running.tickets.insert(ticket, asked);
        let input = match &*body {
            Body::Ask(request) => Input::Request { ticket, principal, request: request.clone() },
            Body::Enlist { from, member, keyring } => Input::Enlist { ticket, from: *from, member: *member, keyring: keyring.clone() },
            Body::Discharge { from, member } => Input::Discharge { ticket, from: *from, member: *member },
        };
        self.note(4, host as u64, || format!("n{host} is asked {}", brief(&body)));
        self.input(host, input);
        if from == Endpoint::Outside && self.rng.chance(5) {
            self.counts.add(Count::Cancelled);
            let life = Some(self.machines[host].life);
            self.at(self.now, Event::Tell { host, life, input: Input::Cancelled { ticket } });
        }
    }

    /// `Effect::Reply`.
    pub fn reply(&mut self, host: usize, ticket: Ticket, answer: Answer) {
        let Some(running) = self.machines[host].running() else { return };
        let Some(asked) = running.tickets.remove(&ticket) else {
            panic!("violation: n{host} answered ticket {} twice, or one it was never given: {answer:?}", ticket.0);
        };
        if let (Answer::Elsewhere { address, .. }, Body::Ask(request)) = (&answer, &*asked.body) {
            // One hop: two nodes that each take the other for the leader must not play ball. Reports follow by themselves.
            if !asked.forwarded && !matches!(request, Request::Report(_)) {
                self.counts.add(Count::Forwarded);
                let to = self.host_at(address);
                let (principal, body) = (asked.principal.clone(), asked.body.clone());
                let life = self.machines[host].life;
                self.call(Caller::Forward { host, life, asked }, to, principal, body, 8_000);
                return;
            }
        }
        self.send_back(host, &asked, answer);
    }

    fn send_back(&mut self, host: usize, asked: &Asked, answer: Answer) {
        let fate = self.carry(Endpoint::Host(host), asked.from, self.options.call_loss);
        match fate {
            Fate::Lost { .. } => self.counts.add(Count::CallRepliesLost),
            Fate::Once(at) | Fate::Twice(at, _) => self.at(at, Event::CallReturn { call: asked.call, answer: Some(answer) }),
        }
    }

    pub fn call_returns(&mut self, call: u64, answer: Option<Answer>) {
        let Some(Call { caller, to }) = self.calls.remove(&call) else { return };
        if let Some(answer) = &answer {
            self.note(5, call, || format!("n{to} answers call {call}: {}", short(answer)));
        }
        match caller {
            Caller::Client(client) => self.client_hears(client, call, answer),
            Caller::Admin => self.admin_hears(call, answer),
            Caller::Stage => self.heard = Some(answer),
            Caller::Script { term } => self.script_hears(term, answer),
            Caller::Onlooker => self.onlooker_hears(answer),
            Caller::Thief { secret, key } => self.thief_hears(&secret, &key, answer),
            Caller::Join { host, life } => self.join_hears(host, life, answer),
            Caller::Report(reporting) => self.report_hears(reporting, answer),
            Caller::Enlist { host, life, node, member } => {
                let ok = matches!(answer, Some(Answer::Written { .. }));
                self.at(self.now, Event::Tell { host, life: Some(life), input: Input::Enlisted { node, member, ok } });
            }
            Caller::Discharge { host, life, node, member } => {
                let ok = matches!(answer, Some(Answer::Written { .. }));
                self.at(self.now, Event::Tell { host, life: Some(life), input: Input::Discharged { node, member, ok } });
            }
            Caller::Forward { host, asked, .. } => {
                let none = || Answer::Unavailable { why: "the leader did not answer".into() };
                let answer = answer.filter(|answer| !matches!(answer, Answer::Elsewhere { .. })).unwrap_or_else(none);
                self.send_back(host, &asked, answer);
            }
        }
    }

    // ---- a node's word about itself

    pub fn report(&mut self, host: usize, report: Report, try_in_order: Vec<Way>) {
        let life = self.machines[host].life;
        let mut left: Vec<Way> = try_in_order.into_iter().rev().collect();
        if self.machines[host].instance.is_none() {
            // The name in a person's disco.toml stands for those who are managers today.
            let managers = self.hosts().into_iter().filter(|host| self.consensus(*host).is_some());
            let named: Vec<Way> = managers.map(|host| Way::unknown(self.machines[host].address.clone())).collect();
            left.splice(0..0, named.into_iter().rev());
        }
        self.report_goes_on(Reporting { host, life, report, left, asked: Vec::new(), directed: None });
    }

    fn report_goes_on(&mut self, mut reporting: Reporting) {
        let next = reporting.left.pop().filter(|_| reporting.asked.len() < REPORT_TRIES_MAX);
        let Some(way) = next else { return self.report_ends(reporting, None) };
        if reporting.asked.contains(&way) {
            return self.report_goes_on(reporting);
        }
        let node = self.machines[reporting.host].identity.node;
        // TLS: whoever else is there by now is not spoken to.
        let to = self.host_at(&way.address).filter(|to| way.node.is_none_or(|expected| self.machines[*to].identity.node == expected));
        let body = Rc::new(Body::Ask(Request::Report(reporting.report.clone())));
        reporting.asked.push(way);
        self.call(Caller::Report(reporting), to, Principal::Node(node), body, 1_500);
    }

    fn report_hears(&mut self, mut reporting: Reporting, answer: Option<Answer>) {
        let is_known = reporting.asked.last().is_some_and(|way| way.node.is_some());
        match answer {
            Some(Answer::Reported { leader, leader_address, managers, .. }) if !is_known => {
                reporting.left.extend(managers.into_iter().map(|peer| Way::to(peer.node, peer.address)));
                reporting.left.push(Way::to(leader, leader_address));
                self.report_goes_on(reporting);
            }
            Some(Answer::Reported { leader, leader_address, managers, removed, mut orders, authorities }) => {
                let host = reporting.host;
                if self.mutant == Some(Mutant::OrdersOutOfDate) {
                    self.mix_up(host, &mut orders);
                }
                // Where managers are is kept on disk: a restarted worker must find them again.
                if !managers.is_empty() {
                    self.machines[host].identity.seeds = managers.iter().map(|p| Way::to(p.node, p.address.clone())).collect();
                }
                let input = Input::ReportAnswered { leader: Some((leader, leader_address)), managers, removed, orders, authorities };
                self.report_ends(reporting, Some(input));
            }
            Some(Answer::Refused { code: "removed", .. }) if is_known => self.report_ends(reporting, Some(Input::Removed)),
            Some(Answer::Elsewhere { leader, address }) => {
                reporting.left.push(Way::to(leader, address.clone()));
                if is_known {
                    reporting.directed = Some((leader, address));
                }
                self.report_goes_on(reporting);
            }
            answer => {
                if let (None, Some(node)) = (answer, reporting.asked.last().and_then(|way| way.node)) {
                    let (host, life) = (reporting.host, Some(reporting.life));
                    self.at(self.now, Event::Tell { host, life, input: Input::Unreachable { node } });
                }
                self.report_goes_on(reporting)
            }
        }
    }

    fn report_ends(&mut self, reporting: Reporting, input: Option<Input>) {
        let Reporting { host, life, directed: leader, .. } = reporting;
        let (managers, removed) = (Vec::new(), Vec::new());
        let directed = Input::ReportAnswered { leader, managers, removed, orders: Default::default(), authorities: Default::default() };
        self.at(self.now, Event::Tell { host, life: Some(life), input: input.unwrap_or(directed) });
    }

    // ---- a machine that wants in

    pub fn try_join(&mut self, host: usize) {
        if self.machines[host].instance.is_none() {
            // A person's seeds are kept up to date (DNS); a launched machine has what it was launched with.
            let addresses = self.hosts().into_iter().map(|host| self.machines[host].address.clone());
            self.machines[host].identity.seeds = addresses.map(Way::unknown).collect();
        }
        let machine = &mut self.machines[host];
        let Some(Process::Joining { tried }) = &mut machine.process else { return };
        *tried += 1;
        let tried = *tried;
        let life = machine.life;
        let seed = machine.identity.seeds.get(tried % machine.identity.seeds.len().max(1)).cloned();
        let joiner = self.joiner(host);
        let secret = self.machines[host].identity.secret.clone();
        let to = seed.and_then(|seed| self.host_at(&seed.address));
        if tried > 1 {
            self.counts.add(Count::JoinRetries);
        }
        let body = Rc::new(Body::Ask(Request::Join { secret, node: joiner }));
        self.call(Caller::Join { host, life }, to, Principal::Joiner, body, 4_000);
    }

    fn join_hears(&mut self, host: usize, life: u64, answer: Option<Answer>) {
        match answer {
            Some(Answer::Joined(admission)) => {
                assert!(admission.node == self.machines[host].identity.node, "violation: admitted as another node");
                let identity = &mut self.machines[host].identity;
                let (secret, key) = (identity.secret.clone(), identity.key.clone());
                self.checkers.admitted(&secret, self.workload.uses_of(&secret), &key, admission.stamp_ms);
                if !admission.managers.is_empty() {
                    identity.seeds = admission.managers.iter().map(|p| Way::to(p.node, p.address.clone())).collect();
                }
                self.machines[host].held = Held::of(&admission.ca);
                self.machines[host].identity.admission = Some(admission);
                self.counts.add(Count::Joins);
                let (boot, mono_base, seed, world) = (self.rng.next(), self.rng.below(1 << 40), self.rng.next(), self.now);
                self.machines[host].start(boot, mono_base, seed, world);
                self.tell_papers(host);
                self.find_tasks(host);
                self.drain(host);
            }
            Some(Answer::Refused { code, why }) => {
                self.note(6, host as u64, || format!("n{host} may not join: {code}: {why}"));
                self.stop_process(host);
            }
            _ => self.later((200, 1_000), Event::Join { host, life }),
        }
    }
}

fn brief(body: &Body) -> String {
    match body {
        Body::Ask(Request::Write { id, op }) => {
            let mut op = format!("{op:?}");
            if let Some((cut, _)) = op.char_indices().nth(100) {
                op.truncate(cut);
            }
            format!("write {}/{} {op}", id.client, id.sequence)
        }
        Body::Ask(request) => format!("{request:?}"),
        Body::Enlist { from, member, .. } => format!("enlist as member {} by {from}", member.0),
        Body::Discharge { from, member } => format!("discharge from member {} by {from}", member.0),
    }
}

fn short(answer: &Answer) -> String {
    let mut text = format!("{answer:?}");
    if let Some((cut, _)) = text.char_indices().nth(160) {
        text.truncate(cut);
    }
    text
}
