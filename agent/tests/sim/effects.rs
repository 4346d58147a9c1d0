//! The simulated pump and drivers: feeds a replica its inputs and does what it says.

use crate::{
    calls::Caller,
    cloud::{Launch, STALE_MS_MAX},
    counts::Count,
    mutants::Mutant,
    node::{Body, Process},
    world::{Event, World},
};
use agent::{
    logic::{raft::Consensus, replica::Replica},
    model::{
        instance::{InstanceDesired, InstanceRecord, InstanceState},
        io::{Effect, Input, Provided, ProviderCall},
        query::{LaunchRequest, Principal},
        service::Roll,
    },
};
use std::rc::Rc;

/// States are compared at multiples of this log index: encoding the whole of one is dear.
const STATE_EVERY: u64 = 16;

impl World {
    pub fn input(&mut self, host: usize, input: Input) {
        let world = self.now;
        let Some(running) = self.machines[host].running() else { return };
        let now = running.clock.read(world);
        running.replica.handle(input, now);
        self.drain(host);
    }

    /// Carries out what the replica wants; now and then the process dies halfway.
    pub fn drain(&mut self, host: usize) {
        let midway = self.options.crash_midway;
        let life = self.machines[host].life;
        while let Some(effect) = self.machines[host].running().and_then(|running| running.replica.poll_effect()) {
            if midway > 0 && self.rng.chance(midway) && self.rng.chance(200) {
                self.counts.add(Count::CrashesMidway);
                self.note(7, host as u64, || format!("n{host} crashes between two effects"));
                self.crash(host);
                return;
            }
            self.carry_out(host, life, effect);
        }
        if self.machines[host].running().is_none() {
            return;
        }
        self.watch(host);
        let world = self.now;
        let Some(running) = self.machines[host].running() else { return };
        let due = running.clock.world_at(running.replica.poll_deadline()).max(world + 1);
        if running.wake_at <= world || due < running.wake_at {
            running.wake_at = due;
            self.at(due, Event::Wake { host, life });
        }
    }

    fn carry_out(&mut self, host: usize, life: u64, effect: Effect) {
        match effect {
            Effect::Persist { number, batch } => {
                if let (Some(snapshot), Some(running)) = (&batch.snapshot, self.machines[host].running())
                    && snapshot.reset_log
                {
                    // What it stands for was never in this log.
                    running.watched_applied = running.watched_applied.max(snapshot.index);
                }
                self.sees_batch(host, &batch);
                if !self.is_up(host) {
                    return;
                }
                if self.mutant == Some(Mutant::EarlyPersisted) {
                    self.at(self.now, Event::Tell { host, life: Some(life), input: Input::Persisted { number } });
                }
                if self.machines[host].disk.push(number, batch) {
                    self.write_takes(host, life);
                }
            }
            Effect::Send { node, address, to, messages } => {
                let from = self.machines[host].identity.node;
                self.post(host, node, &address, || Input::Raft { from, to, messages: messages.clone() });
            }
            Effect::SendSnapshot { node, address, to, message, data } => {
                self.post_snapshot(host, node, &address, to, message, data.to_vec());
            }
            Effect::Reply { ticket, answer } => self.reply(host, ticket, answer),
            Effect::Enlist { node, address, member, keyring } => {
                let from = self.machines[host].identity.node;
                let body = Rc::new(Body::Enlist { from, member, keyring });
                let to = self.host_at(&address).filter(|to| self.machines[*to].identity.node == node);
                self.call(Caller::Enlist { host, life, node, member }, to, Principal::Node(from), body, 3_000);
            }
            Effect::Discharge { node, address, member } => {
                let from = self.machines[host].identity.node;
                let body = Rc::new(Body::Discharge { from, member });
                let to = self.host_at(&address).filter(|to| self.machines[*to].identity.node == node);
                self.call(Caller::Discharge { host, life, node, member }, to, Principal::Node(from), body, 3_000);
            }
            Effect::Provide { id, call } => {
                self.note(8, host as u64, || format!("n{host} asks the cloud: {call:?}"));
                self.later(self.options.cloud_ms, Event::Cloud { host, life, id, call });
            }
            Effect::Report { report, try_in_order } => {
                if !try_in_order.is_empty() {
                    self.machines[host].identity.seeds = try_in_order.clone();
                }
                self.report(host, report, try_in_order);
            }
            Effect::Changed { access, .. } => {
                if let (Some(access), Some(running)) = (access, self.machines[host].running()) {
                    running.removed = access.removed.iter().copied().collect();
                    running.access = Some(access.clone());
                    self.told_authorities(host, &access.authorities);
                }
            }
            Effect::Keyring(keyring) => self.hold_keyring(host, keyring),
            Effect::Assignment(orders) => self.assigned(host, orders),
            Effect::Task(call) => self.task_called(host, life, call),
            Effect::Script { id, call } => self.script_called(host, life, id, call),
            Effect::ScriptEnd => self.script_ends(host),
            Effect::Log { level, text } => self.trace.line(self.now, || format!("n{host} log {level:?}: {text}")),
            Effect::Stop { failed, why } => {
                self.note(9, host as u64, || format!("n{host} stops (failed: {failed}): {why}"));
                if why.contains("removed") {
                    self.machines[host].retired = true;
                }
                self.crash(host);
            }
        }
    }

    fn write_takes(&mut self, host: usize, life: u64) {
        let (low, high) = self.options.disk_ms;
        let slow_ms = self.machines[host].slow_disk_ms;
        self.later((low + slow_ms, high + slow_ms), Event::DiskDone { host, life });
    }

    pub fn disk_done(&mut self, host: usize) {
        let life = self.machines[host].life;
        let full = self.machines[host].full_until > self.now;
        if self.rng.chance(self.options.crash_in_write) {
            self.counts.add(Count::CrashesInWrite);
            self.note(18, host as u64, || format!("n{host} crashes while it writes"));
            return self.crash(host);
        }
        let failed = full || self.rng.chance(self.options.disk_error);
        let swallowed = failed && self.mutant == Some(Mutant::WriteErrorSwallowed);
        if failed && !swallowed {
            self.counts.add(if full { Count::DiskFullErrors } else { Count::DiskErrors });
            self.note(10, host as u64, || format!("n{host} cannot write to its disk (full: {full})"));
            let why = if full { "no space left on device" } else { "input/output error" };
            self.input(host, Input::StoreFailed { why: why.into() });
            // A process that lives on after that would lie; whatever it does, the restart comes.
            assert!(!self.is_up(host), "violation: n{host} lives on after its store failed");
            return;
        }
        let disk = &mut self.machines[host].disk;
        let vote = disk.writes_a_vote();
        let (number, more) = if swallowed { disk.finish_without() } else { disk.finish() };
        if more {
            self.write_takes(host, life);
        }
        self.note(11, number, || format!("n{host} persisted {number}"));
        if self.mutant != Some(Mutant::EarlyPersisted) {
            self.input(host, Input::Persisted { number });
        }
        if vote && self.rng.chance(self.options.crash_after_vote) {
            self.counts.add(Count::CrashesAfterVote);
            self.note(19, host as u64, || format!("n{host} crashes after its vote, and is back at once"));
            self.stop_process(host);
            self.at(self.now + 10, Event::Boot { host });
        }
    }

    // ---- the provider

    pub fn cloud_executes(&mut self, host: usize, life: u64, id: u64, call: ProviderCall) {
        let launch = matches!(call, ProviderCall::Launch(_));
        if self.rng.chance(self.options.cloud_failed) {
            self.counts.add(match call {
                ProviderCall::Launch(_) => Count::LaunchesFailed,
                ProviderCall::Terminate { .. } => Count::TerminationsFailed,
                _ => Count::CloudCallsFailed,
            });
            let outcome = Provided::Failed { why: "request limit exceeded".into(), final_: false };
            return self.cloud_answers(host, life, id, outcome);
        }
        self.note(12, id, || format!("cloud carries out {call:?}"));
        if self.rng.chance(self.options.cloud_twice) {
            // The request came twice: somebody between repeated it.
            self.counts.add(Count::CloudCallsTwice);
            self.cloud_does(call.clone());
        }
        let terminate = matches!(call, ProviderCall::Terminate { .. });
        let outcome = self.cloud_does(call);
        if self.rng.chance(self.options.cloud_lost) {
            self.counts.add(match (launch, terminate) {
                (true, _) => Count::LaunchRepliesLost,
                (_, true) => Count::TerminationRepliesLost,
                _ => Count::CloudRepliesLost,
            });
            let final_ = self.mutant == Some(Mutant::NoAnswerTakenForFailure);
            let outcome = Provided::Failed { why: "no answer within 3 s".into(), final_ };
            self.at(self.now + 3_000, Event::Tell { host, life: Some(life), input: Input::Provided { id, outcome } });
            return;
        }
        self.cloud_answers(host, life, id, outcome);
    }

    fn cloud_does(&mut self, call: ProviderCall) -> Provided {
        match call {
            ProviderCall::Launch(request) => self.launch(request),
            ProviderCall::Describe => {
                let ago = if self.rng.chance(self.options.describe_stale) { self.rng.between(1, STALE_MS_MAX) } else { 0 };
                if ago > 0 {
                    self.counts.add(Count::DescribesStale);
                }
                Provided::Described(self.cloud.describe(ago))
            }
            ProviderCall::Start { id } => self.start_instance(&id),
            ProviderCall::Stop { id } => self.stop_instance(&id),
            // Nothing here depends on where the public address leads.
            ProviderCall::Attach { .. } => Provided::Done,
            ProviderCall::Terminate { id } => {
                self.check_has_no_seat(&id);
                self.terminate_instance(&id)
            }
        }
    }

    /// A node gives up its seat before its machine ends.
    fn check_has_no_seat(&self, id: &str) {
        let Some(instance) = self.cloud.instances.get(id).filter(|instance| instance.state != InstanceState::Terminated) else { return };
        let (Some(member), Some((_, voters, _))) = (self.machines[instance.host].disk.durable.member, self.checkers.newest_voters()) else {
            return;
        };
        assert!(!voters.contains(&member), "violation: {id} is terminated while its member {} votes among {voters:?}", member.0);
    }

    fn cloud_answers(&mut self, host: usize, life: u64, id: u64, outcome: Provided) {
        self.later(self.options.cloud_ms, Event::Tell { host, life: Some(life), input: Input::Provided { id, outcome } });
    }

    fn launch(&mut self, request: LaunchRequest) -> Provided {
        let operation = request.operation;
        let host = self.machines.len();
        match self.cloud.launch(&request, host, self.mutant == Some(Mutant::LaunchWithoutClientToken)) {
            Launch::Known { id, address } => {
                self.counts.add(Count::LaunchRepeats);
                Provided::Launched { operation, id, address }
            }
            Launch::New { id, address } => {
                self.counts.add(Count::Launches);
                let secret = request.token.splitn(3, '-').nth(2).expect("a token has three parts").to_string();
                let host = self.add_machine(address.clone(), Some(id.clone()), secret, request.seeds);
                self.boot_later(host);
                self.cloud.check_one_each();
                self.workload.check_brakes(&self.cloud);
                Provided::Launched { operation, id, address }
            }
        }
    }

    fn start_instance(&mut self, id: &str) -> Provided {
        let Some(instance) = self.cloud.instances.get(id).filter(|instance| !instance.vanished) else {
            return Provided::Failed { why: format!("there is no instance {id}"), final_: true };
        };
        let (host, state) = (instance.host, instance.state);
        match state {
            InstanceState::Terminated => return Provided::Failed { why: format!("{id} is terminated"), final_: true },
            InstanceState::Stopped => {
                self.counts.add(Count::InstancesStarted);
                self.cloud.set(id, InstanceState::Pending);
                self.boot_later(host);
            }
            _ => {}
        }
        Provided::Done
    }

    fn stop_instance(&mut self, id: &str) -> Provided {
        let Some(instance) = self.cloud.instances.get(id) else {
            return Provided::Failed { why: format!("there is no instance {id}"), final_: true };
        };
        let host = instance.host;
        self.crash(host);
        self.tasks_end(host);
        self.cloud.set(id, InstanceState::Stopped);
        Provided::Done
    }

    pub fn terminate_instance(&mut self, id: &str) -> Provided {
        let Some(instance) = self.cloud.instances.get(id) else {
            return Provided::Failed { why: format!("there is no instance {id}"), final_: true };
        };
        let host = instance.host;
        if instance.state != InstanceState::Terminated {
            self.counts.add(Count::InstancesTerminated);
            self.stop_process(host);
            self.machines[host].gone = true;
            self.tasks_end(host);
            self.cloud.set(id, InstanceState::Terminated);
        }
        Provided::Done
    }

    // ---- what the checkers see

    fn watch(&mut self, host: usize) {
        let Some(running) = self.machines[host].running() else { return };
        let applied = running.replica.applied();
        let news = applied != running.watched_applied;
        // An index that every member samples or none does, so that samples meet.
        let state = (news && applied % STATE_EVERY == 0).then(|| running.replica.state().encode());
        if news {
            self.see_entries(host);
        }
        let Some(running) = self.machines[host].running() else { return };
        running.watched_applied = applied;
        let fenced = running.replica.state().kv.get(crate::scripts::FENCED).map(|record| (record.version, record.value.clone()));
        let Some(consensus) = running.replica.consensus() else { return };
        let (member, term, commit) = (consensus.member(), consensus.term(), consensus.commit_index());
        let leads = consensus.is_leader();
        let membership = news.then(|| consensus.membership());
        self.trace.mix(term << 40 ^ applied << 20 ^ commit);
        assert!(applied <= commit, "violation: member {} applied {applied} but only {commit} is committed", member.0);
        if leads {
            self.hears_itself(host);
        }
        if leads && self.mutant == Some(Mutant::VoterRemovedBeforeTransfer) {
            self.end_leaving_machines(host);
        }
        if news {
            self.check_keys(host);
        }
        if leads && self.checkers.leads(member, term, applied) {
            self.counts.add(Count::Elections);
            self.note(13, term, || format!("n{host} (member {}) leads term {term}", member.0));
        }
        if let Some(fenced) = fenced {
            self.checkers.fenced(fenced.0, &fenced.1);
        }
        if let Some(state) = state {
            self.counts.add(Count::StatesCompared);
            self.checkers.state(member, applied, state);
        }
        if let Some(membership) = membership.filter(|membership| membership.contains(member)) {
            let managers = self.workload.managers_most;
            if self.checkers.membership(applied, &membership.voters, membership.is_joint(), managers) {
                self.note(17, applied, || {
                    format!("voters {:?}, learners {:?}, joint {}", membership.voters, membership.learners, membership.is_joint())
                });
                self.counts.add(if membership.is_joint() { Count::JointChanges } else { Count::VoterSets });
            }
        }
    }

    /// A mutant: machines that are to end do so before their seats were given up.
    fn end_leaving_machines(&mut self, host: usize) {
        let Some(replica) = self.replica(host) else { return };
        let leaving = |i: &&InstanceRecord| i.desired == InstanceDesired::Terminated && !i.ended() && i.node.is_some();
        let ids: Vec<String> = replica.state().instances.values().filter(leaving).filter_map(|i| i.id.clone()).collect();
        for id in ids {
            self.cloud_does(ProviderCall::Terminate { id });
        }
    }

    /// What was applied since the last look, as the disk was given it. (What a snapshot brought never was.)
    fn see_entries(&mut self, host: usize) {
        let machine = &self.machines[host];
        let Some(Process::Running(running)) = &machine.process else { return };
        let (replica, from) = (&running.replica, running.watched_applied);
        let Some(member) = replica.consensus().map(Consensus::member) else { return };
        let rolls = replica.state().services.values().any(|service| service.roll == Roll::Going);
        for index in from + 1..=replica.applied() {
            let Some(bytes) = machine.disk.entry(index) else { continue };
            if let Some(proposal) = self.checkers.logs.committed(member, index, bytes, rolls, &mut self.counts) {
                self.trace
                    .line(self.now, || format!("entry {index} of term {}: {}", proposal.term, cut(format!("{:?}", proposal.command))));
            }
        }
    }

    pub fn replica(&self, host: usize) -> Option<&Replica> {
        match &self.machines[host].process {
            Some(Process::Running(running)) => Some(&running.replica),
            _ => None,
        }
    }

    pub fn consensus(&self, host: usize) -> Option<&Consensus> {
        self.replica(host)?.consensus()
    }

    /// Who leads by its own word; of two, the one of the later term.
    pub fn leader(&self) -> Option<usize> {
        let term = |host: usize| self.consensus(host).filter(|consensus| consensus.is_leader()).map(Consensus::term);
        (0..self.machines.len()).filter_map(|host| Some((term(host)?, host))).max().map(|(_, host)| host)
    }
}

/// As much of a text as one line of the trace takes.
pub fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(200) {
        text.truncate(at);
    }
    text
}
