//! Links between machines: Raft messages and snapshots on their way, and what their senders notice when they are lost.

use crate::{
    counts::Count,
    mutants::Mutant,
    network::{Endpoint, Fate},
    world::{Event, World},
};
use agent::{
    logic::state::State,
    model::{
        ids::{MemberId, NodeId},
        io::Input,
    },
};

impl World {
    /// Sends something to whoever lives at `address`, as often as the network wants to deliver it.
    pub fn post(&mut self, from: usize, to: NodeId, address: &str, make: impl Fn() -> Input) {
        let life = self.machines[from].life;
        let target = self.host_at(address).filter(|host| self.machines[*host].identity.node == to);
        let Some(target) = target.filter(|host| self.is_up(*host)) else {
            if self.rng.chance(700) {
                self.counts.add(Count::Unreachable);
                self.later((1, 100), Event::Tell { host: from, life: Some(life), input: Input::Unreachable { node: to } });
            }
            return;
        };
        let met = self.believe_each_other(Endpoint::Host(from), Endpoint::Host(target));
        let carried = self.carry(Endpoint::Host(from), Endpoint::Host(target), self.options.loss);
        let fate = if met { carried } else { Fate::Lost { cut: true } };
        match fate {
            Fate::Lost { cut } => {
                self.counts.add(Count::Lost);
                if cut && self.rng.chance(400) {
                    self.counts.add(Count::Unreachable);
                    self.later((1, 500), Event::Tell { host: from, life: Some(life), input: Input::Unreachable { node: to } });
                }
            }
            Fate::Once(first) => {
                let mut input = make();
                if self.mutant == Some(Mutant::MessageChangedOnItsWay) {
                    self.change(&mut input);
                }
                self.at(first, Event::Tell { host: target, life: None, input });
            }
            Fate::Twice(first, second) => {
                self.at(first, Event::Tell { host: target, life: None, input: make() });
                self.at(second, Event::Tell { host: target, life: None, input: make() });
            }
        }
    }

    /// A mutant: one byte of a long message is another one.
    fn change(&mut self, input: &mut Input) {
        if let Input::Raft { messages, .. } = input
            && let Some(message) = messages.iter_mut().find(|message| message.len() > 60)
            && self.rng.chance(50)
        {
            let at = self.rng.between(message.len() as u64 / 2, message.len() as u64 - 1) as usize;
            message[at] ^= 1;
        }
    }

    /// A snapshot is a transfer of its own: it takes longer, and its sender hears how it ended (or that it failed).
    pub fn post_snapshot(&mut self, from: usize, to: NodeId, address: &str, member: MemberId, message: Vec<u8>, mut data: Vec<u8>) {
        if self.mutant == Some(Mutant::SnapshotForgetsAnswers) {
            let mut state = State::decode(&data).expect("a replica wrote it");
            state.clients = Default::default();
            data = state.encode();
        }
        let life = self.machines[from].life;
        let sender = self.machines[from].identity.node;
        self.counts.add(Count::SnapshotsSent);
        let target = self.host_at(address).filter(|host| self.machines[*host].identity.node == to && self.is_up(*host));
        let takes = self.rng.between(5, 400);
        let parts = |to: usize| (Endpoint::Host(from), Endpoint::Host(to));
        let reaches = |(from, to)| !self.network.is_cut(from, to) && self.believe_each_other(from, to);
        let cut = target.is_none_or(|host| !reaches(parts(host)));
        let broken = self.rng.chance(self.options.snapshot_failed);
        let mut ok = !cut && !broken;
        if let Some(host) = target.filter(|_| !cut) {
            // A transfer whose last acknowledgement is lost has failed for its sender alone.
            if ok || self.rng.chance(300) {
                self.at(
                    self.now + takes,
                    Event::Tell { host, life: None, input: Input::Snapshot { from: sender, to: member, message, data } },
                );
            }
        } else {
            ok = false;
        }
        if !ok {
            self.counts.add(Count::SnapshotsFailed);
        }
        self.at(self.now + takes + 5, Event::Tell { host: from, life: Some(life), input: Input::SnapshotSent { to: member, ok } });
    }
}
