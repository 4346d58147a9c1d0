//! Says no, with both numbers, when a measurement passes its budget.
//!
//! Budgets live in `budgets.toml` and not in code, so that changing the promise is a change one can see.

use crate::sampler::Measured;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt};

/// The promise of one state. A limit that is absent is not promised. Bytes unless the name says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Largest footprint of any sample.
    pub footprint_max: Option<u64>,
    /// Largest middle one of all samples' footprints: steadier than the largest sample, so this one can be tight.
    pub median_max: Option<u64>,
    /// Largest resident set of the daemon by itself.
    pub rss_max: Option<u64>,
    /// Largest VmHWM of the daemon since it started.
    pub peak_max: Option<u64>,
    /// Most anonymous memory in the tree.
    pub anonymous_max: Option<u64>,
    /// Largest middle one of all samples' anonymous memory: what was not given back is in it, whatever code ran.
    pub anonymous_median_max: Option<u64>,
    /// Most that repeated work may leave behind in anonymous memory.
    pub growth_max: Option<u64>,
    /// Most threads of the daemon.
    pub threads_max: Option<u64>,
    /// Most processes in the tree, the daemon among them.
    pub processes_max: Option<u64>,
    /// Most CPU time, percent of one core.
    pub cpu_percent_max: Option<f64>,
    /// Most wake-ups a second.
    pub wakeups_per_second_max: Option<f64>,
}

/// One promise that was not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// The state that was measured.
    pub phase: String,
    /// What was too much.
    pub what: &'static str,
    /// As measured, with its unit.
    pub measured: String,
    /// As promised, with its unit.
    pub allowed: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is {}, the budget is {}", self.phase, self.what, self.measured, self.allowed)
    }
}

/// What a budget has to notice wherever it is added (`anonymous_median_max`, the steadiest figure).
const NOTICED: u64 = 1_000_000;

impl Budget {
    /// Every limit that `measured` passed; empty when the promise was kept.
    ///
    /// Nothing measured is itself a breach: a dead process must not pass for a small one.
    pub fn judge(&self, phase: &str, measured: &Measured) -> Vec<Breach> {
        let breach = |what, measured: String, allowed: String| Breach { phase: phase.to_owned(), what, measured, allowed };
        if measured.samples == 0 {
            return vec![breach("number of samples", "0".to_owned(), "at least 1".to_owned())];
        }
        let sizes = [
            ("footprint", measured.footprint, self.footprint_max),
            ("median footprint", measured.footprint_median, self.median_max),
            ("daemon RSS", measured.rss, self.rss_max),
            ("daemon peak (VmHWM)", measured.peak, self.peak_max),
            ("anonymous memory", measured.anonymous, self.anonymous_max),
            ("median anonymous memory", measured.anonymous_median, self.anonymous_median_max),
            ("growth", measured.growth, self.growth_max),
        ];
        let counts = [
            ("number of threads", measured.threads as f64, self.threads_max.map(|max| max as f64)),
            ("number of processes", measured.processes as f64, self.processes_max.map(|max| max as f64)),
            ("CPU percent", measured.cpu_percent, self.cpu_percent_max),
            ("wake-ups a second", measured.wakeups_per_second, self.wakeups_per_second_max),
        ];
        let sizes = sizes.into_iter().filter_map(|(what, is, max)| {
            let max = max.filter(|max| is > *max)?;
            Some(breach(what, megabytes(is), megabytes(max)))
        });
        let counts = counts.into_iter().filter_map(|(what, is, max)| {
            let max = max.filter(|max| is > *max)?;
            Some(breach(what, format!("{is:.2}"), format!("{max:.2}")))
        });
        sizes.chain(counts).collect()
    }

    /// What there is to say against a budget that one megabyte more in each of a state's processes would not pass; `largest` is the
    /// largest of their median anonymous memories. It guards nothing, and fails too until it is lowered.
    pub fn judge_width(&self, phase: &str, largest: u64) -> Option<Breach> {
        let allowed = match self.anonymous_median_max {
            Some(max) if largest + NOTICED > max => return None,
            Some(max) => format!("{}: a megabyte more would pass; lower it", megabytes(max)),
            None => "not written down: a megabyte more would pass".to_owned(),
        };
        let measured = format!("{} at most", megabytes(largest));
        Some(Breach { phase: phase.to_owned(), what: "median anonymous memory", measured, allowed })
    }
}

/// Bytes as a person reads them. Three places, so that two numbers that differ look different.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.3} MB", bytes as f64 / 1e6)
}

/// All promises, by architecture (as Rust names it, or `any`) and the name of the state they are about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Budgets(BTreeMap<String, BTreeMap<String, Budget>>);

/// Why budgets could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The file is not what it should be.
    #[error("budgets do not parse")]
    Parse(#[from] toml::de::Error),
    /// A state without a promise would pass by itself.
    #[error("no budget is written for `{0}`")]
    Missing(String),
}

impl Budgets {
    /// The promise as it was built in.
    pub fn shipped() -> Budgets {
        Budgets::parse(include_str!("../budgets.toml")).expect("a test parses budgets.toml")
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// Unknown fields and wrong types, named with their line.
    pub fn parse(text: &str) -> Result<Budgets, BudgetError> {
        Ok(toml::from_str(text)?)
    }

    /// The budget of one state on the machine that this runs on.
    ///
    /// # Errors
    /// [`BudgetError::Missing`] if none is written down.
    pub fn of(&self, phase: &str) -> Result<&Budget, BudgetError> {
        self.on(std::env::consts::ARCH, phase)
    }

    /// The budget of one state on one architecture.
    ///
    /// # Errors
    /// [`BudgetError::Missing`] if none is written down.
    pub fn on(&self, architecture: &str, phase: &str) -> Result<&Budget, BudgetError> {
        let found = [architecture, "any"].iter().find_map(|name| self.0.get(*name)?.get(phase));
        found.ok_or_else(|| BudgetError::Missing(format!("{architecture}.{phase}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(footprint: u64) -> Measured {
        Measured { samples: 3, footprint, cpu_percent: 0.4, ..Measured::default() }
    }

    #[test]
    fn a_budget_passed_is_told_with_both_numbers() {
        let budget = Budget { footprint_max: Some(10_000_000), ..Budget::default() };
        let breaches = budget.judge("idle-leader", &measured(11_262_000));
        assert_eq!(breaches[0].to_string(), "idle-leader: footprint is 11.262 MB, the budget is 10.000 MB");
        assert!(budget.judge("idle-leader", &measured(10_000_000)).is_empty());
    }

    #[test]
    fn every_limit_is_compared_with_its_own_number() {
        let all = Budget {
            footprint_max: Some(1),
            median_max: Some(1),
            rss_max: Some(1),
            peak_max: Some(1),
            anonymous_max: Some(1),
            anonymous_median_max: Some(1),
            growth_max: Some(1),
            threads_max: Some(1),
            processes_max: Some(1),
            cpu_percent_max: Some(1.0),
            wakeups_per_second_max: Some(1.0),
        };
        let too_much = Measured {
            samples: 1,
            seconds: 1.0,
            footprint: 2,
            footprint_median: 2,
            footprint_last: 2,
            growth: 2,
            rss: 2,
            anonymous: 2,
            anonymous_median: 2,
            peak: 2,
            threads: 2,
            processes: 2,
            cpu_percent: 2.0,
            wakeups_per_second: 2.0,
        };
        assert_eq!(all.judge("all", &too_much).len(), 11);
    }

    #[test]
    fn a_budget_that_a_megabyte_more_would_not_pass_is_no_budget() {
        let budget = |max| Budget { anonymous_median_max: max, ..Budget::default() };
        assert_eq!(budget(Some(2_900_000)).judge_width("deploys", 1_930_000), None);
        let loose = budget(Some(2_930_000)).judge_width("deploys", 1_930_000).expect("exactly a megabyte more passes");
        assert!(loose.to_string().contains("1.930 MB") && loose.to_string().contains("2.930 MB"), "{loose}");
        assert!(budget(None).judge_width("deploys", 1_930_000).is_some());
    }

    #[test]
    fn nothing_measured_is_no_pass() {
        assert_eq!(Budget::default().judge("idle-leader", &Measured::default()).len(), 1);
    }

    #[test]
    fn the_shipped_budgets_hold_every_phase_and_refuse_unknown_fields() {
        let budgets = Budgets::shipped();
        for architecture in ["x86_64", "aarch64"] {
            for phase in crate::scenarios::PHASES.iter().chain(&["debug-build"]) {
                assert!(budgets.on(architecture, phase).is_ok(), "{phase} has no budget on {architecture}");
            }
        }
        assert!(matches!(budgets.of("nowhere"), Err(BudgetError::Missing(_))));
        let error = Budgets::parse("[any.idle-leader]\nfoot_print_max = 1\n").expect_err("a misspelt limit is no limit");
        assert!(std::error::Error::source(&error).expect("the parser's error").to_string().contains("foot_print_max"));
    }
}
