//! Memory of work that is done goes back to the kernel.

use crate::drivers::{
    api::activity::{Activity, Work},
    syscall,
};
use futures_lite::future::or;
use std::time::Duration;

/// After work that was asked for this long passes before free memory is given back: more of it is likely.
const TRIM_AFTER: Duration = Duration::from_secs(10);
/// Work that nobody noted leaves traces too: look again this often.
const TRIM_AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// The allocator keeps what a burst needed, and the kernel the code that starting and joining ran once; without this the
/// process would stay at its peak.
pub async fn give_back(activity: Activity) {
    let mut work = Work::Asked;
    loop {
        let looks = match work {
            Work::Asked => TRIM_AFTER.as_secs() / syscall::CODE_KEPT.as_secs(),
            Work::Routine => 1,
        };
        for _ in 0..looks {
            async_io::Timer::after(syscall::CODE_KEPT).await;
            if let Err(error) = syscall::release_code_pages() {
                log::debug!("cannot unmap code pages: {error}");
            }
        }
        syscall::trim_allocator();
        if let Err(error) = syscall::release_stack() {
            log::debug!("cannot give back the stack: {error}");
        }
        work = or(activity.wait(), async {
            async_io::Timer::after(TRIM_AT_LEAST_EVERY).await;
            Work::Routine
        })
        .await;
    }
}
