//! How much a script may say.
//!
//! A person reads perhaps ten lines a second and a terminal shows fifty; a script in a loop writes ten thousand.
//! So a second's first [`SCRIPT_CONSOLE_LINES_PER_SECOND_MAX`] lines are passed on, the rest is counted, and the
//! count is said at the end of the second or of the run. A run (one hook, or one load) has a bound in bytes as well.

use std::time::{Duration, Instant};

use crate::model::limits::{SCRIPT_CONSOLE_BYTES_MAX, SCRIPT_CONSOLE_LINE_BYTES_MAX, SCRIPT_CONSOLE_LINES_PER_SECOND_MAX};

const WINDOW: Duration = Duration::from_secs(1);

/// One run's output.
#[derive(Debug, Default)]
pub struct Console {
    window_start: Option<Instant>,
    in_window: usize,
    dropped: u64,
    bytes: usize,
    full: bool,
}

/// What is to be shown, in order.
pub type Lines = Vec<(&'static str, String)>;

impl Console {
    pub fn handle_line(&mut self, level: &'static str, mut text: String, now: Instant) -> Lines {
        let mut lines = Lines::new();
        if self.window_end().is_none_or(|end| now >= end) {
            if !self.full {
                lines.extend(self.take_dropped());
            }
            self.window_start = Some(now);
            self.in_window = 0;
        }
        if self.full || self.in_window == SCRIPT_CONSOLE_LINES_PER_SECOND_MAX {
            self.dropped += 1;
            return lines;
        }
        truncate(&mut text, SCRIPT_CONSOLE_LINE_BYTES_MAX);
        self.in_window += 1;
        self.bytes += text.len();
        if self.bytes > SCRIPT_CONSOLE_BYTES_MAX {
            self.full = true;
            self.dropped += 1;
            lines.push((
                "warn",
                format!("… more than {} KiB were written: the rest of this run is dropped", SCRIPT_CONSOLE_BYTES_MAX / 1024),
            ));
        } else {
            lines.push((level, text));
        }
        lines
    }

    /// When `handle_tick` has something to say.
    pub fn poll_deadline(&self) -> Option<Instant> {
        if self.dropped > 0 && !self.full { self.window_end() } else { None }
    }

    pub fn handle_tick(&mut self, now: Instant) -> Lines {
        if self.poll_deadline().is_some_and(|at| now >= at) { self.take_dropped() } else { Lines::new() }
    }

    /// The run is over; the next one starts afresh.
    pub fn finish(&mut self) -> Lines {
        let last = self.take_dropped();
        *self = Console::default();
        last
    }

    fn window_end(&self) -> Option<Instant> {
        self.window_start.map(|start| start + WINDOW)
    }

    fn take_dropped(&mut self) -> Lines {
        match std::mem::take(&mut self.dropped) {
            0 => Lines::new(),
            1 => vec![("warn", "… 1 line dropped".to_owned())],
            n => vec![("warn", format!("… {} lines dropped", thousands(n)))],
        }
    }
}

/// Cuts to `bytes_max` at most and marks the cut.
pub fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// 9800 as people write it: 9,800.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_its_first_lines_and_a_count() {
        let (mut console, start) = (Console::default(), Instant::now());
        let shown: usize = (0..10_000).map(|i| console.handle_line("log", format!("line {i}"), start).len()).sum();
        assert_eq!(shown, SCRIPT_CONSOLE_LINES_PER_SECOND_MAX);
        assert_eq!(console.handle_tick(start + WINDOW / 2), Lines::new());
        assert_eq!(console.poll_deadline(), Some(start + WINDOW));
        assert_eq!(console.handle_tick(start + WINDOW), [("warn", "… 9,800 lines dropped".to_owned())]);
        assert_eq!(console.handle_line("log", "again".into(), start + WINDOW), [("log", "again".to_owned())]);
        assert_eq!(console.finish(), Lines::new());
    }

    #[test]
    fn a_run_has_a_bound_in_bytes_and_a_line_too() {
        let (mut console, mut now) = (Console::default(), Instant::now());
        let mut bytes = 0;
        for _ in 0..1000 {
            now += WINDOW;
            for (level, text) in console.handle_line("log", "ü".repeat(SCRIPT_CONSOLE_LINE_BYTES_MAX), now) {
                bytes += if level == "log" { text.len() } else { 0 };
            }
        }
        assert!(bytes <= SCRIPT_CONSOLE_BYTES_MAX && bytes > SCRIPT_CONSOLE_BYTES_MAX / 2, "{bytes}");
        assert!(console.finish()[0].1.ends_with("lines dropped"));
        assert_eq!(console.handle_line("log", "next run".into(), now).len(), 1);
    }
}
