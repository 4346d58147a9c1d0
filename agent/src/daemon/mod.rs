//! Floor 3: wiring.

mod clock;
mod complaint;
pub mod config;
mod data_dir;
pub mod detach;
mod join;
mod keys;
mod machine;
mod notebook;
mod origin;
mod provide;
mod pump;
pub mod run;
mod script;
mod shed;
mod signals;
pub mod telemetry;
