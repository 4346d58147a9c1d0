//! Every `unsafe` of the crate: what Linux offers and std does not.
//!
//! Each function is one kernel or libc call in safe clothes, decides nothing and keeps nothing. Whoever reviews
//! `unsafe` here reads this folder and nothing else (`tidy.rs` sees to it).

#![allow(unsafe_code)]

mod children;
mod files;
mod held;
mod memory;

pub use children::{ChildSetup, prepare_child, take_descriptor_3};
pub use files::{Growth, data_from, punch};
pub use held::{ExecFailure, HeldChild, Identity, Program, Status, Step, collect};
pub use memory::{CODE_KEPT, release_code_pages, release_stack, trim_allocator, tune_memory};

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

pub use libc::{EOPNOTSUPP, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM};

/// A kernel answer of -1 means "see errno".
fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

// ---- files

/// Takes the file's exclusive lock, or says `false` at once if another process holds it.
/// The lock ends with the last descriptor of this open file: also when the process is killed.
///
/// # Errors
/// Whatever flock(2) says besides "held".
pub fn try_lock(file: &File) -> io::Result<bool> {
    flock(file, libc::LOCK_EX | libc::LOCK_NB)
}

/// Waits for the file's exclusive lock.
///
/// # Errors
/// As flock(2); a signal only makes it wait again.
pub fn lock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_EX).map(|_| ())
}

fn flock(file: &File, operation: libc::c_int) -> io::Result<bool> {
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed; flock touches no memory of ours.
        match check(unsafe { libc::flock(file.as_raw_fd(), operation) }) {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

// ---- processes

/// Which side of a fork one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Parent { child: u32 },
    Child,
}

/// Copies this process. Refused in a process with threads: the copy would have one thread and the others' locks.
///
/// # Errors
/// As fork(2), or there are other threads.
pub fn fork() -> io::Result<Fork> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("cannot fork with {threads} threads")));
    }
    // SAFETY: this is the only thread (checked above), so the child's memory is consistent and no lock is held by a thread it lacks.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child: child.unsigned_abs() }),
    }
}

/// Leaves the terminal and the process group of whoever started us.
///
/// # Errors
/// `EPERM` if this process already leads a group.
pub fn start_session() -> io::Result<()> {
    // SAFETY: takes no arguments and touches no memory.
    check(unsafe { libc::setsid() }).map(|_| ())
}

/// Makes `fd` the process's stdin, stdout or stderr (0, 1, 2).
///
/// # Errors
/// As dup2(2).
pub fn replace_stdio(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&number), "only stdio may be replaced: other numbers belong to somebody");
    // SAFETY: `fd` is open while borrowed; 0, 1 and 2 are owned by nobody in std, whose handles only name them.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(|_| ())
}

/// One process, held so that its number cannot come to mean another while we look (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// The process `pid` that started at `started` (see [`process_started`]); `None` if it is gone, a zombie included.
    ///
    /// # Errors
    /// As pidfd_open(2).
    pub fn open(pid: u32, started: u64) -> io::Result<Option<ProcessHandle>> {
        let flags: libc::c_uint = 0;
        // SAFETY: takes two numbers; a descriptor it returns is new and nobody else's.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid_of(pid)?, flags) };
        if fd == -1 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: just returned by the kernel, owned by nobody else.
        let handle = ProcessHandle(unsafe { OwnedFd::from_raw_fd(fd) });
        // Only now: had the number been reused before we held it, the start time would differ.
        Ok((process_started(pid) == Some(started)).then_some(handle))
    }

    /// Sends it a signal; `false` if it is gone.
    ///
    /// # Errors
    /// As pidfd_send_signal(2).
    pub fn signal(&self, signal: i32) -> io::Result<bool> {
        let flags: libc::c_uint = 0;
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: numbers and a null pointer, which the call allows.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, flags) };
        match io::Error::last_os_error() {
            _ if answer == 0 => Ok(true),
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            error => Err(error),
        }
    }

    /// Waits until it has ended (whether or not somebody collected it), at most this long.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let mut watched = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the kernel reads and writes one pollfd, which is what the pointer points to.
            match check(unsafe { libc::poll(&raw mut watched, 1, libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX)) }) {
                Ok(ready) => return Ok(ready == 1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Readable once the process has ended.
impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal to every process of a group.
///
/// # Errors
/// As kill(2).
pub fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let group = pid_of(leader)?;
    // SAFETY: kill takes two numbers and touches no memory of ours.
    check(unsafe { libc::kill(-group, signal) }).map(|_| ())
}

/// 0, 1 and negative numbers have meanings of their own ("my group", init, "everybody"): never by accident.
fn pid_of(pid: u32) -> io::Result<libc::pid_t> {
    libc::pid_t::try_from(pid)
        .ok()
        .filter(|p| *p > 1)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no pid to signal")))
}

/// When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)). With the pid it names
/// one process for as long as the machine runs. `None`: there is no such process, or only its zombie.
pub fn process_started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let after_name = stat.get(stat.rfind(')')? + 2..)?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Effective user id of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: takes no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Addresses of the network interfaces that are up, with the interface's name, in the kernel's order.
///
/// # Errors
/// As getifaddrs(3).
pub fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success `list` points to a list that stays valid until freeifaddrs below.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: `next` is null or an entry of the list, whose name ends with NUL and whose address, if any, is
    // a sockaddr of the family it says, in memory of its own that is aligned for it.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as libc::c_uint == 0 {
            continue;
        }
        // SAFETY: as above.
        let ip = unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    IpAddr::from(u32::from_be(address.sin_addr.s_addr).to_be_bytes())
                }
                libc::AF_INET6 => IpAddr::from(entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned().sin6_addr.s6_addr),
                _ => continue,
            }
        };
        // SAFETY: as above.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        found.push((name.to_string_lossy().into_owned(), ip));
    }
    // SAFETY: `list` came from getifaddrs, and nothing borrowed from it is left.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// From now on these signals end nothing: they are read from the descriptor returned, a `signalfd_siginfo` of
/// 128 bytes each, whose first four are the number (`next_signal`). Call it before the first thread starts, so that all inherit it;
/// std's `Command` gives children an empty mask again. Non-blocking and close-on-exec.
///
/// # Errors
/// As signalfd(2).
pub fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid value to initialise; sigemptyset/sigaddset write only into it, the mask call
    // reads it, and signalfd returns a new descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in numbers {
            check(libc::sigaddset(&raw mut set, *number))?;
        }
        let refused = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if refused != 0 {
            return Err(io::Error::from_raw_os_error(refused));
        }
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next signal of a descriptor made by [`signals`].
///
/// # Errors
/// `WouldBlock` when there is none.
pub fn next_signal(mut fd: &File) -> io::Result<i32> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    io::Read::read_exact(&mut fd, &mut info)?;
    Ok(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}

// ---- limits

/// What setrlimit(2) can bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of one file; the signal SIGXFSZ must be ignored to see the error instead.
    FileSize,
    OpenFiles,
    CoreSize,
}

/// Soft and hard limit; `u64::MAX` is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

// glibc gives the resource a type of its own, musl an int.
#[cfg(target_env = "gnu")]
type ResourceNumber = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type ResourceNumber = libc::c_int;

impl Resource {
    fn number(self) -> ResourceNumber {
        match self {
            Resource::AddressSpace => libc::RLIMIT_AS,
            Resource::FileSize => libc::RLIMIT_FSIZE,
            Resource::OpenFiles => libc::RLIMIT_NOFILE,
            Resource::CoreSize => libc::RLIMIT_CORE,
        }
    }
}

/// # Errors
/// As getrlimit(2).
pub fn limit(resource: Resource) -> io::Result<Limit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into the one passed.
    check(unsafe { libc::getrlimit(resource.number(), &raw mut raw) })?;
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

/// Sets the soft limit of this process; the hard one stays, so whoever needs more may take it back.
///
/// # Errors
/// As setrlimit(2): above the hard limit is refused.
pub fn set_soft_limit(resource: Resource, soft: u64) -> io::Result<()> {
    let raw = libc::rlimit { rlim_cur: soft, rlim_max: limit(resource)?.hard };
    // SAFETY: the kernel reads one rlimit from the one passed.
    check(unsafe { libc::setrlimit(resource.number(), &raw const raw) }).map(|_| ())
}

/// Makes a write past `Resource::FileSize` an error (`EFBIG`) instead of the end of the process.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a disposition that runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// How likely the kernel is to end this process first when memory is out: -1000 (never) to 1000 (first).
///
/// # Errors
/// Lowering it needs privileges.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// Closes every descriptor from `first` up: what a careless parent left open is not ours to hold.
/// Call it before anything of ours has such a descriptor.
///
/// # Errors
/// As close_range(2); `ENOSYS` before Linux 5.9.
pub fn close_descriptors_from(first: u32) -> io::Result<()> {
    // SAFETY: by the caller's promise nobody in this process owns these numbers yet.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The processor time that a process has had, all its threads together.
///
/// # Errors
/// `ESRCH`: there is no such process.
pub fn processor_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: `clock` is ours to write; the answer is the error itself.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: `time` is ours to write.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// Makes this thread, and those it will start, give way to others: 0 (usual) to 19 (last).
///
/// # Errors
/// As setpriority(2).
pub fn lower_priority(nice: i32) -> io::Result<()> {
    // SAFETY: three numbers, no memory.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(|_| ())
}

/// What [`poll`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Something to read, or the end.
    Read,
    /// Room to write, or nobody who reads.
    Write,
}

/// Waits until one of the descriptors is ready or the time is over, and says which are. `None` is never ready.
///
/// # Errors
/// As poll(2); a signal only ends the wait early.
pub fn poll<const N: usize>(wanted: [Option<(BorrowedFd<'_>, Ready)>; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut polled = wanted.map(|want| match want {
        // poll(2) skips negative numbers.
        None => libc::pollfd { fd: -1, events: 0, revents: 0 },
        Some((fd, ready)) => {
            libc::pollfd { fd: fd.as_raw_fd(), events: if ready == Ready::Read { libc::POLLIN } else { libc::POLLOUT }, revents: 0 }
        }
    });
    let ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX).max(1);
    // SAFETY: the kernel reads and writes N pollfds, which is how many there are; the descriptors are borrowed for the call.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, ms) }) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        Err(e) => Err(e),
        Ok(_) => Ok(polled.map(|p| p.revents != 0)),
    }
}
