//! Data to stdout, words to stderr.

use crate::message::{Exit, Failure};
use crate::render::Paint;
use std::io::{self, Write as _};

#[derive(Clone, Copy)]
pub struct Out {
    pub json: bool,
    /// Colours of stdout.
    pub paint: Paint,
}

impl Out {
    pub fn new(json: bool) -> Out {
        Out { json, paint: Paint::stdout() }
    }

    /// What was asked for. A reader that went away (`disco events | head`) ends the process quietly.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn data(&self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(Exit::Done.code().into()),
            Err(e) => Err(Failure::broke("cannot write the answer").caused_by(&e)),
            Ok(()) => Ok(()),
        }
    }

    /// One JSON document: spread over lines for a listing.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn document(&self, value: &serde_json::Value) -> Result<(), Failure> {
        self.data(format!("{value:#}\n"))
    }

    /// One JSON document on one line, for commands that go on printing.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn line(&self, value: &serde_json::Value) -> Result<(), Failure> {
        self.data(format!("{value}\n"))
    }

    /// Words for the person. Nobody to read them is no error.
    pub fn say(&self, words: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", words.as_ref());
    }

    pub fn complain(&self, failure: &Failure) {
        let _ = io::stderr().lock().write_all(failure.render(Paint::stderr()).as_bytes());
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
