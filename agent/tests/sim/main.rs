//! The deterministic simulator: the production `Replica` in a world where everything that can go wrong does.
//!
//! `cargo test --test sim -- [--seed N] [--seeds N] [--start N] [--trace] [--verbose] [--mutant NAME] [--play NAME]`
//! The protocol plays of `tests/raft_scripts` come first, then one history a seed. A failure's last line is the command that plays it again.

mod calls;
mod checkers;
mod clients;
mod clock;
mod cloud;
mod counts;
mod disk;
mod effects;
mod faults;
mod history;
mod linear;
mod logs;
mod mutants;
mod network;
mod node;
mod options;
mod plays;
mod rng;
mod scripts;
mod services;
mod tasks;
mod trace;
mod workload;
mod world;

use counts::{Count, Counts};
use mutants::Mutant;
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use trace::{Lines, Trace};
use world::World;

thread_local! {
    /// Where the last panic of this thread was.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Seeds that once failed; they run first.
const SEEDS_TXT: &str = include_str!("seeds.txt");
const SEEDS_DEFAULT: u64 = 200;
const THREADS: usize = 2;
/// Every so many histories one is played twice: its trace must be the same.
const TWICE_EVERY: usize = 20;

struct Args {
    seeds: Vec<u64>,
    trace: bool,
    verbose: bool,
    mutant: Option<Mutant>,
    play: Option<String>,
    full: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    // A violation is a panic; its text is reported with the history, not when it happens.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PANICKED_AT.set(place.unwrap_or_default());
    }));
    if args.trace && args.play.is_none() {
        return trace(&args);
    }
    linear::check_the_checker();
    let began = Instant::now();
    let failed_plays = perform_plays(&args);
    let (counts, passed, failures) = run_all(&args);
    report(&args, &counts, passed + failures.len(), began);
    let zeroes = if args.full && failures.is_empty() { counts.zeroes() } else { Vec::new() };
    for zero in &zeroes {
        println!("error: never happened in {passed} histories: {zero}");
    }
    for (seed, why) in failures.iter().take(20) {
        println!("seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
    if let Some((seed, why)) = failures.first() {
        println!("\nseed {seed}, the last events:\n{}", last_lines(*seed, args.mutant));
        println!("{why}");
    }
    println!("{} passed, {} failed", passed + performed(&args) - failed_plays.len(), failures.len() + failed_plays.len());
    if let Some((seed, _)) = failures.first() {
        println!("{}", replay(*seed, args.mutant));
    } else if let Some(name) = failed_plays.first() {
        println!("cargo test -p agent --test sim -- --trace --play {name}");
    }
    if failures.is_empty() && failed_plays.is_empty() && zeroes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let (mut seed, mut seeds, mut start) = (None, SEEDS_DEFAULT, 1);
    let mut args = Args { seeds: Vec::new(), trace: false, verbose: false, mutant: None, play: None, full: false };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).ok_or(format!("{word} wants a number"));
        match word.as_str() {
            "--seed" => seed = Some(number()?),
            "--seeds" => seeds = number()?,
            "--start" => start = number()?,
            "--trace" => args.trace = true,
            "--verbose" => args.verbose = true,
            "--mutant" => {
                let name = words.next().unwrap_or_default();
                args.mutant = Some(Mutant::named(&name).ok_or(format!("no mutant `{name}`: there are {:?}", Mutant::ALL))?);
            }
            "--play" => args.play = words.next(),
            // What cargo hands to every test binary.
            "--nocapture" | "--quiet" | "-q" | "--exact" => {}
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    args.seeds = match seed {
        Some(seed) => vec![seed],
        None => seeds_txt().chain(start..start + seeds).collect(),
    };
    if args.play.is_some() {
        args.seeds.clear();
    }
    args.full = args.play.is_none() && seed.is_none() && seeds >= SEEDS_DEFAULT && args.mutant.is_none();
    Ok(args)
}

/// One seed a line, then why it failed.
fn seeds_txt() -> impl Iterator<Item = u64> {
    SEEDS_TXT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

fn is_wanted(args: &Args, name: &str) -> bool {
    args.full || args.play.as_deref().is_some_and(|wanted| wanted == name || wanted == "all")
}

fn performed(args: &Args) -> usize {
    plays::PLAYS.iter().filter(|(name, _)| is_wanted(args, name)).count()
}

/// The names of the plays that went wrong.
fn perform_plays(args: &Args) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for (name, text) in plays::PLAYS.iter().filter(|(name, _)| is_wanted(args, name)) {
        let lines = if args.trace { Lines::Printed } else { Lines::Off };
        let seed = 1;
        let result = catch_unwind(AssertUnwindSafe(|| plays::perform(text, seed, lines)));
        match result {
            Ok(_) => println!("play {name} ... ok"),
            Err(panic) => {
                println!("play {name} ... FAILED: {}", text_of(&*panic));
                failed.push(*name);
            }
        }
    }
    failed
}

type Failure = (u64, String);

/// # Errors
/// The text of the violation.
fn play(seed: u64, mutant: Option<Mutant>) -> Result<history::Outcome, String> {
    catch_unwind(|| {
        let mut world = World::new(seed, Lines::Off, mutant);
        history::play_in(&mut world);
        history::finish(&world)
    })
    .map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| text.to_string()));
    let text = text.unwrap_or("panic".into());
    // A violation says what it is; anything else is best explained by its place.
    if text.starts_with("violation") { text } else { format!("{text} ({})", PANICKED_AT.with_borrow(String::clone)) }
}

fn run_all(args: &Args) -> (Counts, usize, Vec<Failure>) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Counts::default(), 0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(args.seeds.len()) {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = args.seeds.get(turn).copied() else { return };
                    let mut result = play(seed, args.mutant);
                    if turn.is_multiple_of(TWICE_EVERY)
                        && let Ok(first) = &mut result
                    {
                        first.counts.add(Count::PlayedTwice);
                        if play(seed, args.mutant).map(|second| second.hash) != Ok(first.hash) {
                            result = Err("violation: the same seed twice gave two histories".into());
                        }
                    }
                    let mut results = results.lock().expect("no thread panics while it holds the results");
                    match result {
                        Ok(outcome) => {
                            if args.verbose {
                                println!("seed {seed} ok {:016x} {} events", outcome.hash, outcome.counts.of(Count::Events));
                            }
                            results.0.merge(&outcome.counts);
                            results.1 += 1;
                        }
                        Err(why) => {
                            if args.verbose {
                                println!("seed {seed} FAILED {why}");
                            }
                            results.2.push((seed, why));
                        }
                    }
                }
            });
        }
    });
    let (counts, passed, mut failures) = results.into_inner().expect("all threads ended");
    failures.sort();
    (counts, passed, failures)
}

fn report(args: &Args, counts: &Counts, histories: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!("{histories} histories in {seconds:.1} s ({:.0} a second)", histories as f64 / seconds);
    if args.seeds.len() > 1 || args.verbose {
        println!("{:.0} events a history on average", counts.of(Count::Events) as f64 / histories.max(1) as f64);
    }
    for (count, text) in Count::ALL {
        println!("{:>12} {text}", counts.of(*count));
    }
}

fn last_lines(seed: u64, mutant: Option<Mutant>) -> String {
    let mut world = World::new(seed, Trace::kept(), mutant);
    let _ = catch_unwind(AssertUnwindSafe(|| history::play_in(&mut world)));
    match world.trace.lines {
        Lines::Kept(lines) => lines.into_iter().collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn trace(args: &Args) -> ExitCode {
    let mut failed = false;
    for seed in &args.seeds {
        let mut world = World::new(*seed, Lines::Printed, args.mutant);
        println!("seed {seed}: {:?}", world.options);
        let result = catch_unwind(AssertUnwindSafe(|| history::play_in(&mut world))).map_err(|panic| text_of(&*panic));
        println!("seed {seed}: {result:?}, trace {:016x}", world.trace.hash);
        failed |= result.is_err();
    }
    println!("{} passed, {} failed", usize::from(!failed), usize::from(failed));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn replay(seed: u64, mutant: Option<Mutant>) -> String {
    let mutant = Mutant::ALL.iter().find(|(known, _)| Some(*known) == mutant).map(|(_, name)| format!(" --mutant {name}"));
    format!("cargo test -p agent --test sim -- --seed {seed} --trace{}", mutant.unwrap_or_default())
}
