//! Every mutant in turn: each must be caught within its time, and the seed that catches it must be innocent without it.

use crate::{
    mutants::Mutant,
    runner::{self, Run},
    world::Origin,
};
use std::time::{Duration, Instant};

/// # Errors
/// The names of those that survived.
pub fn run(threads: usize, budget: Duration) -> Result<usize, Vec<&'static str>> {
    let mut survivors = Vec::new();
    for (mutant, name) in Mutant::ALL.iter().copied() {
        let began = Instant::now();
        let (mut caught, mut histories) = (None, 0);
        while caught.is_none() && began.elapsed() < budget {
            let results = runner::run(&Run {
                origin: Origin { seed: 0, mix: Some(mutant), mutant: Some(mutant) },
                listed: Vec::new(),
                start: 1 + histories,
                seeds: u64::from(u32::MAX),
                until: Some(began + budget),
                first_failure: true,
                threads,
                verbose: false,
            });
            histories += results.histories() as u64;
            // A seed that fails by itself says nothing of the mutant.
            caught = results
                .failures
                .into_iter()
                .find(|(seed, _)| runner::play(Origin { seed: *seed, mix: Some(mutant), mutant: None }).is_ok());
        }
        let seconds = began.elapsed().as_secs_f64();
        match caught {
            Some((seed, why)) => {
                let why = why.lines().next().unwrap_or_default().chars().take(160).collect::<String>();
                println!("mutant {name} ... caught by seed {seed} ({histories} histories, {seconds:.1} s): {why}");
            }
            None => {
                println!("mutant {name} ... SURVIVED {histories} histories, {seconds:.1} s");
                survivors.push(name);
            }
        }
    }
    if survivors.is_empty() { Ok(Mutant::ALL.len()) } else { Err(survivors) }
}
