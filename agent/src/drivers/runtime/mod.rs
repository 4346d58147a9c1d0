//! Runs this node's tasks.
//!
//! One actor takes calls in order. Each task that runs has a small future of its own, which sleeps until the kernel says that
//! the process ended (pidfd) or somebody asks it to; no thread, no timer, no process of ours stands beside it. Tasks outlive
//! the daemon: its next start finds them by their records, reports each, and goes on watching.

pub mod growth;
pub mod lines;
pub mod log_file;
pub mod process;
mod watch;

pub use process::end_recorded;

use self::{
    growth::Logs,
    process::{
        cgroup::Cgroups,
        record::{TaskFile, Tasks},
        start::{self, Here, Started},
    },
    watch::{StopWish, Watched},
};
use crate::{
    drivers::{helpers, syscall::ProcessHandle},
    model::{
        io::Input,
        task::{Exit, TaskCall, TaskEvent, TaskNumber, TaskOrder},
    },
};
use async_channel::{Receiver, Sender};
use proto::Spawner;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where inputs go.
pub type Report = Arc<dyn Fn(Input) + Send + Sync>;

/// Takes calls for the tasks of one node.
pub struct Runtime {
    calls: Sender<Word>,
    pub logs: Arc<Logs>,
}

/// What the actor hears.
enum Word {
    Call(Box<TaskCall>),
    Over(TaskNumber, Exit),
}

impl Runtime {
    /// Works in `folder` (`D/tasks`). First it reports what it finds there, then `TasksFound`, then it takes calls.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn start(folder: PathBuf, here: Here, spawner: &Spawner, report: Report) -> io::Result<Runtime> {
        let tasks = Tasks::open(folder, here.node)?;
        let logs = Logs::start(tasks.clone(), spawner);
        let (calls, words) = async_channel::unbounded();
        let actor = Actor {
            cgroups: Cgroups::find(here.node).map(Arc::new),
            here: Arc::new(here),
            tasks,
            logs: logs.clone(),
            spawner: spawner.clone(),
            report,
            over: calls.clone(),
            running: BTreeMap::new(),
        };
        spawner.0.spawn(actor.run(words)).detach();
        Ok(Runtime { calls, logs })
    }

    /// Never waits; what becomes of it is reported.
    pub fn carry_out(&self, call: TaskCall) {
        // The actor lives as long as the executor; without it nobody is left to care.
        let _ = self.calls.try_send(Word::Call(Box::new(call)));
    }
}

struct Running {
    ports: BTreeMap<u16, u16>,
    pid: u32,
    cgroup: Option<String>,
    stop: Sender<StopWish>,
    /// Forget it as soon as it has ended.
    forget: bool,
}

struct Actor {
    here: Arc<Here>,
    tasks: Tasks,
    cgroups: Option<Arc<Cgroups>>,
    logs: Arc<Logs>,
    spawner: Spawner,
    report: Report,
    over: Sender<Word>,
    running: BTreeMap<TaskNumber, Running>,
}

impl Actor {
    async fn run(mut self, words: Receiver<Word>) {
        let orders = self.adopt().await;
        (self.report)(Input::TasksFound { orders });
        while let Ok(word) = words.recv().await {
            match word {
                Word::Call(call) => match *call {
                    TaskCall::Start { order, restarts } => self.start(*order, restarts).await,
                    TaskCall::Stop { number, signal, timeout_ms } => self.stop(number, StopWish { signal, timeout_ms }),
                    TaskCall::Pause { number, on } => self.pause(number, on),
                    TaskCall::Forget { number } => self.forget(number).await,
                },
                Word::Over(number, exit) => {
                    self.logs.note_end(number);
                    let forget = self.running.remove(&number).is_some_and(|running| running.forget);
                    self.tell(number, TaskEvent::Ended(exit));
                    if forget {
                        self.forget(number).await;
                    }
                }
            }
        }
    }

    /// Finds the tasks of an earlier life again.
    async fn adopt(&mut self) -> Vec<TaskOrder> {
        let listed = self.tasks.clone();
        let found = helpers::unblock(move || listed.list()).await.unwrap_or_else(|error| {
            log::error!("cannot list the tasks on disk: {error}");
            process::record::Found::default()
        });
        for odd in &found.odd {
            log::warn!("{odd}");
        }
        let mut orders = Vec::new();
        for task in found.tasks {
            orders.push(task.order.clone());
            self.logs.watch(task.number());
            let number = task.number();
            match (task.exit, task.process().hold()) {
                (Some(exit), _) => self.tell(number, TaskEvent::Ended(exit)),
                (None, Ok(Some(process))) => {
                    log::info!("task {} still runs as process {}", task.id(), task.pid);
                    self.tell(number, TaskEvent::Up { pid: task.pid, ports: task.ports.clone(), adopted: true });
                    self.attend(task, process, false);
                }
                (None, held) => {
                    if let Err(error) = held {
                        log::warn!("cannot look for the process of task {}: {error}", task.id());
                    }
                    match watch::try_finish(task, false, &self.tasks, self.cgroups.clone()).await {
                        Ok(exit) => self.tell(number, TaskEvent::Ended(exit)),
                        Err(left) => self.end_later(*left),
                    }
                }
            }
        }
        orders
    }

    async fn start(&mut self, order: TaskOrder, restarts: u32) {
        let number = order.number;
        if let Some(running) = self.running.get(&number) {
            // Never a second copy: whoever asks again hears of the first.
            return self.tell(number, TaskEvent::Up { pid: running.pid, ports: running.ports.clone(), adopted: true });
        }
        let taken: BTreeSet<u16> = self.running.values().flat_map(|running| running.ports.values().copied()).collect();
        let (here, tasks, cgroups) = (self.here.clone(), self.tasks.clone(), self.cgroups.clone());
        // One at a time: a fork beside it would inherit the pipe that holds the child back.
        let started = helpers::unblock(move || start::start(&here, &tasks, cgroups.as_deref(), order, restarts, &taken)).await;
        self.logs.watch(number);
        match started {
            Ok(Started { task, process }) => {
                self.tell(number, TaskEvent::Up { pid: task.pid, ports: task.ports.clone(), adopted: false });
                self.attend(task, process, true);
            }
            Err(why) => self.tell(number, TaskEvent::NotStarted { why }),
        }
    }

    fn attend(&mut self, task: TaskFile, process: ProcessHandle, ours: bool) {
        let number = task.number();
        let wishes = self.keep(&task);
        let watched = Watched { task, tasks: self.tasks.clone(), cgroups: self.cgroups.clone(), wishes, ours };
        self.await_end(number, watched.until_ended(process));
    }

    /// Its first process is gone and something else of it is not: until that is, it counts as running.
    fn end_later(&mut self, task: TaskFile) {
        let number = task.number();
        drop(self.keep(&task));
        let (tasks, cgroups) = (self.tasks.clone(), self.cgroups.clone());
        self.await_end(number, async move { watch::finish(task, false, &tasks, cgroups).await });
    }

    /// Where its wishes to stop come out.
    fn keep(&mut self, task: &TaskFile) -> Receiver<StopWish> {
        let (stop, wishes) = async_channel::bounded(4);
        let running = Running { ports: task.ports.clone(), pid: task.pid, cgroup: task.cgroup.clone(), stop, forget: false };
        self.running.insert(task.number(), running);
        wishes
    }

    fn await_end(&self, number: TaskNumber, ended: impl Future<Output = Exit> + Send + 'static) {
        let over = self.over.clone();
        let watch = async move {
            let _ = over.send(Word::Over(number, ended.await)).await;
        };
        self.spawner.0.spawn(watch).detach();
    }

    fn stop(&mut self, number: TaskNumber, wish: StopWish) {
        match self.running.get(&number) {
            // Full: it was asked several times already and has not even looked.
            Some(running) => drop(running.stop.try_send(wish)),
            None => {
                let exit = self.tasks.read(number).ok().flatten().and_then(|task| task.exit).unwrap_or(Exit::Unknown);
                self.tell(number, TaskEvent::Ended(exit));
            }
        }
    }

    /// Never waits: the group freezes by itself, and signals are sent.
    fn pause(&mut self, number: TaskNumber, on: bool) {
        let Some(running) = self.running.get(&number) else { return };
        if let Err(error) = process::pause::pause(running.pid, running.cgroup.as_deref().map(Path::new), on) {
            log::warn!("cannot {} task {}: {error}", if on { "pause" } else { "go on with" }, number.0);
        }
    }

    async fn forget(&mut self, number: TaskNumber) {
        if let Some(running) = self.running.get_mut(&number) {
            running.forget = true;
            return self.stop(number, StopWish { signal: 9, timeout_ms: 0 });
        }
        self.logs.unwatch(number);
        let tasks = self.tasks.clone();
        if let Err(error) = helpers::unblock(move || tasks.forget(number)).await {
            log::warn!("cannot delete the record of task {}: {error}", number.0);
        }
    }

    fn tell(&self, number: TaskNumber, event: TaskEvent) {
        (self.report)(Input::Task { number, event });
    }
}
