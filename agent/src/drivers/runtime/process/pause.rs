//! Lets a task's processes stand still, and go on.
//!
//! The freezer of its cgroup holds all of them and none notices. Without a cgroup the task's process group is sent
//! SIGSTOP, which reaches whatever did not leave the group; SIGCONT lets both kinds go on.
//!
//! Outside rule (kernel, Documentation/admin-guide/cgroup-v2.rst): `cgroup.freeze` takes 1 and 0; a frozen group can
//! still be killed.

use crate::drivers::syscall::{self, SIGCONT, SIGSTOP};
use std::{fs, io, path::Path};

/// `pid` leads the task's process group and is alive or not collected yet. Asking twice is asking once.
///
/// # Errors
/// Neither the freezer nor signals are to be had.
pub fn pause(pid: u32, cgroup: Option<&Path>, on: bool) -> io::Result<()> {
    let frozen = cgroup.is_some_and(|group| fs::write(group.join("cgroup.freeze"), if on { "1" } else { "0" }).is_ok());
    match on {
        true if frozen => Ok(()),
        true => syscall::signal_group(pid, SIGSTOP),
        // It may have been paused the other way before the agent's last start.
        false => syscall::signal_group(pid, SIGCONT),
    }
}
