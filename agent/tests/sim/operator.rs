//! Who comes when the majority is lost, and does what `disco recover` does; and what may be lost by it.
//!
//! The survivors are asked, the one with the newest log goes on, the others are lost by the provider's word or the
//! person's, who knows which machines are down. A new life of the cluster begins with it: whatever was acknowledged and any
//! survivor that answered holds is kept; what only the lost ones held may be lost, and nothing else.

use crate::{
    counts::Count,
    logs::lessen,
    mutants::Mutant,
    world::{Event, World},
};
use agent::{
    logic::state::State,
    model::{
        ids::NodeId,
        instance::InstanceState,
        io::{Batch, Input, Seat, SnapshotRecord},
        query::{Answer, Request},
        recovery::{Survivor, who_goes_on},
    },
};

/// How long one node may take to answer, and all of it until somebody goes on.
const ANSWER_MS: u64 = 4_000;
const PATIENCE_MS: u64 = 60_000;
const AGAIN_MS: u64 = 200;
/// Some die in the moment in which they go on.
const DIES: u64 = 250;
const DIES_WITHIN_MS: u64 = 60;
/// A mutant takes back what terms jump by.
const TERMS_AHEAD: u64 = 1 << 10;

impl World {
    /// Until one of the survivors goes on alone. Which.
    pub fn recover(&mut self) -> usize {
        let end = self.now + PATIENCE_MS;
        loop {
            let goes_on = self.try_to_recover();
            self.run_until(self.now + AGAIN_MS);
            if let Some(host) = self.recovering.filter(|host| !self.is_up(*host)) {
                self.boot_later(host);
            }
            if let Some(host) = goes_on {
                return host;
            }
            assert!(self.now < end, "violation: no survivor of a lost majority goes on, though a person says so");
        }
    }

    fn try_to_recover(&mut self) -> Option<usize> {
        let (mut hosts, mut survivors) = (Vec::new(), Vec::new());
        // Whoever was told to go on and died of it is waited for: to a person it is one of those that live.
        if self.recovering.is_some_and(|host| !self.is_up(host)) {
            return None;
        }
        for host in self.hosts().into_iter().filter(|host| self.replica(*host).is_some()).collect::<Vec<_>>() {
            match self.ask(Some(host), Request::Recover { lost: Vec::new() }, ANSWER_MS) {
                Some(Answer::Recover(view)) => {
                    let missing: Vec<NodeId> = view.missing.iter().map(|node| node.id).collect();
                    survivors.push(Survivor { node: view.node, last_term: view.last_term, last_index: view.last_index, missing });
                    hosts.push(host);
                }
                Some(Answer::Refused { code: "not_a_manager", .. }) => {}
                // It went on and died before it could say so.
                Some(Answer::Refused { code: "invalid", .. }) if self.leader().is_some() => return self.recovering,
                _ => return None,
            }
        }
        let (place, lost) = self.choose(&survivors)?;
        if lost.is_empty() || !self.are_gone(&lost) {
            return None;
        }
        self.go_on(hosts[place], lost)
    }

    fn choose(&self, survivors: &[Survivor<NodeId>]) -> Option<(usize, Vec<NodeId>)> {
        let (newest, lost) = who_goes_on(survivors)?;
        if self.mutant == Some(Mutant::ShorterLogRecovered) {
            let shortest = survivors.iter().enumerate().min_by_key(|(_, s)| (s.last_term, s.last_index))?;
            return Some((shortest.0, lost));
        }
        Some((newest, lost))
    }

    /// By the provider's word, or the person's.
    fn are_gone(&mut self, lost: &[NodeId]) -> bool {
        let hosts: Vec<usize> = lost.iter().filter_map(|node| self.host_of(*node)).collect();
        let ended = |host: &usize| {
            let instance = self.machines[*host].instance.as_ref().and_then(|id| self.cloud.instances.get(id));
            instance.is_some_and(|instance| instance.vanished || instance.state == InstanceState::Terminated)
        };
        let confirmed = hosts.iter().all(ended);
        let consented = hosts.iter().all(|host| !self.is_up(*host));
        if confirmed || consented {
            self.counts.add(if confirmed { Count::LossesConfirmed } else { Count::LossesConsented });
        }
        confirmed || consented
    }

    fn go_on(&mut self, host: usize, lost: Vec<NodeId>) -> Option<usize> {
        self.note(60, host as u64, || format!("n{host} is to go on without {lost:?}"));
        // Whoever was to go on before died before it did: what it was told then is void. Nor does it die of this again and
        // again: it has to be there for a while to know that nobody is elected.
        let again = self.recovering.replace(host) == Some(host);
        let given_up: Vec<usize> = lost.iter().filter_map(|node| self.host_of(*node)).collect();
        self.machines.iter_mut().enumerate().for_each(|(place, machine)| machine.given_up = given_up.contains(&place));
        if self.rng.chance(DIES) && !again {
            let at = self.now + self.rng.below(DIES_WITHIN_MS);
            self.dies_at(host, at);
        }
        matches!(self.ask(Some(host), Request::Recover { lost }, ANSWER_MS), Some(Answer::Written { .. })).then_some(host)
    }

    /// A node that was told to go on writes where it goes on from.
    pub fn sees_batch(&mut self, host: usize, batch: &Batch) {
        if let (true, Some(Seat::Take(_)), Some(snapshot)) = (self.recovering == Some(host), batch.seat, &batch.snapshot) {
            self.life_begins(host, snapshot);
            if self.mutant == Some(Mutant::RecoveredInOldTerms) {
                self.goes_back_to_old_terms(host, batch.clone());
            }
        }
    }

    /// A mutant: it dies at once, and finds on its disk where it goes on, but not in which term.
    fn goes_back_to_old_terms(&mut self, host: usize, mut batch: Batch) {
        if let (Some(snapshot), Some(hard_state)) = (&mut batch.snapshot, &mut batch.hard_state) {
            snapshot.meta = lessen(&snapshot.meta, 3, TERMS_AHEAD).expect("it was just raised");
            *hard_state = lessen(hard_state, 1, TERMS_AHEAD).expect("it was just raised");
        }
        self.machines[host].disk.dies_with(batch);
        self.stop_process(host);
    }

    fn dies_at(&mut self, host: usize, at: u64) {
        let life = Some(self.machines[host].life);
        self.at(at, Event::Tell { host, life, input: Input::StoreFailed { why: "killed".into() } });
    }

    fn life_begins(&mut self, host: usize, snapshot: &SnapshotRecord) {
        let kept_on = |host: usize| self.checkers.logs.held_by(&self.machines[host].disk);
        let survives = |host: &usize| self.replica(*host).is_some_and(|replica| replica.applied() > 0);
        let own = kept_on(host);
        let kept = self.hosts().into_iter().filter(survives).map(kept_on).fold(own, u64::max);
        assert!(own >= kept, "violation: n{host} goes on with what was decided up to {own}, but another survivor holds it up to {kept}");
        let lost = self.checkers.logs.known_after(kept);
        self.counts.add_many(Count::EntriesLostWithMajority, lost);
        self.note(61, kept, || format!("n{host} goes on: {lost} entries after {kept} are lost, the next is {}", snapshot.index + 1));
        let state = State::decode(&snapshot.data).expect("the replica encoded it");
        self.checkers.life_begins(kept, snapshot.index);
        let checked = self.checkers.linear.check();
        self.counts.add_many(Count::LinearChecked, checked);
        for key in self.checkers.keys() {
            let id = self.id();
            let value = state.kv.get(&key).map(|record| record.value.as_slice());
            self.checkers.linear.begins_again(&key, id, value.map(crate::clients::number), self.trace.events);
        }
        self.trace.events += 1;
    }
}
