//! What a person reads when a script did not do.

use std::{error::Error as _, fmt, io, process::ExitStatus, time::Duration};

use thiserror::Error;

/// Where in the script it was: `client.js: bootstrap()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// `bootstrap()`, `every(1 s)`; `None` while the module itself is being evaluated.
    pub hook: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hook {
            Some(hook) => write!(f, "{}: {hook}", self.file),
            None => write!(f, "{}", self.file),
        }
    }
}

/// Why a script has no result. The executor is gone after all but `Failed`; the next call starts another.
#[derive(Debug, Error)]
pub enum ScriptError {
    #[error("cannot start the script executor {exe}")]
    Start { exe: String, source: io::Error },
    /// The script's own exception, a syntax error, or a file that can't be read.
    /// `stack`: lines `    at name (file:line:column)`, may be empty.
    #[error("{place} failed: {message}{}{stack}", if stack.is_empty() { "" } else { "\n" })]
    Failed { place: Place, message: String, stack: String },
    #[error("{place} used more than {} MiB of memory and was stopped", limit_bytes >> 20)]
    Memory { place: Place, limit_bytes: u64 },
    #[error("{place} is nested too deeply (it used up the stack) and was stopped")]
    Stack { place: Place },
    #[error("{place} ran for {} without a pause and was stopped (is there an endless loop?)", seconds(*limit))]
    Hung { place: Place, limit: Duration },
    #[error("{place} ran for {} in all, waiting not counted, and was stopped", seconds(*limit))]
    Greedy { place: Place, limit: Duration },
    #[error("{place} did not finish within {} and was stopped", seconds(*limit))]
    TooLong { place: Place, limit: Duration },
    #[error("{place}: the script executor was killed by somebody else (signal {signal})")]
    Killed { place: Place, signal: i32 },
    #[error("{place}: the script executor broke down ({status}): {words}")]
    Crashed { place: Place, status: ExitStatus, words: String },
    /// Frames that make no sense, or a broken socket.
    #[error("{place}: cannot talk to the script executor")]
    Talk { place: Place, source: io::Error },
}

impl ScriptError {
    /// For a reader who has only this text: a mistake begins with its place, `cluster.js:12:5: in configure(): …`, the
    /// rest of the stack follows.
    pub fn in_words(&self) -> String {
        let text = match self {
            ScriptError::Failed { place, message, stack } if !stack.is_empty() => {
                let (first, rest) = stack.split_once('\n').unwrap_or((stack, ""));
                let at = first.rsplit_once('(').map_or(first, |(_, at)| at).trim().trim_start_matches("at ").trim_end_matches(')');
                let within = place.hook.as_ref().map(|hook| format!("in {hook}: ")).unwrap_or_default();
                format!("{at}: {within}{message}\n{rest}").trim_end().to_owned()
            }
            other => other.to_string(),
        };
        match self.source() {
            Some(source) => format!("{text}: {source}"),
            None => text,
        }
    }
}

/// `5 min`, `10 s`, `700 ms`.
pub fn seconds(time: Duration) -> String {
    if time.as_millis() > 60_000 && time.as_millis().is_multiple_of(60_000) {
        return format!("{} min", time.as_secs() / 60);
    }
    if time.subsec_millis() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}
