//! What runs on a test's cluster, and whether it answers.

use crate::common::{Project, wait_until};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub id: String,
    pub node: String,
    pub state: String,
    pub pid: u32,
    pub address: String,
    pub port: u16,
}

impl Task {
    /// What it says to `GET /`, if it answers within half a second.
    pub fn says(&self) -> Option<String> {
        let address = format!("{}:{}", self.address, self.port).parse().ok()?;
        let patience = Duration::from_millis(500);
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.trim_end().to_owned())
    }

    pub fn answers(&self) -> bool {
        self.says().is_some_and(|body| body.contains(&format!(" from {} ", self.id)))
    }
}

impl Project {
    /// The tasks of a service that are to run, as the cluster tells.
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        let status = self.status().unwrap_or_default();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let tasks = services.iter().find(|s| s["name"] == service).and_then(|s| s["tasks"].as_array().cloned()).unwrap_or_default();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let one = |task: &serde_json::Value| Task {
            id: word(&task["id"]),
            node: word(&task["node"]),
            state: word(&task["state"]),
            pid: task["pid"].as_u64().unwrap_or(0) as u32,
            address: word(&task["address"]),
            port: task["ports"].as_object().and_then(|ports| ports.values().next()?.as_u64()).unwrap_or(0) as u16,
        };
        tasks.iter().map(one).filter(|task| !matches!(task.state.as_str(), "stopping" | "exited" | "failed")).collect()
    }

    pub fn answering_tasks(&self, service: &str) -> Vec<Task> {
        self.tasks(service).into_iter().filter(Task::answers).collect()
    }

    /// Waits until exactly `count` tasks are to run and all of them answer; says how long that took.
    pub fn wait_for_tasks(&self, service: &str, count: usize, within: Duration) -> Duration {
        let began = Instant::now();
        let all = || {
            let tasks = self.tasks(service);
            tasks.len() == count && tasks.iter().all(Task::answers)
        };
        wait_until(within, &format!("{count} answering tasks of {service}"), all, || self.tell());
        began.elapsed()
    }

    /// Process ids by task.
    pub fn task_pids(&self, service: &str) -> BTreeMap<String, u32> {
        self.tasks(service).into_iter().map(|task| (task.id, task.pid)).collect()
    }
}

pub fn nodes_of(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.node.clone()).collect()
}
