//! Runs a person's scripts (`client.js` for `disco`, `cluster.js` for `discod`) where they can hurt nobody.
//!
//! Boa is a good interpreter that cannot be limited: a string of 2 GB aborts the process, a loop inside a function
//! or a bad regular expression never comes back, and memory of a loaded module is never given back. So a script
//! runs in a child, which is our own binary executed again as `<self> __script`, and every limit is one that the
//! kernel or the host's clock keeps. The child is started when a script is to run and goes away when it idles, so that its
//! memory is a visitor in the node's 10 MB.
//!
//! ```text
//!   host.rs      calls, errors                                      child.rs   limits, events
//!   executor.rs  spawn, clock, funeral ── frames on a socketpair ── engine.rs  Boa: modules, hooks, errors
//!                                                                   jobs.rs, modules.rs, console.rs, lane.rs
//!                                                                   bindings.rs + prelude.js: what scripts see
//!                                                                   fetch.rs, run.rs
//!   cluster.rs   the hooks of cluster.js                            spec.rs    a service as written (both sides)
//!   declared.rs  what configure() left behind
//! ```
//!
//! The child is trusted to be our code but not to live: it may die at any instruction, and whoever talks to it
//! gets an error that says which file and hook it was at, and starts another.

mod bindings;
mod child;
mod clock;
mod cluster;
mod console;
mod declared;
mod engine;
mod error;
mod executor;
mod fetch;
mod frame;
mod host;
mod jobs;
mod lane;
mod modules;
mod run;
mod spec;

pub use child::child_main;
pub use declared::Declared;
pub use error::ScriptError;
pub use frame::{Arg, Modules};
pub use host::{Exports, HostOps, Limits, ScriptHost, ScriptOptions};
pub use modules::{is_built_in, read_file, resolve};
pub use spec::parse as read_service;
