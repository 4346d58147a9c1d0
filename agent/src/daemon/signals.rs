//! Signals as events: they wait in a descriptor until somebody reads them, and interrupt nobody.

use crate::drivers::syscall::{self, SIGHUP, SIGINT, SIGTERM};
use smol::Async;
use std::{fs::File, io};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

pub struct Signals(Async<File>);

/// From here on the signals wait. Call it before the first thread starts: threads take over what is blocked.
///
/// # Errors
/// As signalfd(2).
pub fn hold_back() -> io::Result<File> {
    Ok(syscall::signals(&[SIGTERM, SIGINT, SIGHUP])?.into())
}

impl Signals {
    /// Reads what `hold_back` gave.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn new(held: File) -> io::Result<Signals> {
        Ok(Signals(Async::new(held)?))
    }

    /// # Errors
    /// As read(2).
    pub async fn next(&self) -> io::Result<Signal> {
        let number = self.0.read_with(syscall::next_signal).await?;
        Ok(if number == SIGHUP { Signal::Reload } else { Signal::Stop })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn stop(&self) {
        loop {
            match self.next().await {
                Ok(Signal::Stop) => return,
                Ok(Signal::Reload) => {}
                Err(error) => {
                    log::error!("cannot read signals any more: {error}");
                    return std::future::pending().await;
                }
            }
        }
    }
}
