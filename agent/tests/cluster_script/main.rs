//! cluster.js on real nodes: pushed over control.sock, run by the leader, seen by people.

#[path = "../common/mod.rs"]
mod common;

mod rig;
mod runs;
