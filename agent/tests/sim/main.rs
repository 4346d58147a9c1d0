//! The deterministic simulator: the production `Replica` in a world where everything that can go wrong does.
//!
//! `cargo test --test sim -- [--seed N] [--seeds N] [--start N] [--hours H] [--threads N] [--trace] [--verbose]
//! [--mutants [--budget SECONDS]] [--mutant NAME] [--mix NAME] [--play NAME]`
//! The protocol plays of `tests/raft_scripts` come first, then one history a seed. A failure's last line is its seed and
//! the command that plays it again.

mod calls;
mod checkers;
mod clients;
mod clock;
mod cloud;
mod counts;
mod disk;
mod effects;
mod epilogue;
mod faults;
mod gauntlet;
mod history;
mod linear;
mod links;
mod logs;
mod loss;
mod mutants;
mod network;
mod node;
mod operator;
mod options;
mod papers;
mod plays;
mod promotion;
mod rng;
mod runner;
mod scripts;
mod services;
mod tasks;
mod trace;
mod workload;
mod world;

use counts::Count;
use mutants::Mutant;
use runner::{Results, Run, text_of};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Duration, Instant},
};
use trace::Lines;
use world::{Origin, World};

/// Seeds that once failed; they run first.
const SEEDS_TXT: &str = include_str!("seeds.txt");
const SEEDS_DEFAULT: u64 = 200;
const THREADS_DEFAULT: usize = 2;
/// A run of so many seeds has seen everything that can go wrong.
const SEEDS_OF_A_WHOLE_RUN: usize = 1_000;
const EVENTS_A_HISTORY_MIN: u64 = 500;
const BUDGET_DEFAULT_S: u64 = 20;

struct Args {
    run: Run,
    seed: Option<u64>,
    trace: bool,
    play: Option<String>,
    mutants: bool,
    budget: Duration,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    linear::check_the_checker();
    runner::listen_to_panics();
    if args.mutants {
        return run_mutants(&args);
    }
    if let (Some(seed), true) = (args.seed, args.trace) {
        return trace(Origin { seed, ..args.run.origin });
    }
    let began = Instant::now();
    let (plays, failed_plays) = perform_plays(&args);
    let results = runner::run(&args.run);
    report(&results, began);
    let missing = if is_whole(&args, &results) { missing(&results) } else { Vec::new() };
    missing.iter().for_each(|missing| println!("error: {missing}"));
    for (seed, why) in results.failures.iter().take(20) {
        println!("seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
    let origin = |seed: u64| Origin { seed, ..args.run.origin };
    if let Some((seed, why)) = results.failures.first() {
        println!("\nseed {seed}, the last events:\n{}", runner::last_lines(origin(*seed)));
        println!("{why}");
    }
    let failed = results.failures.len() + failed_plays.len();
    println!("{} passed, {failed} failed", results.passed + plays - failed_plays.len());
    if let Some((seed, _)) = results.failures.first() {
        println!("{}", replay(origin(*seed)));
    } else if let Some(name) = failed_plays.first() {
        println!("play {name}: cargo test --workspace --locked --test sim -- --trace --play {name}");
    }
    if failed == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let origin = Origin { seed: 0, mix: None, mutant: None };
    let run = Run {
        origin,
        listed: Vec::new(),
        start: 1,
        seeds: SEEDS_DEFAULT,
        until: None,
        first_failure: false,
        threads: THREADS_DEFAULT,
        verbose: false,
    };
    let budget = Duration::from_secs(BUDGET_DEFAULT_S);
    let mut args = Args { run, seed: None, trace: false, play: None, mutants: false, budget };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).ok_or(format!("{word} wants a number"));
        match word.as_str() {
            "--seed" => args.seed = Some(number()?),
            "--seeds" => args.run.seeds = number()?,
            "--start" => args.run.start = number()?,
            "--threads" => args.run.threads = number()?.max(1) as usize,
            "--budget" => args.budget = Duration::from_secs(number()?),
            "--hours" => {
                let hours: f64 = words.next().and_then(|n| n.parse().ok()).ok_or("--hours wants a number")?;
                args.run.until = Some(Instant::now() + Duration::from_secs_f64(hours * 3600.0));
                args.run.seeds = u64::from(u32::MAX);
            }
            "--trace" => args.trace = true,
            "--verbose" => args.run.verbose = true,
            "--mutants" => args.mutants = true,
            "--mix" => args.run.origin.mix = Some(mutant(words.next())?),
            "--mutant" => {
                let mutant = mutant(words.next())?;
                (args.run.origin.mutant, args.run.origin.mix) = (Some(mutant), Some(mutant));
            }
            "--play" => args.play = words.next(),
            // What cargo hands to every test binary.
            "--nocapture" | "--quiet" | "-q" | "--exact" => {}
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    if let Some(seed) = args.seed {
        (args.run.start, args.run.seeds) = (seed, 1);
    } else if args.play.is_some() {
        args.run.seeds = 0;
    } else if args.run.origin.mix.is_none() {
        args.run.listed = seeds_txt().collect();
    }
    Ok(args)
}

fn mutant(name: Option<String>) -> Result<Mutant, String> {
    let name = name.unwrap_or_default();
    let names: Vec<&str> = Mutant::ALL.iter().map(|(_, name)| *name).collect();
    Mutant::named(&name).ok_or(format!("no mutant `{name}`: there are {}", names.join(", ")))
}

/// One seed a line, then why it failed.
fn seeds_txt() -> impl Iterator<Item = u64> {
    SEEDS_TXT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// Whether the run is to show that everything happens.
fn is_whole(args: &Args, results: &Results) -> bool {
    results.histories() >= SEEDS_OF_A_WHOLE_RUN && args.run.origin.mix.is_none()
}

/// What a whole run lacks: faults that never struck, or histories in which too little happened.
fn missing(results: &Results) -> Vec<String> {
    let mut missing: Vec<String> = results.counts.zeroes().into_iter().map(|zero| format!("never happened: {zero}")).collect();
    let events = results.counts.of(Count::Events) / results.histories().max(1) as u64;
    if events < EVENTS_A_HISTORY_MIN {
        missing.push(format!("{events} events a history on average, {EVENTS_A_HISTORY_MIN} are the least"));
    }
    if results.failures.is_empty() { missing } else { Vec::new() }
}

/// How many were performed, and the names of those that went wrong.
fn perform_plays(args: &Args) -> (usize, Vec<&'static str>) {
    let all = args.seed.is_none() && args.play.is_none() && args.run.origin.mix.is_none();
    let is_wanted = |name: &str| all || args.play.as_deref().is_some_and(|wanted| wanted == name || wanted == "all");
    let (mut performed, mut failed) = (0, Vec::new());
    for (name, text) in plays::PLAYS.iter().filter(|(name, _)| is_wanted(name)) {
        let lines = if args.trace { Lines::Printed } else { Lines::Off };
        performed += 1;
        match catch_unwind(AssertUnwindSafe(|| plays::perform(text, 1, lines))) {
            Ok(_) => println!("play {name} ... ok"),
            Err(panic) => {
                println!("play {name} ... FAILED: {}", text_of(&*panic));
                failed.push(*name);
            }
        }
    }
    (performed, failed)
}

fn report(results: &Results, began: Instant) {
    let (seconds, histories) = (began.elapsed().as_secs_f64(), results.histories());
    println!("{histories} histories in {seconds:.1} s ({:.0} a second)", histories as f64 / seconds);
    println!("{:.0} events a history on average", results.counts.of(Count::Events) as f64 / results.passed.max(1) as f64);
    for (count, text) in Count::ALL {
        println!("{:>12} {text}", results.counts.of(*count));
    }
}

fn run_mutants(args: &Args) -> ExitCode {
    match gauntlet::run(args.run.threads, args.budget) {
        Ok(caught) => {
            println!("{caught} mutants caught");
            ExitCode::SUCCESS
        }
        Err(survivors) => {
            println!("error: survived: {}", survivors.join(", "));
            println!("cargo test --workspace --locked --test sim -- --mutant {}", survivors[0]);
            ExitCode::FAILURE
        }
    }
}

fn trace(origin: Origin) -> ExitCode {
    let mut world = World::new(origin, Lines::Printed);
    println!("seed {}: {:?}", origin.seed, world.options);
    let result = catch_unwind(AssertUnwindSafe(|| history::play_in(&mut world))).map_err(|panic| text_of(&*panic));
    println!("seed {}: {result:?}, trace {:016x}", origin.seed, world.trace.hash);
    println!("{}", replay(origin));
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last line of a failure.
fn replay(origin: Origin) -> String {
    let mutant = origin.mutant.map(|mutant| format!(" --mutant {}", mutant.name())).unwrap_or_default();
    let mix = origin.mix.filter(|_| mutant.is_empty()).map(|mix| format!(" --mix {}", mix.name())).unwrap_or_default();
    let seed = origin.seed;
    format!("seed {seed}: cargo test --workspace --locked --test sim -- --seed {seed} --trace{mutant}{mix}")
}
