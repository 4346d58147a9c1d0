//! Floor 0: the words every other floor uses. No operating system here: `core`, `alloc` and `heapless` only
//! (and `minicbor`, which needs no more than they do), so that it could run without std.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod authority;
pub mod codec;
pub mod command;
pub mod event;
pub mod ids;
pub mod instance;
pub mod io;
pub mod limits;
pub mod node;
pub mod query;
pub mod recovery;
pub mod script;
pub mod service;
pub mod settings;
pub mod task;
pub mod token;
