//! Floor 2: the hands. They do and report; they never decide. They see `model` only.

pub mod api;
pub mod artifacts;
pub mod cap;
pub mod helpers;
mod mappings;
pub mod peers;
pub mod pki;
pub mod process;
pub mod provider;
pub mod runtime;
pub mod script;
pub mod store;
pub mod syscall;
pub mod wall_clock;
