//! Hears when logs grow, so that their lines get times and their files stay bounded, and wakes those who follow them.
//!
//! While nothing is written nothing runs here. A busy log is looked at five times a second, however much it writes.

use super::{log_file::LogFile, process::record::Tasks};
use crate::{
    drivers::{syscall::Growth, wall_clock::wall_ms},
    model::{limits, task::TaskNumber},
};
use async_channel::{Receiver, Sender};
use proto::Spawner;
use smol::Async;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Between two looks at what grew.
const GAP: Duration = Duration::from_millis(200);
/// Between two looks at every log, where the kernel does not say which grew.
const SLOW: Duration = Duration::from_secs(2);

/// The logs of this node's tasks.
pub struct Logs {
    pub(super) tasks: Tasks,
    growth: Option<Async<Growth>>,
    watched: Mutex<BTreeMap<TaskNumber, i32>>,
    followers: Mutex<Vec<Sender<()>>>,
}

impl Logs {
    pub(super) fn start(tasks: Tasks, spawner: &Spawner) -> Arc<Logs> {
        let growth = Growth::new().and_then(Async::new_nonblocking);
        if let Err(error) = &growth {
            log::warn!("cannot hear when logs grow, so they are looked at every {} s: {error}", SLOW.as_secs());
        }
        let logs = Arc::new(Logs { tasks, growth: growth.ok(), watched: Mutex::default(), followers: Mutex::default() });
        let watching = logs.clone();
        spawner.0.spawn(async move { watching.run().await }).detach();
        logs
    }

    /// Takes care of a task's log from here on.
    pub(super) fn watch(&self, number: TaskNumber) {
        let file = LogFile::in_folder(&self.tasks.folder(number));
        complain(number, file.catch_up(wall_ms()));
        let wd = self.growth.as_ref().and_then(|growth| growth.get_ref().watch(&file.log).ok()).unwrap_or(-1);
        self.watched().insert(number, wd);
        self.notify();
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

    async fn run(&self) {
        loop {
            let grown = match &self.growth {
                Some(growth) => match growth.read_with(Growth::next).await {
                    Ok(numbers) => numbers,
                    Err(error) => return log::error!("cannot hear any more when logs grow: {error}"),
                },
                None => vec![-1],
            };
            let ours: Vec<TaskNumber> = self.watched().iter().filter(|(_, wd)| grown.contains(wd)).map(|(number, _)| *number).collect();
            let mut any = false;
            for number in ours {
                any |= complain(number, LogFile::in_folder(&self.tasks.folder(number)).look(wall_ms()));
            }
            if any {
                self.notify();
            }
            async_io::Timer::after(if self.growth.is_some() { GAP } else { SLOW }).await;
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
