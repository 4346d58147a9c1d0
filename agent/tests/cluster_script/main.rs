//! cluster.js on real nodes: pushed over control.sock, run by the leader, seen by people.

#[path = "../common/mod.rs"]
mod common;

mod hurts;
mod rig;
mod runs;
