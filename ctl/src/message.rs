//! What a person reads when something is not done.
//!
//! Three kinds of line and no more: `error:` names the thing, `caused by:` says why, one level deeper each,
//! `hint:` says what to do next. Never a debug dump: whoever makes a failure writes the sentence.

use std::error::Error;
use std::fmt::Write as _;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// The answer is no: not found, unhealthy, refused, unreachable.
    No,
    /// Something broke, or the command line was wrong.
    Broke,
    /// `plan` found something to change.
    Changes,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::No => 1,
            // `plan` says "broke" with 1: see `Failure::into_no`.
            Exit::Broke | Exit::Changes => 2,
        }
    }
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// The answer is no.
    pub fn no(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), causes: Vec::new(), hint: None, exit: Exit::No }
    }

    /// Something broke, or was asked wrongly.
    pub fn broke(what: impl Into<String>) -> Failure {
        Failure { exit: Exit::Broke, ..Failure::no(what) }
    }

    pub fn because(mut self, cause: impl Into<String>) -> Failure {
        self.causes.push(cause.into());
        self
    }

    /// Adds an error and all its sources; a source that only repeats the line above it is left out.
    pub fn caused_by(mut self, error: &(dyn Error + '_)) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            let line = error.to_string();
            if self.causes.last().unwrap_or(&self.what) != &line {
                self.causes.push(line);
            }
            next = error.source();
        }
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// For a command whose exit 2 means something else.
    pub fn into_no(self) -> Failure {
        Failure { exit: Exit::No, ..self }
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The first line's text, for whoever carries it on.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// All in one line, for a progress line or a script's exception.
    pub fn in_one_line(&self) -> String {
        let mut line = self.what.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }

    /// The lines, each ended. Causes that have lines of their own (a stack trace) stay below their first.
    pub fn render(&self, paint: crate::render::Paint) -> String {
        let mut text = String::new();
        let mut line = |label: String, words: &str, margin: &str| {
            let mut parts = words.trim_end().lines();
            let _ = writeln!(text, "{label} {}", parts.next().unwrap_or_default());
            for part in parts {
                let _ = writeln!(text, "{margin}{part}");
            }
        };
        line(paint.red("error:"), &self.what, "  ");
        for cause in &self.causes {
            line(format!("  {}", paint.dim("caused by:")), cause, "    ");
        }
        if let Some(hint) = &self.hint {
            line(paint.green("hint:"), hint, "  ");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Paint;

    #[test]
    fn a_failure_reads_as_error_causes_hint() {
        let failure = Failure::no("cannot place service `web`")
            .because("no node has 512 MiB free (most is 384 MiB, on `n2`)")
            .hint("lower `memory`, or add a machine with `disco scale 4`");
        assert_eq!(
            failure.render(Paint::off()),
            "error: cannot place service `web`\n  \
             caused by: no node has 512 MiB free (most is 384 MiB, on `n2`)\n\
             hint: lower `memory`, or add a machine with `disco scale 4`\n"
        );
        assert_eq!(failure.exit(), Exit::No);
    }

    #[test]
    fn every_source_of_an_error_is_a_line_and_none_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read ca.crt")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::broke("cannot read ca.crt").caused_by(&Outer(std::io::Error::other("disk on fire")));
        assert_eq!(failure.render(Paint::off()), "error: cannot read ca.crt\n  caused by: disk on fire\n");
        assert_eq!(failure.in_one_line(), "cannot read ca.crt: disk on fire");
    }

    #[test]
    fn a_stack_trace_stays_under_its_cause() {
        let failure = Failure::broke("client.js failed").because("TypeError: x\nat init (client.js:3)\n");
        assert_eq!(failure.render(Paint::off()), "error: client.js failed\n  caused by: TypeError: x\n    at init (client.js:3)\n");
    }
}
