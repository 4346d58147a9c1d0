//! Work that would keep the node waiting (starting processes, listing folders), on threads that end when there is none left.
//!
//! `smol::unblock` keeps its threads for good, and each wakes up twice a second to see whether it is needed: half of what
//! an idle follower may wake up at all.

use futures_lite::FutureExt;
use std::{
    collections::VecDeque,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Threads at once; more work waits its turn.
const THREADS_MAX: usize = 16;
/// Untouched stack costs nothing.
const STACK_BYTES: usize = 512 * 1024;
/// Between two looks whether there is a thread to be had.
const RETRY: Duration = Duration::from_millis(500);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    queue: VecDeque<Job>,
    threads: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { queue: VecDeque::new(), threads: 0 });

/// Runs `work` on another thread, from now on, whether or not the future is polled. Never on the thread that asks, which is
/// the one that everything else runs on: where no thread is to be had the work waits for one.
///
/// # Panics
/// If `work` does.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> + Send {
    let (done, outcome) = async_channel::bounded(1);
    let job = Box::new(move || {
        // Nobody may be waiting any more.
        let _ = done.try_send(panic::catch_unwind(AssertUnwindSafe(work)));
    });
    let mut taken = hand_over(job);
    async move {
        let patience = async {
            // No timer where none is needed: each wakes the reactor.
            while !taken {
                async_io::Timer::after(RETRY).await;
                taken = take_up();
            }
            std::future::pending().await
        };
        match outcome.recv().or(patience).await.expect("each job is run, and a job always answers") {
            Ok(output) => output,
            Err(cause) => panic::resume_unwind(cause),
        }
    }
}

/// Whether there is a thread that comes to it.
fn hand_over(job: Job) -> bool {
    let mut pool = pool();
    pool.queue.push_back(job);
    pool.threads >= THREADS_MAX || start(pool)
}

/// The same for what was left waiting.
fn take_up() -> bool {
    let pool = pool();
    pool.threads > 0 || pool.queue.is_empty() || start(pool)
}

fn start(mut pool: MutexGuard<'static, Pool>) -> bool {
    pool.threads += 1;
    drop(pool);
    let started = thread::Builder::new().name("helper".into()).stack_size(STACK_BYTES).spawn(work_through);
    if let Err(error) = started {
        log::warn!("cannot start a thread, its work waits: {error}");
        let mut pool = self::pool();
        pool.threads -= 1;
        // One that lives ends only when nothing is left.
        return pool.threads > 0;
    }
    true
}

fn work_through() {
    loop {
        let mut pool = pool();
        let Some(job) = pool.queue.pop_front() else {
            pool.threads -= 1;
            return;
        };
        drop(pool);
        job();
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    // Jobs run outside the lock and their panics are caught: nothing is left half done.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn each_job_is_run_once_however_many_there_are() {
        let jobs: Vec<_> = (0..100u64).map(|number| unblock(move || number)).collect();
        let sum = block_on(async {
            let mut sum = 0;
            for job in jobs {
                sum += job.await;
            }
            sum
        });
        assert_eq!(sum, 4950);
    }

    #[test]
    fn a_job_that_panics_panics_whoever_waits_and_nobody_else() {
        let waiting = thread::spawn(|| block_on(unblock(|| panic!("the job's own words"))));
        assert_eq!(waiting.join().expect_err("it is passed on").downcast_ref(), Some(&"the job's own words"));
        assert_eq!(block_on(unblock(|| 7)), 7);
    }
}
