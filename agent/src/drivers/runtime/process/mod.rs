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
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// For SIGKILL to take effect.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Ends all tasks recorded in a folder `tasks` whose daemon is gone: asks all, waits `patience` at most, kills what is left.
/// Nothing of them runs when it returns, and the node has no control groups any more. It blocks.
///
/// # Errors
/// A process may not be signalled, or stays even after SIGKILL.
pub fn end_recorded(folder: &Path, patience: Duration) -> io::Result<()> {
    let tasks = record::all_in(folder)?;
    let leaf = |task: &record::TaskFile| task.cgroup.clone().map(PathBuf::from);
    // Also of tasks that ended: the daemon may have died before it removed their groups.
    let nodes: BTreeSet<PathBuf> = tasks.iter().filter_map(|task| cgroup::around(&leaf(task)?, task.node).map(Path::to_owned)).collect();
    let mut alive = Vec::new();
    for task in tasks.into_iter().filter(|task| task.exit.is_none()) {
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
        // It is empty; if it cannot be removed all the same, that is no reason to leave the others running.
        let _ = leaf(&task).map(|leaf| cgroup::remove(&leaf));
    }
    nodes.iter().for_each(|node| cgroup::remove_empty(node));
    Ok(())
}
