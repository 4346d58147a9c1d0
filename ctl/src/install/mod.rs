//! Puts `discod` on a machine that is reached over SSH, and asks the new node's own door from here.
//!
//! Nothing is believed that was not checked: a machine shows the host key that was given, or the one in known_hosts, or it
//! is not spoken to. `trust` says which key that is, `session` connects and runs commands, `machine` installs step by step,
//! each step asking first what is already so; `programs` finds the `discod` for a machine's architecture, `door` carries the
//! control socket. russh needs tokio, which lives on a `thread` of its own, here and nowhere else.

pub mod door;
pub mod error;
pub mod host_key;
pub mod known_hosts;
pub mod machine;
pub mod programs;
pub mod session;
mod thread;
pub mod trust;

#[cfg(test)]
mod hostile;
