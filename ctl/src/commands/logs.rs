//! `disco logs SERVICE`: what its tasks print, of all nodes, by time.
//!
//! Whoever follows wants to go on when a node goes away: the one that answers, or one whose lines it merges. Somebody is
//! asked for the last moments again, and each task's lines up to where we were, which their place in the log tells, are
//! passed over.

use super::{Desk, service};
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use crate::render::{Paint, json, services::name_of};
use proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

const CANNOT: &str = "cannot show the logs";
/// Asked for again after a lost connection: nodes' clocks differ, and a slow node's lines come late.
const AGAIN_MS: u64 = 30_000;
const PAUSE: Duration = Duration::from_millis(500);
/// A node that could not be read is tried again this often.
const PAUSE_MISSING: Duration = Duration::from_secs(2);

/// `since_ms`: how long ago.
pub fn question(service: String, task: Option<String>, follow: bool, since_ms: Option<u64>, tail: Option<u32>) -> v1::LogsRequest {
    v1::LogsRequest {
        service,
        task: task.unwrap_or_default(),
        follow,
        since_ms: since_ms.map_or(0, |ago| now_ms().saturating_sub(ago)),
        tail: tail.unwrap_or(0),
    }
}

pub async fn run(mut desk: Desk, mut request: v1::LogsRequest) -> Result<Exit, Failure> {
    let status = desk.client.status(false).await.map_err(|e| e.failure(CANNOT))?;
    let is_known = check(&status, &request)?;
    // What the cluster has forgotten prints nothing any more.
    request.follow &= is_known;
    desk.remember(&status).await;
    let mut printer = Printer { nodes: status.nodes, seen: Seen::default(), missing: BTreeSet::new(), width: 0 };
    let mut ask = request.clone();
    loop {
        match print_all(&mut desk, &ask, &mut printer).await {
            Ok(()) if !request.follow && !is_known && printer.seen.ends.is_empty() => return Err(nothing_left(&request)),
            Ok(()) if !request.follow => return Ok(if printer.missing.is_empty() { Exit::Done } else { Exit::No }),
            Err(End::Failure(failure)) => return Err(failure),
            Err(End::Lost(why)) if !request.follow => return Err(Failure::no("the logs ended early").because(why)),
            Err(End::NodeMissing) => {
                async_io::Timer::after(PAUSE_MISSING).await;
            }
            other => {
                if let Err(End::Lost(why)) = other {
                    desk.out.say(format!("{why}; still trying"));
                }
                desk.client.turn_away();
                async_io::Timer::after(PAUSE).await;
            }
        }
        ask = printer.seen.ask_again(&request);
        if let Ok(status) = desk.client.status(false).await {
            printer.nodes = status.nodes;
        }
    }
}

/// Whether the cluster knows what is asked for: a forgotten task's log is kept for a while, so what it does not know may be there.
///
/// # Errors
/// There is no such service, or the task is none of it by its form.
fn check(status: &v1::Status, request: &v1::LogsRequest) -> Result<bool, Failure> {
    let service = service::find(&status.services, &request.service)?;
    let wanted = &request.task;
    let number = wanted.strip_prefix(&format!("{}.", service.name)).unwrap_or(wanted);
    if wanted.is_empty() {
        return Ok(true);
    }
    if number.parse::<u64>().is_ok() {
        let id = format!("{}.{number}", service.name);
        return Ok(service.tasks.iter().any(|task| task.id == id));
    }
    let ids: Vec<&str> = service.tasks.iter().map(|t| t.id.as_str()).collect();
    Err(Failure::no(format!("`{wanted}` is no task of service `{}`", service.name)).hint(format!("its tasks are: {}", ids.join(", "))))
}

fn nothing_left(request: &v1::LogsRequest) -> Failure {
    let why = "the cluster does not know it (any more), and no node that answered holds lines of it from that time";
    Failure::no(format!("there is no log of task `{}` of service `{}`", request.task, request.service)).because(why)
}

enum End {
    /// The node that answers went away.
    Lost(String),
    /// One of those whose lines it merges did.
    NodeMissing,
    Failure(Failure),
}

async fn print_all(desk: &mut Desk, request: &v1::LogsRequest, printer: &mut Printer) -> Result<(), End> {
    let opened = desk.client.logs(request).await;
    let mut lines = opened.map_err(|e| if e.is_unanswered() { End::Lost(e.to_string()) } else { End::Failure(e.failure(CANNOT)) })?;
    loop {
        match lines.message().await {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => {
                // What is no task's line is the cluster's word about a node that it cannot read.
                if line.task.is_empty() {
                    printer.complain(desk, &line);
                    if request.follow {
                        return Err(End::NodeMissing);
                    }
                } else if printer.seen.is_new(&line) {
                    printer.missing.remove(&line.node);
                    printer.print(desk, &line).map_err(End::Failure)?;
                }
            }
            Err(status) => return Err(End::Lost(status.message().to_owned())),
        }
    }
}

struct Printer {
    nodes: Vec<v1::Node>,
    seen: Seen,
    /// Nodes of which it was said that they cannot be read.
    missing: BTreeSet<String>,
    /// Of the widest prefix so far.
    width: usize,
}

impl Printer {
    /// Says once that a node cannot be read.
    fn complain(&mut self, desk: &Desk, line: &v1::LogLine) {
        if self.missing.insert(line.node.clone()) {
            let text = String::from_utf8_lossy(&line.text);
            desk.out.say(format!("warning: {}", crate::render::plain(text.strip_prefix("disco: ").unwrap_or(&text))));
        }
    }

    fn print(&mut self, desk: &Desk, line: &v1::LogLine) -> Result<(), Failure> {
        if desk.out.json {
            return desk.out.line(&json::log_line(line));
        }
        let prefix = prefix(line, &self.nodes);
        self.width = self.width.max(prefix.chars().count());
        let mut bytes = painted(desk.out.paint, line, &format!("{prefix:width$}", width = self.width)).into_bytes();
        bytes.extend_from_slice(b" | ");
        bytes.extend(if std::io::stdout().is_terminal() { for_terminal(&line.text) } else { line.text.clone() });
        bytes.push(b'\n');
        desk.out.data(bytes)
    }
}

/// `web.3@n2`
fn prefix(line: &v1::LogLine, nodes: &[v1::Node]) -> String {
    let node = crate::render::plain(name_of(&line.node, nodes));
    format!("{}@{node}", crate::render::plain(&line.task))
}

/// Each task in a colour of its own, as far as there are colours.
fn painted(paint: Paint, line: &v1::LogLine, text: &str) -> String {
    let number = line.task.rsplit_once('.').and_then(|(_, number)| number.parse::<usize>().ok());
    paint.one_of(number.unwrap_or(0), text)
}

/// A log must not move the cursor or worse: control characters become `?`, tabs stay.
fn for_terminal(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.trim_end_matches('\r').chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect::<String>().into_bytes()
}

/// How far each task's lines were printed.
#[derive(Default)]
struct Seen {
    ends: BTreeMap<String, u64>,
    /// Up to where lines come a second time.
    again: BTreeMap<String, u64>,
    newest_ms: u64,
}

impl Seen {
    fn is_new(&mut self, line: &v1::LogLine) -> bool {
        if self.again.get(&line.task).is_some_and(|known| line.end <= *known) {
            return false;
        }
        self.again.remove(&line.task);
        self.ends.insert(line.task.clone(), line.end);
        self.newest_ms = self.newest_ms.max(line.at_ms);
        true
    }

    /// The question after a lost connection.
    fn ask_again(&mut self, request: &v1::LogsRequest) -> v1::LogsRequest {
        self.again = self.ends.clone();
        if self.newest_ms == 0 {
            return request.clone();
        }
        v1::LogsRequest { since_ms: self.newest_ms.saturating_sub(AGAIN_MS).max(request.since_ms), tail: 0, ..request.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    fn line(task: &str, end: u64) -> v1::LogLine {
        v1::LogLine { at_ms: 50_000 + end, task: task.into(), node: format!("{:016x}", 1), text: b"hello".into(), end }
    }

    #[test]
    fn lines_that_come_again_after_a_lost_connection_are_passed_over() {
        let mut seen = Seen::default();
        let request = question("web".into(), None, true, None, Some(10));
        assert_eq!(seen.ask_again(&request), request, "nothing was printed yet");
        assert!([("web.1", 6), ("web.2", 6), ("web.1", 12)].iter().all(|(task, end)| seen.is_new(&line(task, *end))));
        let again = seen.ask_again(&request);
        assert_eq!((again.since_ms, again.tail, again.follow), (20_012, 0, true));
        let came = [("web.1", 6), ("web.2", 6), ("web.3", 6), ("web.1", 12), ("web.1", 18), ("web.2", 12)];
        let new: Vec<_> = came.into_iter().filter(|(task, end)| seen.is_new(&line(task, *end))).collect();
        assert_eq!(new, [("web.3", 6), ("web.1", 18), ("web.2", 12)]);
        assert!(seen.is_new(&line("web.1", 6)), "a log that was emptied begins anew");
    }

    #[test]
    fn a_line_says_which_task_on_which_node() {
        let nodes = samples::status().nodes;
        assert_eq!(prefix(&line("web.3", 1), &nodes), "web.3@n1");
        assert_eq!(prefix(&v1::LogLine { node: "00ab000000000007".into(), ..line("web.3", 1) }, &nodes), "web.3@00ab0000");
        assert_eq!(for_terminal(b"a\tb\x1b[2J\xff\r"), "a\tb?[2J\u{fffd}".as_bytes());
    }

    #[test]
    fn a_task_that_cannot_be_one_of_the_service_is_refused_with_those_that_are() {
        let mut status = samples::status();
        status.services = vec![samples::service("web", 1, "done", &[("running", 2, true)])];
        let ask = |task: &str| question("web".into(), Some(task.into()), false, None, None);
        for (task, is_known) in [("web.1", true), ("1", true), ("web.77", false), ("", true)] {
            assert_eq!(check(&status, &ask(task)), Ok(is_known), "{task}");
        }
        let failure = check(&status, &ask("api.1")).expect_err("it is another's");
        assert_eq!(failure, Failure::no("`api.1` is no task of service `web`").hint("its tasks are: web.1"));
    }
}
