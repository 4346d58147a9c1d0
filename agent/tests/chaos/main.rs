//! Five real daemons in a bad world: cut off, stopped, killed, slow, out of disk; and after each, everything looked at.
//!
//! `cargo test --test chaos -- [--rounds N] [--minutes M] [--seed N] [--managers 3|5] [--play WORDS]`
//! With three managers two of the five are workers, who take over seats. With five, the default, the plays come first, each a sentence; then rounds drawn from the seed. After each round every acknowledged write must
//! be there, the five states be equal, and the cluster be healthy within ten seconds of the last heal. The same seed gives
//! the same order of faults; what the machine makes of it is its own.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod faults;
mod ground;
mod plays;
mod relay;
mod rng;
mod rounds;
mod wire;
mod writers;

use cluster::Cluster;
use faults::Plan;
use ground::Ground;
use rng::Rng;
use rounds::Summary;
use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use writers::Writers;

pub const NODES: usize = 5;
const ROUNDS_DEFAULT: u64 = 3;

#[derive(Default)]
struct Args {
    rounds: Option<u64>,
    minutes: Option<u64>,
    seed: Option<u64>,
    managers: Option<u64>,
    play: Option<String>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(code) = ground::enter() {
        return code;
    }
    let seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()));
    println!("seed {seed}");
    let managers = args.managers.map_or(NODES, |managers| managers as usize);
    let mut cluster = Cluster::form(Ground::prepare(), managers);
    let writers = Writers::start(&cluster);
    let played = if managers == NODES { plays::run(&mut cluster, &writers, args.play.as_deref()) } else { Ok(()) };
    match played.and_then(|()| random(&args, seed, &mut cluster, &writers)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for node in 0..NODES {
                let log = cluster.log(node);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("---- {} said last:\n{}", Cluster::name(node), lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            eprintln!("error: {why}");
            eprintln!("seed {seed}: cargo test --workspace --test chaos -- --seed {seed} --managers {managers}");
            ExitCode::FAILURE
        }
    }
}

fn random(args: &Args, seed: u64, cluster: &mut Cluster, writers: &Writers) -> Result<(), String> {
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let rounds = match (args.rounds, until) {
        (Some(rounds), _) => rounds,
        (None, Some(_)) => u64::MAX,
        // One play is asked for to look at it, not at what comes after.
        (None, None) => {
            if args.play.is_some() {
                0
            } else {
                ROUNDS_DEFAULT
            }
        }
    };
    let mut rng = Rng(seed);
    let mut summary = Summary::new();
    for round in 1..=rounds {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let plan = Plan::draw(&mut rng, &cluster.ground, cluster.managers());
        let (whom, seen) = rounds::play(&plan, cluster, writers).map_err(|why| format!("round {round}, {plan}: {why}"))?;
        println!(
            "round {round}: {plan}: {whom}; {} writes, longest pause {:.2?}, healthy after {:.2?}",
            seen.told.acknowledged, seen.told.pause, seen.healthy_after
        );
        summary.add(&plan, cluster.managers(), &seen);
    }
    if summary.rounds() > 0 {
        summary.print();
    }
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
        match word.as_str() {
            "--rounds" => args.rounds = Some(number(value()?)?),
            "--minutes" => args.minutes = Some(number(value()?)?),
            "--seed" => args.seed = Some(number(value()?)?),
            "--managers" => match number(value()?)? {
                managers @ (3 | 5) => args.managers = Some(managers),
                other => return Err(format!("three or five of the five are managers, not {other}")),
            },
            "--play" => args.play = Some(value()?),
            // What `cargo test` hands to every test program.
            "--nocapture" | "--test-threads=1" | "--quiet" => {}
            _ => return Err(format!("unknown argument `{word}`")),
        }
    }
    Ok(args)
}
