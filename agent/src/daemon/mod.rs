//! Floor 3: wiring.

pub mod config;
pub mod detach;
pub mod telemetry;
