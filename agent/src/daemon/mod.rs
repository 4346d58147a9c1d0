//! Floor 3: wiring.

mod clock;
mod complaint;
pub mod config;
mod data_dir;
pub mod detach;
mod forming;
mod image;
mod join;
mod keys;
mod machine;
mod memory;
mod notebook;
mod origin;
mod provide;
mod pump;
pub mod relay;
pub mod run;
mod script;
mod seeds;
mod shed;
mod signals;
pub mod telemetry;
