//! Lines for people, on stderr: `2026-08-01T10:00:00.123Z INFO  agent::daemon: text`.
//!
//! Outsiders can make a node say a lot, so lines are bounded in length and rate, and the file they go to
//! (an instance's `discod.log`) in size. Control characters are shown, not sent: a log line cannot forge another.

use crate::{drivers::wall_clock::wall_ms, model::limits};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    sync::{Mutex, OnceLock, PoisonError, RwLock},
    time::Instant,
};

/// Which lines are wanted: `info`, `debug`, `warn,agent::logic=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    default: LevelFilter,
    /// Longest target first.
    targets: Vec<(String, LevelFilter)>,
}

/// What a filter may say, for error messages and help.
pub const FILTER_ALLOWED: &str = "off, error, warn, info, debug or trace, then any number of `,target=level`";

impl Filter {
    /// `None` if it is not written as [`FILTER_ALLOWED`] says.
    pub fn parse(text: &str) -> Option<Filter> {
        let mut filter = Filter { default: LevelFilter::Info, targets: Vec::new() };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => filter.default = part.parse().ok()?,
                Some((target, level)) if !target.is_empty() => filter.targets.push((target.to_owned(), level.parse().ok()?)),
                Some(_) => return None,
            }
        }
        filter.targets.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Some(filter)
    }

    fn level_of(&self, target: &str) -> LevelFilter {
        let under = |prefix: &str| target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        self.targets.iter().find(|(prefix, _)| under(prefix)).map_or(self.default, |(_, level)| *level)
    }

    fn most(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).fold(self.default, std::cmp::max)
    }
}

impl Default for Filter {
    fn default() -> Filter {
        Filter { default: LevelFilter::Info, targets: Vec::new() }
    }
}

/// Sends the process's log to stderr from here on. A second call changes nothing.
pub fn start(filter: Filter) {
    let most = filter.most();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let flows = Flows {
        own: Flow::new(limits::LOG_LINES_BURST, limits::LOG_LINES_PER_SECOND),
        script: Flow::new(limits::SCRIPT_LOG_LINES_BURST, limits::SCRIPT_LOG_LINES_PER_SECOND),
    };
    let fresh = Logger { filter: RwLock::new(filter), colour, flows: Mutex::new(flows), since: Instant::now() };
    let logger = LOGGER.get_or_init(|| fresh);
    if log::set_logger(logger).is_ok() {
        log::set_max_level(most);
    }
}

/// Changes what is logged from here on; nothing before `start`.
pub fn set_filter(filter: Filter) {
    let Some(logger) = LOGGER.get() else { return };
    log::set_max_level(filter.most());
    *logger.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
}

/// Target of what cluster.js says, for the filter (`log = "script=warn"`) and for its own bounds.
pub const SCRIPT: &str = "script";

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    filter: RwLock<Filter>,
    colour: bool,
    flows: Mutex<Flows>,
    since: Instant,
}

/// A script that says too much must not keep the daemon from saying what matters.
struct Flows {
    own: Flow,
    script: Flow,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= self.filter.read().unwrap_or_else(PoisonError::into_inner).level_of(metadata.target())
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // A panic between two lines leaves nothing half done.
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let flow = if record.target() == SCRIPT { &mut flows.script } else { &mut flows.own };
        let Some(swallowed) = flow.admit(Instant::now().duration_since(self.since).as_millis() as u64) else { return };
        let wall_ms = wall_ms();
        let mut lines = String::new();
        if swallowed > 0 {
            line(&mut lines, wall_ms, Level::Warn, record.target(), &format!("{swallowed} lines swallowed: too many at once"), self.colour);
        }
        line(&mut lines, wall_ms, record.level(), record.target(), &record.args().to_string(), self.colour);
        // One write a line: with O_APPEND two processes do not tear each other's. Nobody is left to tell if it fails.
        let _ = io::stderr().write_all(lines.as_bytes());
        if flow.is_time_to_look() {
            let _ = shorten_log();
        }
    }

    fn flush(&self) {}
}

/// Appends one line; see the top for its form.
fn line(out: &mut String, wall_ms: u64, level: Level, target: &str, text: &str, colour: bool) {
    let (on, off) = match level {
        Level::Error if colour => ("\x1b[31m", "\x1b[0m"),
        Level::Warn if colour => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    let _ = write!(out, "{} {on}{level:<5}{off} {target}: ", Stamp(wall_ms));
    let shown = text.char_indices().take_while(|(at, _)| *at < limits::LOG_LINE_BYTES_MAX);
    for (_, c) in shown {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    if text.len() > limits::LOG_LINE_BYTES_MAX {
        out.push('…');
    }
    out.push('\n');
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
struct Stamp(u64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        // Days to civil date: Howard Hinnant, "chrono-compatible low-level date algorithms"; years begin in March.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// A bucket of lines that refills steadily.
struct Flow {
    burst: u64,
    per_second: u64,
    left: u64,
    refilled_ms: u64,
    swallowed: u64,
    written: u64,
}

impl Flow {
    fn new(burst: u64, per_second: u64) -> Flow {
        Flow { burst, per_second, left: burst, refilled_ms: 0, swallowed: 0, written: 0 }
    }

    /// Whether a line may go out now, and how many could not since the last.
    fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let gained = now_ms.saturating_sub(self.refilled_ms) * self.per_second / 1000;
        if gained > 0 {
            self.left = (self.left + gained).min(self.burst);
            self.refilled_ms = now_ms;
        }
        if self.left == 0 {
            self.swallowed += 1;
            return None;
        }
        self.left -= 1;
        self.written += 1;
        Some(std::mem::take(&mut self.swallowed))
    }

    fn is_time_to_look(&self) -> bool {
        self.written.is_multiple_of(256)
    }
}

/// If stderr is a file that grew too large, keeps its newest part. Only with O_APPEND: else the next write would land behind a hole.
fn shorten_log() -> io::Result<()> {
    let mut log = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let about = log.metadata()?;
    if !about.is_file() || about.len() <= limits::LOG_FILE_BYTES_MAX || !appends()? {
        return Ok(());
    }
    let mut reader = File::open("/proc/self/fd/2")?;
    reader.seek(SeekFrom::End(-((limits::LOG_FILE_BYTES_MAX / 8) as i64)))?;
    let mut newest = Vec::new();
    reader.take(limits::LOG_FILE_BYTES_MAX / 8).read_to_end(&mut newest)?;
    let line = newest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    log.set_len(0)?;
    log.write_all(&newest[line..])
}

/// Whether stderr was opened with O_APPEND (proc_pid_fdinfo(5): flags in octal).
fn appends() -> io::Result<bool> {
    let info = std::fs::read_to_string("/proc/self/fdinfo/2")?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    Ok(flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).is_some_and(|flags| flags & 0o2000 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_says_which_lines_of_which_target() {
        let filter = Filter::parse("warn, agent::logic=debug,agent=info").expect("well formed");
        let cases = [("hyper", "WARN"), ("agent", "INFO"), ("agent::daemon", "INFO"), ("agent::logic::raft", "DEBUG"), ("agentx", "WARN")];
        for (target, level) in cases {
            assert_eq!(filter.level_of(target).as_str(), level, "{target}");
        }
        assert_eq!(filter.most(), LevelFilter::Debug);
        assert_eq!(Filter::parse("info"), Some(Filter::default()));
        for bad in ["", "loud", "agent=", "=debug", "info,,debug"] {
            assert_eq!(Filter::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_line_is_dated_bounded_and_cannot_forge_another() {
        let of = |ms, text: &str| {
            let mut out = String::new();
            line(&mut out, ms, Level::Info, "agent::x", text, false);
            out
        };
        assert_eq!(of(0, "a\nb\x1b[0m"), "1970-01-01T00:00:00.000Z INFO  agent::x: a\\nb\\u{1b}[0m\n");
        assert!(of(1_709_210_096_789, "").starts_with("2024-02-29T12:34:56.789Z "));
        assert!(of(4_102_444_799_999, "").starts_with("2099-12-31T23:59:59.999Z "));
        assert!(of(0, &"ä".repeat(100_000)).len() < limits::LOG_LINE_BYTES_MAX + 100);
    }

    #[test]
    fn too_many_lines_are_swallowed_and_counted() {
        let mut flow = Flow::new(limits::LOG_LINES_BURST, limits::LOG_LINES_PER_SECOND);
        for _ in 0..limits::LOG_LINES_BURST {
            assert_eq!(flow.admit(0), Some(0));
        }
        for _ in 0..10 {
            assert_eq!(flow.admit(1), None);
        }
        assert_eq!(flow.admit(1000), Some(10), "after a second there is room, and the gap is told");
        assert_eq!(flow.admit(1000), Some(0));
    }
}
