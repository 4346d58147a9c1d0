//! `discod --detach`: leave whoever started us, and say which process goes on.
//!
//! With `--await-record` the one that goes on does nothing before it has read a byte from stdin: the starter
//! sends it once it has written down the pid. If the starter dies first, we end too: nobody would know of us.

use crate::drivers::syscall::{self, Fork};
use std::{
    fs::File,
    io::{self, Read, Write},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// This process has said the pid and is to exit with 0.
    Done,
    /// This process goes on, in a session of its own, with stderr for stdout and no stdin.
    Onward,
    /// This process was never recorded and is to exit.
    Unwanted,
}

/// Call it before the first thread starts.
///
/// # Errors
/// There are threads already, or fork(2), setsid(2) or stdio fail.
pub fn detach(await_record: bool) -> io::Result<Detached> {
    if let Fork::Parent { child } = syscall::fork()? {
        writeln!(io::stdout(), "{child}")?;
        return Ok(Detached::Done);
    }
    syscall::start_session()?;
    syscall::replace_stdio(io::stderr(), 1)?;
    if await_record && io::stdin().lock().read(&mut [0])? == 0 {
        return Ok(Detached::Unwanted);
    }
    syscall::replace_stdio(File::open("/dev/null")?, 0)?;
    Ok(Detached::Onward)
}
