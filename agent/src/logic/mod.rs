//! Floor 1: the mind. No I/O, clock, randomness, threads, async or `unsafe`: time and chance are arguments.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod forming;
pub mod keeper;
pub mod plan;
pub mod raft;
pub mod replica;
pub mod shedding;
pub mod state;
pub mod token;
