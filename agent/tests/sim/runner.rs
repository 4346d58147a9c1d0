//! Plays many histories on all threads, and remembers what came of them.

use crate::{
    counts::{Count, Counts},
    history,
    trace::{Lines, Trace},
    world::{Origin, World},
};
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

thread_local! {
    /// Where the last panic of this thread was.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Every so many histories one is played twice: its trace must be the same.
const TWICE_EVERY: u64 = 20;
/// A long run says how far it is.
const SAID_EVERY: usize = 5_000;
/// More failures than this are the same failure.
const FAILURES_MAX: usize = 100;

/// Which seeds, and when it is enough.
pub struct Run {
    pub origin: Origin,
    /// Played first.
    pub listed: Vec<u64>,
    /// Then from here on, so many.
    pub start: u64,
    pub seeds: u64,
    pub until: Option<Instant>,
    /// Whether the first failure ends the run.
    pub first_failure: bool,
    pub threads: usize,
    pub verbose: bool,
}

#[derive(Default)]
pub struct Results {
    pub counts: Counts,
    pub passed: usize,
    /// Seeds with what was violated.
    pub failures: Vec<(u64, String)>,
}

impl Results {
    pub fn histories(&self) -> usize {
        self.passed + self.failures.len()
    }
}

/// A violation is a panic; its text is reported with the history, not when it happens.
pub fn listen_to_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PANICKED_AT.set(place.unwrap_or_default());
    }));
}

pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
    let text = text.unwrap_or("panic".into());
    // A violation says what it is; anything else is best explained by its place.
    if text.starts_with("violation") { text } else { format!("{text} ({})", PANICKED_AT.with_borrow(String::clone)) }
}

/// # Errors
/// The text of the violation.
pub fn play(origin: Origin) -> Result<history::Outcome, String> {
    catch_unwind(|| {
        let mut world = World::new(origin, Lines::Off);
        history::play_in(&mut world);
        history::finish(&world)
    })
    .map_err(|panic| text_of(&*panic))
}

/// The end of a history that fails, line by line.
pub fn last_lines(origin: Origin) -> String {
    let mut world = World::new(origin, Trace::kept());
    let _ = catch_unwind(AssertUnwindSafe(|| history::play_in(&mut world)));
    match world.trace.lines {
        Lines::Kept(lines) => lines.into_iter().collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

pub fn run(run: &Run) -> Results {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Results::default());
    let listed = run.listed.len() as u64;
    let enough = |results: &Results| {
        let failed = results.failures.len();
        failed >= FAILURES_MAX || (run.first_failure && failed > 0) || run.until.is_some_and(|until| Instant::now() >= until)
    };
    std::thread::scope(|scope| {
        for _ in 0..run.threads {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= listed + run.seeds || enough(&results.lock().expect("held for moments only")) {
                        return;
                    }
                    let seed = run.listed.get(turn as usize).copied().unwrap_or(run.start + turn.saturating_sub(listed));
                    let result = play_turn(Origin { seed, ..run.origin }, turn);
                    if let (true, Ok(outcome)) = (run.verbose, &result) {
                        println!("seed {seed} ok {:016x} {} events", outcome.hash, outcome.counts.of(Count::Events));
                    }
                    let mut results = results.lock().expect("no thread panics while it holds the results");
                    match result {
                        Ok(outcome) => {
                            results.counts.merge(&outcome.counts);
                            results.passed += 1;
                        }
                        Err(why) => {
                            // At once: a long run may be ended before it is over. A mutant's is what it is run for.
                            if run.origin.mutant.is_none() {
                                println!("seed {seed} FAILED {}", why.lines().next().unwrap_or_default());
                            }
                            results.failures.push((seed, why));
                        }
                    }
                    if results.histories().is_multiple_of(SAID_EVERY) {
                        println!("... {} histories, {} failed", results.histories(), results.failures.len());
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().expect("all threads ended");
    results.failures.sort();
    results
}

fn play_turn(origin: Origin, turn: u64) -> Result<history::Outcome, String> {
    let mut outcome = play(origin)?;
    if turn.is_multiple_of(TWICE_EVERY) {
        outcome.counts.add(Count::PlayedTwice);
        let again = play(origin)?;
        if again.hash != outcome.hash {
            return Err("violation: the same seed twice gave two histories".into());
        }
    }
    Ok(outcome)
}
