//! What a child of `std::process::Command` is given between fork and exec.

use super::{check, memory::set_huge_pages};
use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

/// What a child is given between fork and exec, besides what `Command` already can.
#[derive(Debug, Default)]
pub struct ChildSetup {
    /// Becomes descriptor 3 of the child.
    pub descriptor_3: Option<OwnedFd>,
    /// It leads a process group of its own, so that it can be ended with all it started.
    pub own_group: bool,
}

/// Adds `setup` to what happens before `command`'s program starts. `descriptor_3` is closed here when `command` is dropped.
pub fn prepare_child(command: &mut Command, mut setup: ChildSetup) {
    // std reports a failed exec through a pipe of its own, which must not be 3: if 3 is free, ours takes it now
    // (a duplicate gets the lowest number from 3 up).
    if let Some(Ok(duplicate)) = setup.descriptor_3.as_ref().map(OwnedFd::try_clone)
        && duplicate.as_raw_fd() == 3
    {
        setup.descriptor_3 = Some(duplicate);
    }
    let hook = move || {
        if setup.own_group {
            // SAFETY: two numbers, no memory: async-signal-safe.
            check(unsafe { libc::setpgid(0, 0) })?;
        }
        if let Some(fd) = &setup.descriptor_3 {
            duplicate_to_3(fd.as_raw_fd())?;
        }
        set_huge_pages(true);
        Ok(())
    };
    // SAFETY: the hook only makes system calls on memory prepared before the fork: no allocation, no lock.
    unsafe { command.pre_exec(hook) };
}

fn duplicate_to_3(fd: RawFd) -> io::Result<()> {
    if fd == 3 {
        // dup2 onto itself would keep close-on-exec.
        // SAFETY: changes one flag of an open descriptor.
        check(unsafe { libc::fcntl(3, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: in the child, right before exec, nothing else uses 3: all else of ours is close-on-exec.
        check(unsafe { libc::dup2(fd, 3) })?;
    }
    Ok(())
}

/// Takes descriptor 3, as a child prepared with [`ChildSetup::descriptor_3`] finds it. `None` if there is none.
/// Call it once, first thing: later 3 may be somebody else's.
pub fn take_descriptor_3() -> Option<OwnedFd> {
    // SAFETY: F_SETFD on a number that is no descriptor only fails.
    check(unsafe { libc::fcntl(3, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
    // SAFETY: 3 is open (just checked) and was handed over by whoever started us, so we own it.
    Some(unsafe { OwnedFd::from_raw_fd(3) })
}
