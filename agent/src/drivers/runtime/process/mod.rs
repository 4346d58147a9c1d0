//! Native processes, one file per mechanism of the kernel.

pub mod cgroup;
pub mod pause;
pub mod ports;
pub mod record;
pub mod start;
pub mod sweep;
pub mod user;

use crate::drivers::syscall::{self, SIGKILL, SIGTERM};
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// For SIGKILL to take effect.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Ends all tasks recorded in a folder `tasks` whose daemon is gone: asks all, waits `patience` at most, kills what is left.
/// Nothing of them runs when it returns. It blocks.
///
/// # Errors
/// A process may not be signalled, or stays even after SIGKILL.
pub fn end_recorded(folder: &Path, patience: Duration) -> io::Result<()> {
    let mut alive = Vec::new();
    for task in record::all_in(folder)?.into_iter().filter(|task| task.exit.is_none()) {
        let held = task.process().hold()?;
        if held.is_some() {
            let signal = i32::try_from(task.order.spec.stop_signal).unwrap_or(SIGTERM);
            // It may end at this very moment.
            let _ = syscall::signal_group(task.pid, signal);
        }
        alive.push((task, held));
    }
    let deadline = Instant::now() + patience;
    for (task, held) in alive {
        if let Some(process) = held
            && !process.wait(deadline.saturating_duration_since(Instant::now()))?
        {
            process.signal(SIGKILL)?;
            process.wait(LAST_WAIT)?;
        }
        sweep::sweep(&task, false)?;
        if let Some(leaf) = task.cgroup.as_deref().map(Path::new) {
            let _ = fs::remove_dir(leaf);
            let _ = leaf.parent().map(fs::remove_dir);
        }
    }
    Ok(())
}
