//! Ends everything that a task left running.
//!
//! Its cgroup knows all its processes. Without one we look through /proc: for its session while that number is surely
//! its own, and for the two variables that every task is started with and its descendants inherit.

use super::{cgroup, record::TaskFile};
use crate::drivers::syscall::{self, ProcessHandle, SIGKILL};
use std::{fs, io, path::Path, time::Duration};

/// Looks at what is left, each after a kill: a process may fork while it is being found.
const ROUNDS: usize = 100;
const PATIENCE: Duration = Duration::from_millis(500);

/// Kills what is left of a task and waits until it is gone. `leader_held`: the first process is alive or not collected yet,
/// so that its number cannot have come to mean another session. It blocks.
///
/// # Errors
/// Something stays even after SIGKILL.
pub fn sweep(task: &TaskFile, leader_held: bool) -> io::Result<()> {
    let group = task.cgroup.as_deref().map(Path::new).filter(|group| group.is_dir());
    for _ in 0..ROUNDS {
        let left = match group {
            Some(group) => {
                let _ = cgroup::kill(group);
                cgroup::members(group).into_iter().filter_map(|pid| Some((pid, syscall::process_started(pid)?))).collect()
            }
            None => {
                if leader_held {
                    let _ = syscall::signal_group(task.pid, SIGKILL);
                }
                strays(task, leader_held)?
            }
        };
        if left.is_empty() {
            return Ok(());
        }
        // One that we may not kill keeps us from none of the others.
        let count = left.len();
        let failed: Vec<(u32, io::Error)> = left.into_iter().filter_map(|(pid, started)| Some((pid, kill(pid, started).err()?))).collect();
        if let Some((pid, error)) = failed.first().filter(|_| failed.len() == count) {
            return Err(io::Error::new(error.kind(), format!("cannot end process {pid}: {error}")));
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "some of its processes stay even after SIGKILL"))
}

fn kill(pid: u32, started: u64) -> io::Result<()> {
    if let Some(process) = ProcessHandle::open(pid, started)? {
        process.signal(SIGKILL)?;
        process.wait(PATIENCE)?;
    }
    Ok(())
}

/// Living processes of the task, with their start times.
fn strays(task: &TaskFile, leader_held: bool) -> io::Result<Vec<(u32, u64)>> {
    let marks = [format!("DISCO_TASK={}", task.id()), format!("DISCO_NODE={}", task.node)];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let Some(started) = syscall::process_started(pid) else { continue };
        let of_its_session = leader_held && started >= task.started && session(pid) == Some(task.pid);
        if of_its_session || carries(pid, &marks) {
            found.push((pid, started));
        }
    }
    Ok(found)
}

/// Field 6 of proc_pid_stat(5).
fn session(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 2..)?.split(' ').nth(3)?.parse().ok()
}

fn carries(pid: u32, marks: &[String; 2]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
}
