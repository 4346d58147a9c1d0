//! Hears when logs grow, so that their lines get times and their files stay bounded, and wakes those who follow them.
//!
//! While nothing is written nothing runs here. A busy log is looked at five times a second, however much it writes.

use super::{log_file::LogFile, process::record::Tasks};
use crate::{
    drivers::{syscall::Growth, wall_clock::wall_ms},
    model::{limits, task::TaskNumber},
};
use async_channel::{Receiver, Sender};
use futures_lite::future;
use proto::Spawner;
use smol::Async;
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Between two looks at what grew.
const GAP: Duration = Duration::from_millis(200);
/// Between two looks at the logs that the kernel does not say of when they grow.
const SLOW: Duration = Duration::from_secs(2);
/// In the place of a watch's number: the kernel says nothing of this log.
const UNHEARD: i32 = -1;
/// What the kernel says when it could not remember all that grew (`IN_Q_OVERFLOW`, inotify(7)).
const ANY: i32 = -1;

/// The logs of this node's tasks.
pub struct Logs {
    pub(super) tasks: Tasks,
    growth: Option<Async<Growth>>,
    watched: Mutex<BTreeMap<TaskNumber, i32>>,
    followers: Mutex<Vec<Sender<()>>>,
    /// Told of each log that cannot be heard.
    unheard: Sender<()>,
    warned: AtomicBool,
}

impl Logs {
    pub(super) fn start(tasks: Tasks, spawner: &Spawner) -> Arc<Logs> {
        let growth = Growth::new().and_then(Async::new_nonblocking);
        if let Err(error) = &growth {
            log::warn!("cannot hear when logs grow, so they are looked at every {} s: {error}", SLOW.as_secs());
        }
        let (unheard, some_unheard) = async_channel::bounded(1);
        let warned = AtomicBool::new(growth.is_err());
        let growth = growth.ok();
        let logs = Arc::new(Logs { tasks, growth, watched: Mutex::default(), followers: Mutex::default(), unheard, warned });
        let watching = logs.clone();
        let watch = async move {
            future::zip(watching.hear(), watching.look_slowly(some_unheard)).await;
        };
        spawner.0.spawn(watch).detach();
        logs
    }

    /// Takes care of a task's log from here on.
    pub(super) fn watch(&self, number: TaskNumber) {
        let file = LogFile::in_folder(&self.tasks.folder(number));
        complain(number, file.catch_up(wall_ms()));
        let wd = match self.growth.as_ref().map(|growth| growth.get_ref().watch(&file.log)) {
            Some(Ok(wd)) => Some(wd),
            // Its start came to nothing before it had a log.
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => None,
            Some(Err(error)) => {
                self.warn(&error);
                Some(UNHEARD)
            }
            None => Some(UNHEARD),
        };
        if let Some(wd) = wd {
            self.watched().insert(number, wd);
        }
        if wd == Some(UNHEARD) {
            // Full: it knows already.
            let _ = self.unheard.try_send(());
        }
        self.notify();
    }

    /// Once: whatever keeps one from being heard (`max_user_watches`) keeps the next.
    fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!("cannot hear when some logs grow, so they are looked at every {} s: {error}", SLOW.as_secs());
        }
    }

    pub(super) fn unwatch(&self, number: TaskNumber) {
        let gone = self.watched().remove(&number);
        if let (Some(wd), Some(growth)) = (gone, &self.growth) {
            growth.get_ref().unwatch(wd);
        }
    }

    /// Its last lines get their time now: what follows a task comes after it.
    pub(super) fn note_end(&self, number: TaskNumber) {
        if complain(number, LogFile::in_folder(&self.tasks.folder(number)).look(wall_ms())) {
            self.notify();
        }
    }

    /// Woken after each look at which something had grown, and after each start. `None`: `limits::LOG_STREAMS_MAX` follow already.
    pub fn follow(&self) -> Option<Receiver<()>> {
        let mut followers = self.followers();
        followers.retain(|follower| !follower.is_closed());
        if followers.len() >= limits::LOG_STREAMS_MAX {
            return None;
        }
        let (wake, woken) = async_channel::bounded(1);
        followers.push(wake);
        Some(woken)
    }

    async fn hear(&self) {
        let Some(growth) = &self.growth else { return };
        loop {
            match growth.read_with(Growth::next).await {
                Ok(grown) => self.look(|wd| grown.contains(&wd) || grown.contains(&ANY)),
                Err(error) => return log::error!("cannot hear any more when logs grow: {error}"),
            }
            async_io::Timer::after(GAP).await;
        }
    }

    async fn look_slowly(&self, some_unheard: Receiver<()>) {
        loop {
            let none = !self.watched().values().any(|wd| *wd == UNHEARD);
            // No timer where none is needed: each wakes the node.
            if none && some_unheard.recv().await.is_err() {
                return;
            }
            async_io::Timer::after(SLOW).await;
            self.look(|wd| wd == UNHEARD);
        }
    }

    /// Looks at the logs whose watch's number `concerns`.
    fn look(&self, concerns: impl Fn(i32) -> bool) {
        let ours: Vec<TaskNumber> = self.watched().iter().filter(|(_, wd)| concerns(**wd)).map(|(number, _)| *number).collect();
        let mut any = false;
        for number in ours {
            any |= complain(number, LogFile::in_folder(&self.tasks.folder(number)).look(wall_ms()));
        }
        if any {
            self.notify();
        }
    }

    fn notify(&self) {
        self.followers().retain(|follower| !follower.is_closed() && (follower.try_send(()).is_ok() || follower.is_full()));
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<TaskNumber, i32>> {
        self.watched.lock().expect("no code that holds this lock can panic")
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Sender<()>>> {
        self.followers.lock().expect("no code that holds this lock can panic")
    }
}

fn complain<T: Default>(number: TaskNumber, outcome: io::Result<T>) -> T {
    outcome.unwrap_or_else(|error| {
        log::warn!("the log of task {}: {error}", number.0);
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;
    use futures_lite::FutureExt;

    #[test]
    fn a_log_that_the_kernel_does_not_watch_is_looked_at_though_another_grows_all_the_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tasks = Tasks::open(folder.path().to_owned(), NodeId(1)).expect("the disk works");
        let executor = Arc::new(smol::Executor::new());
        let logs = Logs::start(tasks.clone(), &Spawner(executor.clone()));
        let (silent, busy, missing) = (TaskNumber(1), TaskNumber(2), TaskNumber(3));
        for number in [silent, busy] {
            tasks.log_to_append(number).expect("the disk works");
            logs.watch(number);
        }
        logs.watch(missing);
        assert!(!logs.watched().contains_key(&missing), "there is nothing to hear of");
        // As if the user had no watch left.
        logs.growth.as_ref().expect("there is inotify").get_ref().unwatch(logs.watched()[&silent]);
        logs.watched().insert(silent, UNHEARD);
        logs.unheard.try_send(()).expect("nobody told it before");
        let append = |number, text: &str| {
            let mut log = tasks.log_to_append(number).expect("the disk works");
            io::Write::write_all(&mut log, text.as_bytes()).expect("the disk works");
        };
        append(silent, "one\n");
        let woken = logs.follow().expect("nobody else follows");
        let seen = async {
            while LogFile::in_folder(&tasks.folder(silent)).looks().expect("the disk works").is_empty() {
                append(busy, "two\n");
                woken.recv().await.expect("it lives");
            }
        };
        let late = async {
            async_io::Timer::after(SLOW * 15).await;
            panic!("nobody looked at it");
        };
        smol::block_on(executor.run(seen.or(late)));
        assert!(!LogFile::in_folder(&tasks.folder(busy)).looks().expect("the disk works").is_empty());
    }
}
