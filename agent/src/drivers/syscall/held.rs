//! A child that is forked and then waits: first its pid is written down, then it becomes the program.
//!
//! std's `Command` cannot do this: it returns only after exec. If the process that forked it dies, the child reads the
//! end of its pipe instead of a byte, and ends without having been anything.

use super::{check, memory::set_huge_pages, pid_of};
use std::{
    ffi::CString,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsRawFd,
    ptr,
};

/// Everything the child needs, made before the fork: afterwards it must not allocate.
#[derive(Debug)]
pub struct Program {
    pub path: CString,
    pub arguments: Vec<CString>,
    /// `NAME=value`, all of it.
    pub environment: Vec<CString>,
    pub cwd: CString,
    /// None: as this process.
    pub identity: Option<Identity>,
    /// RLIMIT_DATA: bytes of private writable memory.
    pub data_bytes_max: Option<u64>,
    /// 0: as this process.
    pub nice: i32,
}

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Session = 1,
    Descriptors,
    Limits,
    Identity,
    Cwd,
    Exec,
}

/// The child could not become the program.
#[derive(Debug, thiserror::Error)]
#[error("{step:?}")]
pub struct ExecFailure {
    pub step: Step,
    pub source: io::Error,
}

/// The child before it is told to go on. Dropped, it ends.
#[derive(Debug)]
pub struct HeldChild {
    pub pid: u32,
    go: Option<PipeWriter>,
    failure: PipeReader,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Code(i32),
    Signal(i32),
}

impl HeldChild {
    /// Forks a child in a session and process group of its own. It will read from `input` and write to `output`; it holds no other
    /// descriptor of ours.
    ///
    /// # Errors
    /// As pipe(2) and fork(2).
    pub fn fork(program: &Program, input: &File, output: &File) -> io::Result<HeldChild> {
        let (wait, go) = io::pipe()?;
        let (failure, tell) = io::pipe()?;
        let (arguments, environment) = (pointers(&program.arguments), pointers(&program.environment));
        let raw = Raw {
            program,
            arguments: &arguments,
            environment: &environment,
            input: input.as_raw_fd(),
            output: output.as_raw_fd(),
            wait: wait.as_raw_fd(),
            tell: tell.as_raw_fd(),
        };
        // SAFETY: other threads may hold locks that the child will never see released, so until exec or _exit it only
        // makes system calls on memory prepared above.
        match check(unsafe { libc::fork() })? {
            0 => raw.become_program(),
            pid => Ok(HeldChild { pid: pid.unsigned_abs(), go: Some(go), failure }),
        }
    }

    /// Lets it become the program, and waits until it has.
    ///
    /// # Errors
    /// What it could not do; it is gone then.
    pub fn release(mut self) -> Result<(), ExecFailure> {
        let failed = |step, source| ExecFailure { step, source };
        let go = self.go.take().expect("only this takes it, and takes self");
        (&go).write_all(&[1]).map_err(|source| failed(Step::Session, source))?;
        let mut told = [0; 5];
        // exec closes the pipe: no bytes mean success.
        match self.failure.read_exact(&mut told) {
            Err(_) => Ok(()),
            Ok(()) => {
                let steps = [Step::Session, Step::Descriptors, Step::Limits, Step::Identity, Step::Cwd, Step::Exec];
                let step = steps.into_iter().find(|step| *step as u8 == told[0]).unwrap_or(Step::Exec);
                let errno = i32::from_ne_bytes([told[1], told[2], told[3], told[4]]);
                wait_for(self.pid);
                Err(failed(step, io::Error::from_raw_os_error(errno)))
            }
        }
    }
}

impl Drop for HeldChild {
    fn drop(&mut self) {
        // Still held: without a byte it ends, and somebody has to collect it.
        if self.go.take().is_some() {
            wait_for(self.pid);
        }
    }
}

fn wait_for(pid: u32) {
    let Ok(pid) = pid_of(pid) else { return };
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {}
}

/// How our child ended, if it has; it can be asked once. `None`: it still runs, or is no child of ours.
pub fn collect(pid: u32) -> Option<Status> {
    let pid = pid_of(pid).ok()?;
    let mut status = 0;
    // SAFETY: the kernel writes one int into the one passed.
    let collected = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    if collected != pid {
        return None;
    }
    if libc::WIFEXITED(status) { Some(Status::Code(libc::WEXITSTATUS(status))) } else { Some(Status::Signal(libc::WTERMSIG(status))) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// What the child works with; plain numbers and pointers.
struct Raw<'a> {
    program: &'a Program,
    arguments: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    input: libc::c_int,
    output: libc::c_int,
    wait: libc::c_int,
    tell: libc::c_int,
}

impl Raw<'_> {
    fn become_program(&self) -> ! {
        let errno = |step| (step, io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
        let failed = match self.prepare() {
            Err(step) => errno(step),
            Ok(false) => exit(),
            Ok(true) => {
                // SAFETY: a NUL-terminated path and null-terminated arrays of NUL-terminated strings, all older than the fork.
                unsafe { libc::execve(self.program.path.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr()) };
                errno(Step::Exec)
            }
        };
        let number = failed.1.to_ne_bytes();
        let told = [failed.0 as u8, number[0], number[1], number[2], number[3]];
        // SAFETY: five bytes on our stack, to a pipe of ours.
        unsafe { libc::write(self.tell, told.as_ptr().cast(), told.len()) };
        exit()
    }

    /// `false`: whoever forked us is gone.
    fn prepare(&self) -> Result<bool, Step> {
        let done = |step: Step, answer: libc::c_int| if answer == -1 { Err(step) } else { Ok(()) };
        // SAFETY (all blocks below): async-signal-safe calls on numbers and on memory older than the fork.
        done(Step::Session, unsafe { libc::setsid() })?;
        for (from, to) in [(self.input, 0), (self.output, 1), (self.output, 2)] {
            // SAFETY: as above; std keeps 0 to 2 occupied, so no descriptor of ours has those numbers.
            done(Step::Descriptors, unsafe { libc::dup2(from, to) })?;
        }
        self.close_others()?;
        if !self.told_to_go() {
            return Ok(false);
        }
        reset_signals();
        set_huge_pages(true);
        // SAFETY: as above.
        unsafe { libc::umask(0o022) };
        if let Some(bytes) = self.program.data_bytes_max {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // SAFETY: as above.
            done(Step::Limits, unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) })?;
        }
        if self.program.nice != 0 {
            // SAFETY: as above.
            done(Step::Limits, unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.program.nice) })?;
        }
        if let Some(who) = &self.program.identity {
            // SAFETY: as above; `groups` holds as many numbers as its length says.
            done(Step::Identity, unsafe { libc::setgroups(who.groups.len(), who.groups.as_ptr()) })?;
            // SAFETY: as above.
            done(Step::Identity, unsafe { libc::setgid(who.gid) })?;
            // SAFETY: as above. Last: afterwards we may not do the others.
            done(Step::Identity, unsafe { libc::setuid(who.uid) })?;
        }
        // SAFETY: as above. As the task's user, whose right it is to enter the folder.
        done(Step::Cwd, unsafe { libc::chdir(self.program.cwd.as_ptr()) })?;
        Ok(true)
    }

    /// Before the wait: held open here, another waiting child's pipe would never end.
    fn close_others(&self) -> Result<(), Step> {
        let (low, high) = (self.wait.min(self.tell).unsigned_abs(), self.wait.max(self.tell).unsigned_abs());
        for (first, last) in [(3, low - 1), (low + 1, high - 1), (high + 1, u32::MAX)] {
            // SAFETY: numbers only; in this process nobody uses those descriptors any more.
            if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
                return Err(Step::Descriptors);
            }
        }
        Ok(())
    }

    fn told_to_go(&self) -> bool {
        let mut byte = 0_u8;
        loop {
            // SAFETY: one byte into the one on our stack.
            match unsafe { libc::read(self.wait, (&raw mut byte).cast(), 1) } {
                -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                read => return read == 1,
            }
        }
    }
}

/// Dispositions and the mask outlive exec where they ignore and block: a program expects the defaults.
fn reset_signals() {
    // The kernel's struct sigaction, all zero, is SIG_DFL with no flags. Past libc, which keeps 32 and 33 for itself, and has
    // children of posix_spawn ignore them.
    let default = [0_u64; 4];
    let (none, mask_bytes) = (ptr::null::<u64>(), 8_usize);
    for number in 1..=64 {
        // SAFETY: the kernel reads one sigaction, which is no longer than the array; numbers it refuses are those nobody can ignore.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number as libc::c_int, default.as_ptr(), none, mask_bytes) };
    }
    // SAFETY: an all-zero sigset_t is a valid value to initialise; the calls only read and write it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

fn exit() -> ! {
    // SAFETY: ends this process without running anything of the one it was copied from.
    unsafe { libc::_exit(127) }
}
