//! What a node costs, as the kernel counts it.
//!
//! VmRSS is batched per thread and counts a shared page once per process, so it is neither exact nor fair to a
//! daemon whose executor runs the same binary. `smaps_rollup` walks the page tables: PSS gives each process its
//! share of a shared page, and the sum over a process tree is what the machine really lost. That sum is the
//! *footprint*. Nothing here needs rights beyond reading one's own processes under /proc.

use nix::{time::ClockId, unistd::Pid};
use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The promise speaks of peaks seen by sampling this often.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A process tree is small; more than this is a fork bomb and the sampler stops counting.
const TREE_MAX: usize = 64;

/// One process at one moment. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Its share of all pages it maps.
    pub pss: u64,
    /// All pages it maps.
    pub rss: u64,
    /// Pages that belong to no file.
    pub anonymous: u64,
    /// The largest resident set it ever had.
    pub high_water: u64,
    /// Threads now.
    pub threads: u64,
    /// CPU time since its start, of threads that ended too.
    pub cpu: Duration,
    /// Times its living threads went to sleep of their own will: each is one wake-up.
    pub sleeps: u64,
}

impl Process {
    /// Reads /proc; an error means that the process is gone, or going (or not ours to look at).
    pub fn read(pid: u32) -> io::Result<Process> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let stat = Stat::read(pid)?;
        // Asked last: what had not begun to end by now was whole when its memory was counted.
        if stat.ending || is_killed(&status) {
            return Err(io::Error::other(format!("process {pid} is ending")));
        }
        let mut sleeps = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            sleeps += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        let bytes = |text: &str, name: &str| {
            field(text, name).map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("/proc/{pid} has no {name}")))
        };
        Ok(Process {
            pss: bytes(&rollup, "Pss:")?,
            rss: bytes(&rollup, "Rss:")?,
            anonymous: bytes(&rollup, "Anonymous:")?,
            high_water: bytes(&status, "VmHWM:")?,
            threads: field(&status, "Threads:").unwrap_or(0),
            cpu: cpu_time(pid)?,
            sleeps,
        })
    }
}

/// From the process's CPU clock, which counts nanoseconds (clock_getcpuclockid(3)). /proc/PID/stat has hundredths of a second,
/// rounded down twice (utime, stime): over ten seconds that would be a fifth of a percent more or less.
fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?;
    Ok(clock.now()?.into())
}

/// Has the kernel count a process's VmHWM anew from now on (proc(5), clear_refs).
pub fn forget_peak(pid: u32) {
    // Where the kernel cannot, the peak stays that since the start: the stricter figure.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// A process tree at one moment: the root and the helpers it keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Since the sampler began.
    pub at: Duration,
    /// Sum of PSS over the tree, bytes.
    pub footprint: u64,
    /// Anonymous pages of the tree, bytes.
    pub anonymous: u64,
    /// The root alone.
    pub root: Process,
    /// Processes in the tree, the root among them.
    pub processes: usize,
}

impl Sample {
    /// Takes one now; an error means that the root is gone.
    pub fn take(root: u32, at: Duration) -> io::Result<Sample> {
        let own = Process::read(root)?;
        let mut sample = Sample { at, footprint: own.pss, anonymous: own.anonymous, root: own, processes: 1 };
        for pid in helpers(root) {
            // A helper may end while we look; then it costs nothing.
            let read = Process::read(pid);
            // What was a helper when it was found may have become an instance by the time it was read.
            if let Ok(process) = read
                && !is_other_node(root, pid)
            {
                sample.footprint += process.pss;
                sample.anonymous += process.anonymous;
                sample.processes += 1;
            }
        }
        Ok(sample)
    }
}

/// Descendants of `root` that belong to it: those of its session, and script executors wherever they are.
///
/// What made itself a session of its own is not a helper but a launched instance or a task, which the
/// definition of the footprint leaves out.
fn helpers(root: u32) -> Vec<u32> {
    let Ok(root_stat) = Stat::read(root) else { return Vec::new() };
    let children = Children::look();
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for pid in children.of(parent) {
            let session = Stat::read(pid).map(|stat| stat.session);
            let ours = session.is_ok_and(|session| session == root_stat.session && !is_other_node(root, pid)) || is_executor(pid);
            if ours && found.len() < TREE_MAX {
                found.push(pid);
                open.push(pid);
            }
        }
    }
    found
}

/// Who is whose child.
enum Children {
    /// The kernel says it of each thread (CONFIG_PROC_CHILDREN, as Debian's).
    Listed,
    /// All processes of the machine, by their parent: where the kernel has no lists. Ten times a second that is much work.
    Found(BTreeMap<u32, Vec<u32>>),
}

impl Children {
    fn look() -> Children {
        let listed = fs::exists("/proc/thread-self/children").unwrap_or(false);
        if listed { Children::Listed } else { Children::find() }
    }

    fn find() -> Children {
        let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(stat) = Stat::read(pid) {
                found.entry(stat.parent).or_default().push(pid);
            }
        }
        Children::Found(found)
    }

    fn of(&self, parent: u32) -> Vec<u32> {
        match self {
            Children::Found(found) => found.get(&parent).cloned().unwrap_or_default(),
            Children::Listed => {
                let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
                let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
                lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
            }
        }
    }
}

/// A `discod` from another file is an instance that this one is starting, which has no session of its own yet; it is
/// sampled by itself.
fn is_other_node(root: u32, pid: u32) -> bool {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(pid).is_some_and(|exe| exe.ends_with("discod") && Some(&exe) != program(root).as_ref())
}

fn is_executor(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).nth(1) == Some(b"__script")
}

/// True once the process was sent the signal that nothing survives, whether its threads have noticed or not.
fn is_killed(status: &str) -> bool {
    const KILL: u64 = 1 << (9 - 1);
    let pending = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(line.trim(), 16).unwrap_or(0)
    };
    (pending("SigPnd:") | pending("ShdPnd:")) & KILL != 0
}

/// The fields of /proc/PID/stat that we use (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    session: u32,
    /// Its end has begun: it is letting go of its threads and its memory.
    ending: bool,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Stat> {
        Ok(Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?))
    }

    fn parse(text: &str) -> Stat {
        /// The kernel's mark of a process that ends (PF_EXITING).
        const EXITING: u64 = 4;
        // The second field is the name in brackets, and a name may hold spaces and brackets itself.
        let after_name = text.rfind(')').map(|at| &text[at + 1..]).unwrap_or_default();
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // Counted from the third field: state 0, ppid 1, pgrp 2, session 3, … flags 6.
        let ending = matches!(fields.first(), Some(&("Z" | "X"))) || number(6) & EXITING != 0;
        Stat { parent: number(1) as u32, session: number(3) as u32, ending }
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_ascii_whitespace().next()?.parse().ok()
}

/// What a span of samples came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Measured {
    /// Samples it rests on.
    pub samples: usize,
    /// Length of the span.
    pub seconds: f64,
    /// Largest footprint, bytes.
    pub footprint: u64,
    /// The middle one of all footprints, bytes: what a moment of work in flight does not move.
    pub footprint_median: u64,
    /// Footprint of the last sample, bytes.
    pub footprint_last: u64,
    /// What the work between two marks left behind in anonymous memory, bytes; 0 where no work was repeated.
    pub growth: u64,
    /// Largest resident set of the root alone, bytes.
    pub rss: u64,
    /// Largest sum of anonymous pages, bytes.
    pub anonymous: u64,
    /// The middle one of all these sums, bytes: the steadiest figure of all, so that a small leak shows in it.
    pub anonymous_median: u64,
    /// The root's VmHWM, bytes: its peak since it started, also between two samples.
    pub peak: u64,
    /// Most threads of the root.
    pub threads: u64,
    /// Most processes in the tree.
    pub processes: usize,
    /// The root's CPU time, in percent of one core.
    pub cpu_percent: f64,
    /// The root's wake-ups a second.
    pub wakeups_per_second: f64,
}

impl Measured {
    /// Sums up samples in the order they were taken.
    pub fn of(samples: &[Sample]) -> Measured {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Measured::default() };
        let seconds = (last.at - first.at).as_secs_f64();
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
        let worked = last.root.cpu.saturating_sub(first.root.cpu);
        let woken = last.root.sleeps.saturating_sub(first.root.sleeps);
        Measured {
            samples: samples.len(),
            seconds,
            footprint: most(|sample| sample.footprint),
            footprint_median: median(samples, |sample| sample.footprint),
            footprint_last: last.footprint,
            growth: 0,
            rss: most(|sample| sample.root.rss),
            anonymous: most(|sample| sample.anonymous),
            anonymous_median: median(samples, |sample| sample.anonymous),
            peak: most(|sample| sample.root.high_water),
            threads: most(|sample| sample.root.threads),
            processes: most(|sample| sample.processes as u64) as usize,
            cpu_percent: per_second(worked.as_secs_f64()) * 100.0,
            wakeups_per_second: per_second(woken as f64),
        }
    }
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Samples one process tree on a thread of its own until it is asked for the result or the tree is gone.
pub struct Sampler {
    pid: u32,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
    grown: Condvar,
}

impl Sampler {
    /// Begins at once.
    pub fn start(pid: u32) -> Sampler {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), samples: Mutex::new(Vec::new()), grown: Condvar::new() });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || sample_until_stopped(pid, &shared)
        });
        Sampler { pid, shared, thread: Some(thread) }
    }

    /// The root of the tree.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True while the root lives and is sampled.
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until a sample satisfies `wanted`, which is given with the time it took; `None` after `limit`
    /// or when the tree is gone.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Sample) -> bool) -> Option<(Sample, Duration)> {
        let began = Instant::now();
        let mut samples = self.shared.samples.lock().expect("the sampling thread does not panic");
        let mut seen = samples.len();
        loop {
            if let Some(found) = samples[seen..].iter().find(|sample| wanted(sample)) {
                return Some((*found, began.elapsed()));
            }
            seen = samples.len();
            let left = limit.checked_sub(began.elapsed())?;
            let gone = self.shared.stop.load(Ordering::Acquire) || !self.alive();
            if gone {
                return None;
            }
            let slice = left.min(2 * INTERVAL);
            samples = self.shared.grown.wait_timeout(samples, slice).expect("the sampling thread does not panic").0;
        }
    }

    /// Stops and returns what was seen.
    pub fn finish(mut self) -> Vec<Sample> {
        self.stop();
        std::mem::take(&mut *self.shared.samples.lock().expect("the sampling thread does not panic"))
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop();
    }
}

fn sample_until_stopped(pid: u32, shared: &Shared) {
    let began = Instant::now();
    let mut due = began;
    while !shared.stop.load(Ordering::Acquire) {
        let Ok(sample) = Sample::take(pid, began.elapsed()) else { return };
        shared.samples.lock().expect("no holder of the lock panics").push(sample);
        shared.grown.notify_all();
        due += INTERVAL;
        while !shared.stop.load(Ordering::Acquire) {
            let Some(left) = due.checked_duration_since(Instant::now()) else { break };
            thread::park_timeout(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_a_size_threads_and_a_peak() {
        let own = Process::read(std::process::id()).expect("we may read ourselves");
        assert!(own.pss > 0 && own.pss <= own.rss && own.rss <= own.high_water.max(own.rss));
        assert!(own.threads >= 1 && own.anonymous < own.rss);
    }

    #[test]
    fn cpu_time_is_counted_finer_than_the_kernels_ticks_and_outlives_its_thread() {
        let before = cpu_time(std::process::id()).expect("we may ask about ourselves");
        let worked = thread::spawn(|| {
            let began = nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("each thread has a clock");
            let mut sum = 0_u64;
            loop {
                sum = std::hint::black_box(sum.wrapping_add(1));
                let worked = nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("each thread has a clock") - began;
                let worked = Duration::from(worked);
                if worked > Duration::from_millis(3) {
                    return worked;
                }
            }
        });
        let worked = worked.join().expect("it only counts");
        assert!(cpu_time(std::process::id()).expect("as before") - before >= worked);
    }

    #[test]
    fn a_process_that_is_gone_cannot_be_read() {
        // Above PID_MAX_LIMIT (2^22), so no kernel hands it out.
        assert!(Process::read(u32::MAX).is_err());
        assert!(Sampler::start(u32::MAX).finish().is_empty());
    }

    #[test]
    fn a_child_is_found_with_and_without_the_kernels_lists() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("there is a sleep");
        let own = std::process::id();
        let (looked, found) = (Children::look().of(own), Children::find().of(own));
        child.kill().and_then(|()| child.wait()).expect("it is ours");
        assert!(looked.contains(&child.id()) && found.contains(&child.id()), "{looked:?} {found:?}");
    }

    #[test]
    fn a_process_that_is_ending_is_not_measured() {
        let line = |state: char, flags: u32| format!("7 (a ) b) {state} 1 7 7 0 -1 {flags} 0 0 0 0 30 12 0 0 20 0 3 0");
        let living = Stat { parent: 1, session: 7, ending: false };
        assert_eq!(Stat::parse(&line('S', 4_194_560)), living);
        for (state, flags) in [('R', 4_194_564), ('Z', 4_194_560)] {
            assert_eq!(Stat::parse(&line(state, flags)), Stat { ending: true, ..living });
        }
        assert!(is_killed("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(!is_killed("SigPnd:\t0000000000004000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000100\n"));
    }

    #[test]
    fn peaks_are_the_largest_sample_and_rates_span_first_to_last() {
        let sample = |ms, footprint, cpu_ms, sleeps| Sample {
            at: Duration::from_millis(ms),
            footprint,
            root: Process { cpu: Duration::from_millis(cpu_ms), sleeps, ..Process::default() },
            ..Sample::default()
        };
        let measured = Measured::of(&[sample(0, 5, 1000, 10), sample(1000, 9, 1010, 30), sample(2000, 7, 1040, 50)]);
        assert_eq!((measured.footprint, measured.footprint_median, measured.footprint_last), (9, 7, 7));
        assert_eq!((measured.cpu_percent, measured.wakeups_per_second), (2.0, 20.0));
    }
}
