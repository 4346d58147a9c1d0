//! Holds Disco to its promise: a number, a probe that measures it, and a verdict that fails.
//!
//! The promise is under 10 MB of footprint a node (1 MB = 1,000,000 bytes here, the stricter reading).
//! `sampler` reads what the kernel says of a process tree ten times a second, `verdict` compares that with
//! `budgets.toml`, and `scenarios` bring real binaries into the states that the promise names.
//! [`Watch`] does the same beside any test that starts a process, so a leak shows up where it is made.

#![warn(missing_docs)]

pub mod cluster;
pub mod ec2;
pub mod load;
pub mod puts;
pub mod sampler;
pub mod scenarios;
pub mod starts;
pub mod trend;
pub mod verdict;
mod watch;

pub use sampler::{Measured, Sampler};
pub use verdict::{Breach, Budget, Budgets};
pub use watch::{Watch, addresses, tasks_of};
