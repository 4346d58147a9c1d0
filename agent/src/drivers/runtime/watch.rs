//! One running task, from its start (or from when it was found again) to the end of the last of its processes.

use super::process::{
    cgroup::Cgroups,
    record::{TaskFile, Tasks},
    sweep::sweep,
};
use crate::{
    drivers::{
        helpers,
        syscall::{self, ProcessHandle, SIGKILL, Status},
    },
    model::task::Exit,
};
use async_channel::Receiver;
use futures_lite::FutureExt;
use smol::Async;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two tries to end what does not end.
const SWEEP_AGAIN: Duration = Duration::from_secs(5);

/// Somebody wants it to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopWish {
    pub signal: u32,
    pub timeout_ms: u64,
}

pub(super) struct Watched {
    pub task: TaskFile,
    pub tasks: Tasks,
    pub cgroups: Option<Arc<Cgroups>>,
    pub wishes: Receiver<StopWish>,
    /// Our child: its number stays its own until we collect it. One that was found again is init's.
    pub ours: bool,
}

enum Event {
    Ended,
    Wish(StopWish),
    Late,
}

impl Watched {
    pub async fn until_ended(self, process: ProcessHandle) -> Exit {
        let process = match Async::new_nonblocking(process) {
            Ok(process) => process,
            Err(error) => {
                // Out of descriptors or the like: a task that cannot be watched is not left alone.
                log::error!("cannot watch task {}, so it ends: {error}", self.task.id());
                return finish(self.task, self.ours, &self.tasks, self.cgroups).await;
            }
        };
        let mut deadline: Option<Instant> = None;
        loop {
            match self.next(&process, deadline).await {
                Event::Ended => break,
                Event::Wish(wish) => {
                    let signal = i32::try_from(wish.signal).unwrap_or(syscall::SIGTERM);
                    // The leader is alive or not collected, so the group's number is its own.
                    if let Err(error) = syscall::signal_group(self.task.pid, signal) {
                        log::warn!("cannot signal task {}: {error}", self.task.id());
                    }
                    let end = Instant::now() + Duration::from_millis(wish.timeout_ms);
                    deadline = Some(deadline.map_or(end, |before| before.min(end)));
                }
                Event::Late => {
                    if let Err(error) = process.get_ref().signal(SIGKILL) {
                        log::warn!("cannot kill task {}: {error}", self.task.id());
                    }
                    let _ = syscall::signal_group(self.task.pid, SIGKILL);
                    deadline = None;
                }
            }
        }
        finish(self.task, self.ours, &self.tasks, self.cgroups).await
    }

    async fn next(&self, process: &Async<ProcessHandle>, deadline: Option<Instant>) -> Event {
        let ended = async {
            while let Err(error) = process.readable().await {
                log::error!("cannot watch task {}: {error}", self.task.id());
                std::future::pending::<()>().await;
            }
            Event::Ended
        };
        let wish = async {
            match self.wishes.recv().await {
                Ok(wish) => Event::Wish(wish),
                Err(_) => std::future::pending().await,
            }
        };
        let late = async {
            match deadline {
                Some(at) => async_io::Timer::at(at).await,
                None => std::future::pending().await,
            };
            Event::Late
        };
        ended.or(wish).or(late).await
    }
}

/// Kills what is left of a task, collects it and writes down how it ended. Until nothing is left, however long that takes: a
/// task that is said to have ended is started again elsewhere, and what is left would be a second copy.
pub(super) async fn finish(mut task: TaskFile, ours: bool, tasks: &Tasks, cgroups: Option<Arc<Cgroups>>) -> Exit {
    loop {
        match try_finish(task, ours, tasks, cgroups.clone()).await {
            Ok(exit) => return exit,
            Err(left) => task = *left,
        }
        async_io::Timer::after(SWEEP_AGAIN).await;
    }
}

/// The same, once.
///
/// # Errors
/// Something is left of this task.
pub(super) async fn try_finish(
    mut task: TaskFile,
    ours: bool,
    tasks: &Tasks,
    cgroups: Option<Arc<Cgroups>>,
) -> Result<Exit, Box<TaskFile>> {
    let tasks = tasks.clone();
    helpers::unblock(move || {
        if let Err(error) = sweep(&task, ours) {
            log::error!("task {} has not ended yet: {error}", task.id());
            return Err(Box::new(task));
        }
        let exit = match ours.then(|| syscall::collect(task.pid)).flatten() {
            Some(Status::Code(code)) => Exit::Code(code),
            Some(Status::Signal(signal)) => Exit::Signal(signal),
            None => Exit::Unknown,
        };
        if let (Some(cgroups), Some(leaf)) = (cgroups, &task.cgroup)
            && let Err(error) = cgroups.remove(Path::new(leaf))
        {
            log::warn!("cannot remove the cgroup of task {}: {error}", task.id());
        }
        task.exit = Some(exit);
        if let Err(error) = tasks.write_end(&task) {
            log::warn!("cannot write down how task {} ended: {error}", task.id());
        }
        Ok(exit)
    })
    .await
}
