//! Tasks: where the plan placed them, and what their nodes say of them.

use super::{State, apply::Outcome};
use crate::model::{
    ids::NodeId,
    limits::{EVENT_TEXT_BYTES_MAX, TASKS_MAX, TASKS_PER_NODE_MAX},
    service::Roll,
    settings::BelowMin,
    task::{Exit, Hold, TaskNumber, TaskOrder, TaskRecord, TaskSeen, TaskState},
};

impl State {
    /// What a node is to run, and to stop.
    pub fn orders_of(&self, node: NodeId) -> Vec<TaskOrder> {
        let order = |task: &TaskRecord| {
            let spec = self.services.get(&task.service).and_then(|s| s.specs.get(&task.version));
            // Of a removed service nothing is wanted any more: how to stop it, the node knows.
            let (service, spec) = (task.service.clone(), spec.cloned().unwrap_or_default());
            let wanted = task.wanted && !spec.command.is_empty();
            TaskOrder { number: task.number, service, version: task.version, wanted, spec, hold: self.hold() }
        };
        self.tasks.values().filter(|t| t.node == node).map(order).collect()
    }

    /// What tasks do while too few nodes are there.
    pub fn hold(&self) -> Option<Hold> {
        match self.settings.below_min {
            BelowMin::Stop if self.below_min => Some(Hold::Stop),
            BelowMin::Pause if self.below_min => Some(Hold::Pause),
            _ => None,
        }
    }

    /// Which of these reports say something new of the node's tasks.
    pub fn news_of(&self, node: NodeId, seen: &[TaskSeen]) -> Vec<TaskSeen> {
        let is_new = |seen: &TaskSeen| self.tasks.get(&seen.number).is_some_and(|t| t.node == node && t.seen != *seen);
        seen.iter().map(|seen| self.as_kept(seen.clone())).filter(is_new).collect()
    }

    /// What is kept of a node's word on a task: no more than its service asks for, however much the node says.
    fn as_kept(&self, mut seen: TaskSeen) -> TaskSeen {
        let task = self.tasks.get(&seen.number);
        let spec = task.and_then(|task| self.services.get(&task.service)?.specs.get(&task.version));
        seen.ports.retain(|declared, _| spec.is_some_and(|spec| spec.ports.iter().any(|port| port.port == *declared)));
        seen.error = super::events::bounded(&seen.error, EVENT_TEXT_BYTES_MAX);
        seen
    }

    pub(super) fn task_place(&mut self, name: String, version: u64, node: NodeId) -> Outcome {
        let Some(service) = self.services.get(&name) else {
            return Outcome::refused("not_found", format!("no service `{name}`"));
        };
        // While an update is stopped, what is missing runs as before it.
        let kept = matches!(service.roll, Roll::Stopped(_)) && service.specs.contains_key(&version);
        if version != service.version && !kept {
            return Outcome::refused("stale", format!("service `{name}` is at version {}", service.version));
        }
        match self.nodes.get(&node) {
            None => return Outcome::refused("not_found", format!("no node {node}")),
            Some(record) if !self.takes_tasks(record) => return Outcome::refused("stale", format!("node {} takes no tasks", record.name)),
            Some(_) => {}
        }
        if self.tasks.len() >= TASKS_MAX || self.tasks.values().filter(|t| t.node == node).count() >= TASKS_PER_NODE_MAX {
            return Outcome::refused("limit", format!("a cluster has at most {TASKS_MAX} tasks, a node {TASKS_PER_NODE_MAX}"));
        }
        self.last_task += 1;
        let number = TaskNumber(self.last_task);
        let seen = TaskSeen {
            number,
            state: TaskState::Pending,
            exit: None,
            error: String::new(),
            ports: Default::default(),
            restarts: 0,
            pid: 0,
        };
        let record = TaskRecord { number, service: name, version, node, wanted: true, seen, placed_ms: self.stamp_ms, started: false };
        self.tasks.insert(number, record);
        Outcome::Done
    }

    pub(super) fn task_stop(&mut self, number: TaskNumber) -> Outcome {
        let Some(task) = self.tasks.get_mut(&number) else {
            return Outcome::refused("not_found", format!("no task {}", number.0));
        };
        task.wanted = false;
        self.judge_services();
        Outcome::Done
    }

    pub(super) fn task_forget(&mut self, number: TaskNumber) -> Outcome {
        let Some(task) = self.tasks.get(&number) else {
            return Outcome::refused("not_found", format!("no task {}", number.0));
        };
        let gone = !self.nodes.contains_key(&task.node);
        if !gone && (task.wanted || !task.seen.state.ended()) {
            return Outcome::refused("stale", format!("task {} has not ended", number.0));
        }
        let service = task.service.clone();
        self.tasks.remove(&number);
        self.drop_unused_specs(&service);
        self.judge_services();
        Outcome::Done
    }

    /// A node may speak of its own tasks only; what it says of others is passed over.
    pub(super) fn task_seen(&mut self, node: NodeId, tasks: Vec<TaskSeen>) -> Outcome {
        for seen in tasks.into_iter().take(TASKS_PER_NODE_MAX) {
            let seen = self.as_kept(seen);
            let Some(task) = self.tasks.get_mut(&seen.number).filter(|t| t.node == node) else { continue };
            let before = std::mem::replace(&mut task.seen, seen);
            task.started |= task.seen.state == TaskState::Running;
            let subject = format!("{}.{}", task.service, task.number.0);
            let (ended, runs) =
                (has_ended(&before, &task.seen), task.seen.state == TaskState::Running && before.state != TaskState::Running);
            let (now, wanted) = (task.seen.clone(), task.wanted);
            let on = self.nodes.get(&node).map_or_else(|| node.to_string(), |n| n.name.clone());
            if ended {
                self.event("task.exited", &subject, &format!("on {on}: {}", how_it_ended(&now, wanted)));
            }
            if runs {
                self.event("task.started", &subject, &format!("on {on}"));
            }
        }
        self.judge_services();
        Outcome::Done
    }
}

fn has_ended(before: &TaskSeen, now: &TaskSeen) -> bool {
    now.restarts > before.restarts || (now.state.ended() && !before.state.ended() && before.state != TaskState::Pending)
}

fn how_it_ended(seen: &TaskSeen, wanted: bool) -> String {
    match seen.exit {
        _ if !wanted => "stopped".into(),
        _ if !seen.error.is_empty() => seen.error.clone(),
        Some(Exit::Code(code)) => format!("exit code {code}"),
        Some(Exit::Signal(signal)) => format!("signal {signal}"),
        Some(Exit::Unknown) | None => "ended".into(),
    }
}
