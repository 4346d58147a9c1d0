//! One node's runtime, and what tests say to it.

use crate::common::{self, BOUND, until};
use agent::{
    drivers::{
        runtime::{
            Runtime,
            lines::{Line, Reader, Wanted},
            process::start::Here,
        },
        syscall,
    },
    model::{
        ids::NodeId,
        io::Input,
        service::ServiceSpec,
        task::{Exit, TaskCall, TaskEvent, TaskNumber, TaskOrder},
    },
};
use async_channel::Receiver;
use futures_lite::{FutureExt, future::block_on};
use proto::Spawner;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A node's runtime on a folder of its own.
pub struct Rig {
    pub runtime: Runtime,
    pub inputs: Receiver<Input>,
    pub folder: PathBuf,
}

/// No other test's tasks carry it, also not one of another test process.
pub fn fresh_node() -> NodeId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NodeId(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Rig {
    pub fn open(folder: &Path, node: NodeId, spawner: &Spawner) -> Rig {
        let (report, inputs) = async_channel::unbounded();
        let here = Here { node, name: "n1".into(), host: "127.0.0.1".into() };
        let report = Arc::new(move |input| report.try_send(input).expect("the channel is unbounded"));
        let runtime = Runtime::start(folder.join("tasks"), here, spawner, report).expect("the folder can be made");
        Rig { runtime, inputs, folder: folder.join("tasks") }
    }

    pub async fn next(&self) -> Input {
        let late = async {
            async_io::Timer::after(BOUND).await;
            panic!("nothing was reported within {BOUND:?}");
        };
        async { self.inputs.recv().await.expect("the runtime lives") }.or(late).await
    }

    /// The next word about a task.
    pub async fn event(&self) -> (u64, TaskEvent) {
        match self.next().await {
            Input::Task { number, event } => (number.0, event),
            other => panic!("a task's event was expected, not {other:?}"),
        }
    }

    pub async fn found(&self) -> Vec<TaskOrder> {
        match self.next().await {
            Input::TasksFound { orders } => orders,
            other => panic!("TasksFound was expected, not {other:?}"),
        }
    }

    pub fn call_start(&self, order: TaskOrder) {
        self.runtime.carry_out(TaskCall::Start { order: Box::new(order), restarts: 0 });
    }

    pub async fn start(&self, order: TaskOrder) -> (u32, BTreeMap<u16, u16>) {
        self.call_start(order);
        match self.event().await.1 {
            TaskEvent::Up { pid, ports, adopted: false } => (pid, ports),
            other => panic!("it should be up: {other:?}"),
        }
    }

    pub async fn ended(&self) -> Exit {
        match self.event().await.1 {
            TaskEvent::Ended(exit) => exit,
            other => panic!("it should have ended: {other:?}"),
        }
    }

    pub async fn stop(&self, number: u64, signal: u32, timeout_ms: u64) -> Exit {
        self.runtime.carry_out(TaskCall::Stop { number: TaskNumber(number), signal, timeout_ms });
        self.ended().await
    }

    /// Waits until a task has written a line that `wanted` likes.
    pub fn line(&self, number: u64, wanted: impl Fn(&str) -> bool) -> String {
        let log = self.folder.join(number.to_string()).join("log");
        until("a line of the task", BOUND, || {
            let text = fs::read_to_string(&log).ok()?;
            text.lines().filter(|_| text.ends_with('\n')).find(|line| wanted(line)).map(str::to_owned)
        })
    }

    pub fn lines(&self, wanted: Wanted) -> Vec<Line> {
        let mut reader = Reader::open(self.runtime.logs.clone(), wanted).expect("the logs can be read");
        std::iter::from_fn(|| block_on(reader.next_line()).expect("the logs can be read")).collect()
    }
}

/// Runs a test on a fresh folder, with nothing found in it.
/// What a test counts of its whole process must be its own.
static ALONE: RwLock<()> = RwLock::new(());

pub fn on_a_node(test: impl AsyncFnOnce(Rig, &Path)) {
    let _with_others = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    on_the_node(test);
}

/// While no other test of this program has a node.
pub fn alone_on_a_node(test: impl AsyncFnOnce(Rig, &Path)) {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    on_the_node(test);
}

fn on_the_node(test: impl AsyncFnOnce(Rig, &Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), fresh_node(), &spawner);
        assert_eq!(rig.found().await, vec![]);
        test(rig, folder.path()).await;
    });
}

pub fn order(number: u64, command: &[&str]) -> TaskOrder {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let spec = ServiceSpec { command, ..ServiceSpec::default() };
    TaskOrder { number: TaskNumber(number), service: "web".into(), version: 1, wanted: true, spec, hold: None }
}

pub fn shell(number: u64, script: &str) -> TaskOrder {
    order(number, &["/bin/sh", "-c", script])
}

pub fn lives(pid: u32) -> bool {
    syscall::process_started(pid).is_some()
}
