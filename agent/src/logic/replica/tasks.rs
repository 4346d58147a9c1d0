//! This node's tasks: where its orders come from, and how the cluster learns what became of them.
//!
//! A Raft member reads its orders from its own copy of the state, everybody else from the answer to a report. A copy
//! of the state may be behind when the agent starts, so it counts only from the index on that a leader named in this
//! life of the agent. What the cluster's record says of a task and what the keeper knows are compared at
//! every step; a difference is reported until it is gone.
//!
//! What a leader said last is kept on disk, before it is carried out. An agent that starts and finds no manager goes by
//! that after a while: what runs already runs on at once, what ends is started again then.

use super::Replica;
use crate::{
    logic::keeper::Keeper,
    model::{
        codec,
        command::Command,
        io::{Effect, Level},
        task::{Orders, TaskEvent, TaskNumber, TaskOrder, TaskSeen},
    },
};

/// Reports that bring news of tasks come at most this often.
const NEWS_INTERVAL_MS: u64 = 100;
/// A removed node waits for its tasks to end, but not longer.
const LEAVE_WITHIN_MS: u64 = 15_000;

#[derive(Default)]
pub(super) struct Tasks {
    keeper: Keeper,
    /// The newest answer of a leader in this life of the agent; none before the first.
    answered: Option<Orders>,
    orders_are_old: bool,
    /// The assignment on disk: a digest, to write it only when it changes; and itself, until a leader is heard or given up.
    assigned: Option<u64>,
    remembered: Option<Orders>,
    alone_at: u64,
    /// `answered` is what was remembered: the first word of a leader beats it, whatever its index.
    alone: bool,
    /// What the last report said, and when.
    told: Vec<TaskSeen>,
    told_at: u64,
    /// This node was removed: when it stops waiting for its tasks to end.
    leaving_by: Option<u64>,
    /// The agent was asked to stop, and to end its tasks first.
    ending: bool,
}

impl Tasks {
    pub(super) fn new(remembered: Option<Orders>, alone_at: u64) -> Tasks {
        let assigned = remembered.as_ref().map(|orders| digest(&orders.tasks));
        Tasks { orders_are_old: true, assigned, remembered, alone_at, ..Tasks::default() }
    }
}

impl Replica {
    pub(super) fn handle_task(&mut self, number: TaskNumber, event: TaskEvent) {
        self.tasks.keeper.handle(number, event, self.now.mono);
    }

    pub(super) fn handle_tasks_found(&mut self, orders: Vec<TaskOrder>) {
        self.tasks.keeper.handle_found(orders, self.now.mono);
    }

    /// The cluster removed this node: its tasks end first, then the agent.
    pub(super) fn handle_removed(&mut self) {
        self.tasks.leaving_by.get_or_insert(self.now.mono + LEAVE_WITHIN_MS);
    }

    /// The agent is about to stop, and its tasks with it. Answers how long that may take, milliseconds.
    pub(super) fn end_tasks(&mut self) -> u64 {
        self.tasks.ending = true;
        LEAVE_WITHIN_MS
    }

    pub(super) fn tasks_are_ending(&self) -> bool {
        self.tasks.ending && self.tasks.keeper.knows() && !self.tasks.keeper.is_idle()
    }

    /// The leader's word on what this node is to run.
    pub(super) fn handle_orders(&mut self, orders: Orders) {
        if self.tasks.alone || self.tasks.answered.as_ref().is_none_or(|known| known.index <= orders.index) {
            self.tasks.alone = false;
            self.tasks.answered = Some(orders);
            self.tasks.orders_are_old = true;
        }
    }

    /// The state is about to be given up: what it says of this node's tasks is kept.
    pub(super) fn keep_orders(&mut self) {
        let known = self.tasks.answered.as_ref().map(|answered| answered.index);
        if self.has_own_records() && known.is_some_and(|index| index <= self.applied) {
            self.tasks.answered = Some(Orders { index: self.applied, tasks: self.state.orders_of(self.config.node) });
        }
        self.tasks.orders_are_old = true;
    }

    /// The state's tasks or services may have changed.
    pub(super) fn orders_changed(&mut self) {
        self.tasks.orders_are_old = true;
    }

    /// Gives the keeper its orders and the runtime its calls.
    pub(super) fn tend_tasks(&mut self) {
        if self.stopped {
            return;
        }
        if self.tasks.ending {
            self.tasks.keeper.set_orders([]);
            self.tasks.keeper.set_trusted(true);
            let calls = self.tasks.keeper.poll(self.now.mono);
            return self.effects.extend(calls.into_iter().map(Effect::Task));
        }
        self.remember_if_alone();
        if std::mem::take(&mut self.tasks.orders_are_old) {
            self.refresh_orders();
        }
        if let Some(by) = self.tasks.leaving_by {
            self.tasks.keeper.set_orders([]);
            self.tasks.keeper.set_trusted(true);
            let calls = self.tasks.keeper.poll(self.now.mono);
            self.effects.extend(calls.into_iter().map(Effect::Task));
            if !self.tasks.keeper.knows() || self.tasks.keeper.is_idle() || self.now.mono >= by {
                self.stop(true, "this node was removed from the cluster".into());
            }
            return;
        }
        let calls = self.tasks.keeper.poll(self.now.mono);
        self.effects.extend(calls.into_iter().map(Effect::Task));
        if self.own_news().is_some() {
            self.plan_soon();
        }
    }

    fn has_own_records(&self) -> bool {
        self.consensus.is_some() && self.state.nodes.contains_key(&self.config.node)
    }

    fn refresh_orders(&mut self) {
        if self.leads_settled() && self.tasks.answered.is_none() {
            self.tasks.answered = Some(Orders { index: self.applied, tasks: Vec::new() });
        }
        let Some(answered) = &self.tasks.answered else {
            // Old records are good for knowing how to look after what runs, not for starting or ending anything.
            return self.tasks.keeper.set_trusted(false);
        };
        let orders = if self.has_own_records() && self.applied >= answered.index {
            Orders { index: self.applied, tasks: self.state.orders_of(self.config.node) }
        } else {
            answered.clone()
        };
        let digest = digest(&orders.tasks);
        if self.tasks.assigned != Some(digest) && !(self.tasks.assigned.is_none() && orders.tasks.is_empty()) {
            self.tasks.assigned = Some(digest);
            self.effects.push_back(Effect::Assignment(orders.clone()));
        }
        self.tasks.keeper.set_trusted(true);
        self.tasks.keeper.set_orders(orders.tasks);
    }

    /// Nobody told this node in time what it is to run.
    fn remember_if_alone(&mut self) {
        if self.tasks.answered.is_some() {
            self.tasks.remembered = None;
        } else if self.now.mono >= self.tasks.alone_at
            && let Some(orders) = self.tasks.remembered.take()
        {
            self.log(Level::Warn, "no manager is heard; this node's tasks are looked after by its last assignment".into());
            (self.tasks.answered, self.tasks.alone, self.tasks.orders_are_old) = (Some(orders), true, true);
        }
    }

    /// On the leader: what its own tasks came to, if the record says otherwise.
    pub(super) fn own_news(&self) -> Option<Command> {
        if !self.leads_settled() || !self.tasks.keeper.has_work() {
            return None;
        }
        let tasks = self.state.news_of(self.config.node, &self.tasks.keeper.seen());
        (!tasks.is_empty()).then_some(Command::TaskSeen { node: self.config.node, tasks })
    }

    /// What a report says of this node's tasks.
    pub(super) fn tell_tasks(&mut self) -> Vec<TaskSeen> {
        self.tasks.told = self.tasks.keeper.seen();
        self.tasks.told_at = self.now.mono;
        self.tasks.told.clone()
    }

    /// When a report should go out for the tasks' sake, on a node that does not lead.
    pub(super) fn news_due(&self) -> Option<u64> {
        if !self.tasks.keeper.knows() || self.consensus.as_ref().is_some_and(|c| c.is_leader()) {
            return None;
        }
        let unheard =
            self.has_own_records() && self.tasks.answered.is_none() && self.state.tasks.values().any(|t| t.node == self.config.node);
        if !unheard && !self.tasks.keeper.has_work() {
            return None;
        }
        let untold = self.tasks.keeper.seen() != self.tasks.told;
        let unrecorded = self.has_own_records() && !self.state.news_of(self.config.node, &self.tasks.keeper.seen()).is_empty();
        match (untold, unrecorded || unheard) {
            (true, _) => Some(self.tasks.told_at + NEWS_INTERVAL_MS),
            (false, true) => Some(self.tasks.told_at + crate::model::limits::REPORT_INTERVAL_MS),
            (false, false) => None,
        }
    }

    pub(super) fn tasks_deadline(&self) -> Option<u64> {
        let leaving = self.tasks.leaving_by.into_iter();
        let alone = self.tasks.remembered.is_some().then_some(self.tasks.alone_at);
        self.tasks.keeper.deadline().into_iter().chain(leaving).chain(alone).min()
    }
}

fn digest(orders: &Vec<TaskOrder>) -> u64 {
    codec::fingerprint(&codec::encode(orders))
}
