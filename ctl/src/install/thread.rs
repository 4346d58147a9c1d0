//! SSH here speaks tokio, the rest of `disco` smol. Tokio gets one thread, started with the first connection.

use smol::channel::{Sender, bounded, unbounded};
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

/// Runs `work` on tokio's thread and waits for it here. Work that nobody waits for any more still goes on to its end.
pub async fn on_tokio<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = bounded(1);
    let job = Box::pin(async move {
        // Whoever asked may have gone.
        let _ = tell.send(work.await).await;
    });
    JOBS.get_or_init(start).try_send(job).expect("the channel has no bound, and its thread ends with the process");
    told.recv().await.expect("a job answers before it ends")
}

fn start() -> Sender<Job> {
    let (give, take) = unbounded::<Job>();
    let life = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a process may have one more epoll");
        runtime.block_on(async {
            while let Ok(job) = take.recv().await {
                tokio::spawn(job);
            }
        });
    };
    std::thread::Builder::new().name("ssh".into()).spawn(life).expect("a process may have one more thread");
    give
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_the_other_thread_answers_here() {
        let (here, there) = smol::block_on(async {
            let there = on_tokio(async {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                std::thread::current().name().map(str::to_owned)
            });
            (std::thread::current().id(), there.await)
        });
        assert_eq!(there.as_deref(), Some("ssh"));
        assert_eq!(here, std::thread::current().id());
    }
}
