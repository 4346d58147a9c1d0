//! Certificates as far as they matter here: who believes whom, while one authority gives way to another.
//!
//! It is the daemon's `Trust` in short: durable, never back to what was believed before, servers show what they are to
//! and callers the newest. Machines that do not believe each other exchange nothing, so a
//! change that went ahead of somebody shows as a cluster that does not come to rest.

use crate::{
    counts::Count,
    mutants::Mutant,
    network::Endpoint,
    world::{Event, World},
};
use agent::{
    logic::token,
    model::{
        authority::{Authorities, Certificate, NextKeys, Papers, Stage},
        io::{Input, Keyring},
        query::Op,
    },
};

/// Between two tries to get a certificate.
const AGAIN_MS: (u64, u64) = (300, 1_000);
const SPREAD_MS: (u64, u64) = (1, 2_000);

/// What a machine's `ca.crt` and `node.crt` hold.
#[derive(Clone, Default)]
pub struct Held {
    known: Authorities,
    /// The CAs that signed its certificates.
    certified: Vec<Certificate>,
}

impl Held {
    pub fn of(ca: &[u8]) -> Held {
        let ca = Certificate(ca.to_vec());
        Held { known: Authorities { trusted: vec![ca.clone()], ..Authorities::default() }, certified: vec![ca] }
    }

    fn shown(&self) -> Option<&Certificate> {
        if self.known.show_newest {
            return self.presented();
        }
        self.known.trusted.iter().find(|ca| self.certified.contains(ca))
    }

    fn presented(&self) -> Option<&Certificate> {
        self.known.trusted.iter().rev().find(|ca| self.certified.contains(ca))
    }

    fn believes(&self, ca: Option<&Certificate>) -> bool {
        ca.is_some_and(|ca| self.known.trusted.contains(ca))
    }

    fn papers(&self) -> Papers {
        let mark = |ca: Option<&Certificate>| ca.map_or(0, |ca| token::ca_mark(&ca.0));
        Papers { believes: mark(self.known.trusted.last()), certified: mark(self.presented()), shows: mark(self.shown()) }
    }

    fn wants_certificate(&self) -> bool {
        self.known.certify && self.presented() != self.known.trusted.last()
    }
}

impl World {
    /// Whether a handshake between two machines comes about.
    pub fn believe_each_other(&self, from: Endpoint, to: Endpoint) -> bool {
        let (Endpoint::Host(from), Endpoint::Host(to)) = (from, to) else { return true };
        let (caller, server) = (&self.machines[from].held, &self.machines[to].held);
        // A joiner has nothing yet, and knows the CA by its token.
        let strangers = caller.known.trusted.is_empty() || server.known.trusted.is_empty();
        strangers || caller.believes(server.shown()) && server.believes(caller.presented())
    }

    /// `Effect::Changed`, or a process that starts.
    pub fn told_authorities(&mut self, host: usize, told: &Authorities) {
        let held = &mut self.machines[host].held;
        if told.trusted.is_empty() || told.version < held.known.version || *told == held.known {
            return;
        }
        let certified: Vec<Certificate> = held.certified.iter().filter(|ca| told.trusted.contains(ca)).cloned().collect();
        assert!(!certified.is_empty(), "violation: n{host} has no certificate that is still believed");
        (held.known, held.certified) = (told.clone(), certified);
        let certify = told.certify;
        self.note(40, told.version, || format!("n{host} believes {} authorities (certify: {certify})", told.trusted.len()));
        self.tell_papers(host);
    }

    pub fn tell_papers(&mut self, host: usize) {
        let (held, life) = (&self.machines[host].held, self.machines[host].life);
        let (papers, wants) = (held.papers(), held.wants_certificate());
        self.at(self.now, Event::Tell { host, life: Some(life), input: Input::Papers(papers) });
        if wants {
            self.later(SPREAD_MS, Event::Renew { host, life });
        }
    }

    /// A manager signs for itself, any other node asks the leader.
    pub fn renew(&mut self, host: usize, life: u64) {
        if !self.machines[host].held.wants_certificate() {
            return;
        }
        let wanted = self.machines[host].held.known.trusted.last().cloned().expect("it wants one");
        let own = self.machines[host].disk.keyring.is_some();
        let signer = if own { Some(host) } else { self.leader() };
        let reached = signer.filter(|signer| {
            let ways = [(host, *signer), (*signer, host)].map(|(a, b)| (Endpoint::Host(a), Endpoint::Host(b)));
            *signer == host || ways.iter().all(|(a, b)| !self.network.is_cut(*a, *b)) && self.believe_each_other(ways[0].0, ways[0].1)
        });
        let lost = self.rng.chance(self.options.call_loss);
        match reached.filter(|signer| !lost && self.signs(*signer, &wanted)) {
            Some(_) => {
                self.counts.add(Count::Recertified);
                self.machines[host].held.certified.push(wanted);
                self.tell_papers(host);
            }
            None => self.later(AGAIN_MS, Event::Renew { host, life }),
        }
    }

    fn signs(&self, host: usize, ca: &Certificate) -> bool {
        self.machines[host].disk.keyring.as_ref().is_some_and(|keyring| self.workload.can_sign(keyring, &ca.0))
    }

    /// What the keyring file is given.
    pub fn hold_keyring(&mut self, host: usize, mut keyring: Option<Keyring>) {
        if self.mutant == Some(Mutant::NewKeysNotSaved)
            && let Some(keyring) = &mut keyring
        {
            keyring.next = None;
        }
        self.machines[host].disk.keyring = keyring;
    }

    /// A member that knows of a new CA has its keys, on disk.
    pub fn check_keys(&self, host: usize) {
        let Some(replica) = self.replica(host) else { return };
        let Some(rotation) = &replica.state().rotation else { return };
        let Some(keyring) = &self.machines[host].disk.keyring else { return };
        // Of the old one it may never have had it: who comes late gets the keyring as it is then.
        let new = if rotation.stage == Stage::Showing { &replica.state().ca } else { &rotation.ca };
        // Who starts again replays its log from the last snapshot: the keyring was there before it.
        let holds = self.workload.can_sign(keyring, new) || self.workload.is_past(keyring, new);
        assert!(holds, "violation: n{host} has applied {} and lacks the keys of the CA that takes over", replica.applied());
    }

    /// A process that starts opens its keyring with the CAs that it believes.
    pub fn check_keyring_opens(&self, host: usize) {
        let machine = &self.machines[host];
        let seated = machine.disk.durable.member.is_some();
        let Some(keyring) = machine.disk.keyring.as_ref().filter(|_| seated) else { return };
        let opens = machine.held.known.trusted.iter().any(|ca| self.workload.can_sign(keyring, &ca.0));
        assert!(opens, "violation: n{host} does not start: it has the key of no CA that it believes");
    }

    /// The administrator's next step: a change begins, or goes on if it can.
    pub fn rotate_ca(&mut self) {
        let stage = self.leader().and_then(|leader| self.replica(leader)).and_then(|r| r.state().rotation.as_ref()).map(|r| r.stage);
        let op = match stage {
            Some(from) => Op::CaAdvance { from, force: false },
            None => {
                let (ca, ca_key) = (self.rng.bytes(64), self.rng.bytes(48));
                self.workload.ca_keys.push((ca.clone(), ca_key.clone()));
                self.counts.add(Count::RotationsAsked);
                Op::CaRotate(Box::new(NextKeys { ca, ca_key, join_key: self.rng.bytes(32), term: 0 }))
            }
        };
        self.workload.admin.todo.push_back(op);
    }

    /// At rest: every change begun is led to its end, as far as it can be.
    pub fn missing_papers(&mut self, host: usize) -> Option<String> {
        let replica = self.replica(host)?;
        let state = replica.state();
        if let Some(rotation) = &state.rotation {
            let (stage, waits) = (rotation.stage, state.ca_waits_for());
            if waits.is_empty() && self.workload.admin_is_idle() {
                self.workload.admin.todo.push_back(Op::CaAdvance { from: stage, force: false });
            }
            return Some(format!("a CA takes over ({}), waiting for {waits:?}", stage.as_str()));
        }
        for node in state.nodes.values() {
            let host = self.host_of(node.id)?;
            let machine = &self.machines[host];
            let alone = machine.held.known.trusted == [Certificate(state.ca.clone())];
            let signs = machine.disk.keyring.as_ref().is_none_or(|keyring| self.workload.is_of(keyring, &state.ca));
            if !alone || machine.held.certified.len() != 1 || !signs {
                return Some(format!("n{host} believes others than the CA in force, or has not its key ({signs})"));
            }
        }
        None
    }

    pub fn count_stage(&mut self, from: Stage) {
        if from == Stage::Showing {
            self.counts.add(Count::AuthoritiesReplaced);
        }
    }
}
