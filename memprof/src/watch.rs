//! Every test that runs a real process runs it under the sampler.
//!
//! A test's binary is large and slow, so the bounds are wide: a watch is there to catch what grows without end,
//! and to leave one line in the log that a person can compare with last month's.

use crate::{
    sampler::{self, INTERVAL, Measured, Sampler},
    verdict::{Breach, Budget, Budgets, megabytes},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// Samples processes until it is dropped; then prints a line and, unless the test already fails, panics if a
/// bound of `[debug-build]` was passed.
pub struct Watch {
    name: String,
    budget: Budget,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<Vec<(String, u32, Measured)>>>,
}

enum Subject {
    Process(u32),
    /// Whoever the `pid` files of a project folder's instances name, as they come and go.
    Project(PathBuf),
}

impl Watch {
    /// Watches one process tree.
    pub fn process(name: &str, pid: u32) -> Watch {
        Watch::start(name, Subject::Process(pid))
    }

    /// Watches each `local` instance of a project folder (`DIR/.disco/instances/*/pid`), also later ones.
    pub fn project(name: &str, dir: &Path) -> Watch {
        Watch::start(name, Subject::Project(dir.to_owned()))
    }

    /// Takes other bounds than those of `[debug-build]`.
    pub fn with_budget(mut self, budget: Budget) -> Watch {
        self.budget = budget;
        self
    }

    /// Ends the watch, prints its line, and returns the bounds that were passed. Processes that were gone
    /// before the first sample say nothing.
    pub fn finish(mut self) -> Vec<Breach> {
        self.end()
    }

    fn start(name: &str, subject: Subject) -> Watch {
        let budget = Budgets::shipped().of("debug-build").expect("a test looks for [debug-build]").clone();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || follow(&subject, &stopped));
        Watch { name: name.to_owned(), budget, stop: Some(stop), thread: Some(thread) }
    }

    fn end(&mut self) -> Vec<Breach> {
        drop(self.stop.take());
        let seen = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let Some(largest) = seen.iter().map(|(_, _, measured)| measured).max_by_key(|measured| measured.footprint) else {
            return Vec::new();
        };
        println!(
            "memprof: {}: {} processes; largest: footprint {}, RSS {}, peak {}, {} threads, {:.1} % CPU",
            self.name,
            seen.len(),
            megabytes(largest.footprint),
            megabytes(largest.rss),
            megabytes(largest.peak),
            largest.threads,
            largest.cpu_percent,
        );
        seen.iter().flat_map(|(who, _, measured)| self.budget.judge(&format!("{} ({who})", self.name), measured)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let breaches = self.end();
        if !breaches.is_empty() && !thread::panicking() {
            let told: Vec<String> = breaches.iter().map(Breach::to_string).collect();
            panic!("a process grew past its bound: {}", told.join("; "));
        }
    }
}

/// Does something while each instance of a project folder is sampled, also those that it starts: name, process, figures.
///
/// Peaks of processes that ran before are those since now.
pub(crate) fn during<T>(project: &Path, act: impl FnOnce() -> T) -> (T, Vec<(String, u32, Measured)>) {
    for (_, pid) in instances(project) {
        sampler::forget_peak(pid);
    }
    let (stop, stopped) = mpsc::channel::<()>();
    let subject = Subject::Project(project.to_owned());
    let thread = thread::spawn(move || follow(&subject, &stopped));
    let done = act();
    drop(stop);
    (done, thread.join().expect("sampling does not panic"))
}

fn follow(subject: &Subject, stopped: &mpsc::Receiver<()>) -> Vec<(String, u32, Measured)> {
    let mut samplers: BTreeMap<u32, (String, Sampler)> = BTreeMap::new();
    loop {
        let processes = match subject {
            Subject::Process(pid) => vec![(pid.to_string(), *pid)],
            Subject::Project(dir) => instances(dir),
        };
        for (who, pid) in processes {
            samplers.entry(pid).or_insert_with(|| (who, Sampler::start(pid)));
        }
        if stopped.recv_timeout(INTERVAL) != Err(mpsc::RecvTimeoutError::Timeout) {
            break;
        }
    }
    let measured = samplers.into_iter().map(|(pid, (who, sampler))| (who, pid, Measured::of(&sampler.finish())));
    measured.filter(|(_, _, measured)| measured.samples > 0).collect()
}

/// Where the `local` instances of a project folder were put: their addresses, without ports.
pub fn addresses(project: &Path) -> Vec<String> {
    let of = |folder: fs::DirEntry| {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("instance.json")).ok()?).ok()?;
        Some(record["address"].as_str()?.split(':').next()?.to_owned())
    };
    fs::read_dir(project.join(".disco/instances")).into_iter().flatten().flatten().filter_map(of).collect()
}

/// Processes that were told that they are on one of these nodes: the tasks, whether anybody remembers them or not.
pub fn tasks_of(addresses: &[String]) -> Vec<u32> {
    let marks: Vec<Vec<u8>> = addresses.iter().map(|a| format!("DISCO_ADDRESS={a}").into_bytes()).collect();
    let is_one = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| marks.iter().any(|mark| mark == variable))
    };
    let running = fs::read_dir("/proc").into_iter().flatten().flatten();
    running.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Instances that have a process on record: name and pid.
pub(crate) fn instances(project: &Path) -> Vec<(String, u32)> {
    let listing = fs::read_dir(project.join(".disco/instances")).into_iter().flatten().flatten();
    let mut found: Vec<(String, u32)> = listing
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("pid")).ok()?;
            let pid = text.split_ascii_whitespace().next()?.parse().ok()?;
            Some((entry.file_name().into_string().ok()?, pid))
        })
        .collect();
    found.sort();
    found
}
