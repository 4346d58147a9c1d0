//! The loop: inputs go into the replica, effects come out and are handed to whoever carries them out.
//!
//! It never waits for an effect. Each one that takes time reports through the door how it ended.

use super::{clock::Clock, keys::Keys, notebook::Notebook, provide::Provider, script::Script};
use crate::{
    drivers::{
        api::{
            Api,
            activity::Work,
            door::{Door, Inbox},
        },
        peers::Peers,
        runtime::Runtime,
        store::StoreHandle,
    },
    logic::replica::Replica,
    model::io::{Effect, Input, Level},
};
use std::{sync::Arc, time::Instant};

/// Inputs taken in one go before effects are carried out: together they cost one transaction.
const BATCH: usize = 64;

/// Why the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub failed: bool,
    pub why: String,
}

/// Everything an effect may need.
pub struct Pump {
    pub replica: Replica,
    pub clock: Clock,
    pub inbox: Inbox,
    pub door: Door,
    pub peers: Peers,
    pub store: StoreHandle,
    pub provider: Option<Provider>,
    pub runtime: Runtime,
    pub script: Script,
    pub api: Arc<Api>,
    /// Sees each input first: what the data dir must remember of it.
    pub notebook: Notebook,
    pub keys: Keys,
}

impl Pump {
    /// Runs until the replica says `Stop`. The store is closed when this returns.
    pub async fn run(mut self) -> Ended {
        let mut alarm = async_io::Timer::never();
        let mut set_for: Option<Instant> = None;
        loop {
            while let Some(effect) = self.replica.poll_effect() {
                if let Some(ended) = self.carry_out(effect) {
                    return ended;
                }
            }
            // Each move of the alarm wakes the reactor's thread, and each message moves the deadline back: rather let the
            // alarm go off early now and then.
            let deadline = self.clock.instant(self.replica.poll_deadline());
            if set_for.is_none_or(|early| deadline < early) {
                alarm.set_at(deadline);
                set_for = Some(deadline);
            }
            let tick = async {
                (&mut alarm).await;
                Some(Input::Tick)
            };
            // The alarm comes first: a flood of inputs must not keep time from passing.
            let Some(first) = futures_lite::future::or(tick, self.inbox.next()).await else {
                return Ended { failed: true, why: "every door is closed".into() };
            };
            if matches!(first, Input::Tick) {
                set_for = None;
            }
            self.take_in(first);
            for _ in 1..BATCH {
                let Some(next) = self.inbox.try_next() else { break };
                self.take_in(next);
            }
        }
    }

    fn take_in(&mut self, input: Input) {
        self.notebook.note(&input);
        if matches!(input, Input::Provided { .. }) {
            self.api.activity.note(Work::Routine);
        }
        self.replica.handle(input, self.clock.now());
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Ended> {
        match effect {
            Effect::Persist { number, batch } => self.store.persist(number, batch),
            Effect::Send { node, address, to, messages } => self.peers.send(node, &address, to, messages),
            Effect::SendSnapshot { node, address, to, message, data } => self.peers.send_snapshot(node, &address, to, message, data),
            Effect::Reply { ticket, answer } => self.door.answer(ticket, answer),
            Effect::Enlist { node, address, member, keyring } => self.peers.enlist(node, &address, member, &keyring),
            Effect::Discharge { node, address, member } => self.peers.discharge(node, &address, member),
            Effect::Provide { id, call } => match &self.provider {
                Some(provider) => provider.carry_out(id, call),
                None => self.door.report(Input::Provided { id, outcome: Provider::absent() }),
            },
            Effect::Report { report, try_in_order } => self.peers.report(report, try_in_order),
            Effect::Changed { index: _, access } => {
                if let Some(access) = access {
                    match self.keys.learn(&access.authorities) {
                        Ok(true) => self.door.report(Input::Papers(self.keys.trust.papers())),
                        Ok(false) => {}
                        Err(error) => return Some(Ended { failed: true, why: error.to_string() }),
                    }
                    self.peers.keep_only(&access);
                    self.api.gate.learn(access);
                }
                self.api.activity.note(Work::Routine);
                self.api.changes.notify();
            }
            // Written before the next effect, which may be the answer that promises it.
            Effect::Keyring(keyring) => {
                if let Err(error) = self.keys.hold(keyring.as_ref()) {
                    return Some(Ended { failed: true, why: error.to_string() });
                }
            }
            Effect::Assignment(orders) => self.notebook.assign(&orders),
            Effect::Task(call) => {
                self.api.activity.note(Work::Asked);
                self.runtime.carry_out(call);
            }
            Effect::Script { id, call } => self.script.call(id, call),
            Effect::ScriptEnd => self.script.end(),
            Effect::Log { level, text } => match level {
                Level::Info => log::info!("{text}"),
                Level::Warn => log::warn!("{text}"),
                Level::Error => log::error!("{text}"),
            },
            Effect::Stop { failed, why } => return Some(Ended { failed, why }),
        }
        None
    }
}
