//! `discod`: one node of a Disco cluster.
//!
//! One idea carries the house: `Input → Replica (pure) → Effect → drivers → Input`.
//! `model` holds the words, `logic` decides, `drivers` do, `daemon` wires them together.

extern crate alloc;

pub mod daemon;
pub mod drivers;
pub mod logic;
pub mod model;

/// Version, commit and target of this build: `0.1.0 (0123456789ab, aarch64-unknown-linux-musl)`.
pub const VERSION: &str = env!("DISCO_VERSION");
