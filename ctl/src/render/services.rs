//! Services and their tasks, for people.

use super::{Paint, plain, short, table::Table};
use proto::v1;
use std::fmt::Write as _;

/// Addresses of one service shown in a table; `service inspect` shows all.
const ADDRESSES_SHOWN: usize = 3;

/// Services shown where there is more to show; `service ls` shows all.
const SCREEN_MAX: usize = 12;

/// Services for the one screen: what needs a look first, the rest counted.
pub fn screen(services: &[v1::Service], nodes: &[v1::Node], paint: Paint) -> String {
    let well = |s: &v1::Service| s.roll == "done" && s.running == s.desired && s.unplaced.is_empty();
    let mut ordered: Vec<v1::Service> = services.to_vec();
    if ordered.len() > SCREEN_MAX {
        ordered.sort_by_key(well);
        ordered.truncate(SCREEN_MAX);
    }
    let mut text = table(&ordered, nodes, paint);
    if services.len() > SCREEN_MAX {
        let _ = writeln!(text, "{}", paint.dim(&format!("and {} more: `disco service ls`", services.len() - SCREEN_MAX)));
    }
    text
}

/// Services, a line each.
pub fn table(services: &[v1::Service], nodes: &[v1::Node], paint: Paint) -> String {
    let mut table = Table::new(&["SERVICE", "RUNNING", "VERSION", "ADDRESSES", "NOTE"]);
    for service in services {
        let running = format!("{}/{}", service.running, service.desired);
        table.row(&[&service.name, &running, &service.version.to_string(), &addresses(service, nodes), &note(service)]);
    }
    let colour = |column: usize, cell: &str| match (column, cell.split_once('/')) {
        (1, Some((running, desired))) if running == desired => paint.green(cell),
        (1, _) => paint.yellow(cell),
        _ => cell.to_owned(),
    };
    table.render(|h| paint.dim(h), colour)
}

/// Where it can be reached: its first port on each node it runs on.
fn addresses(service: &v1::Service, nodes: &[v1::Node]) -> String {
    let first = |task: &v1::Task| task.ports.iter().min_by_key(|(declared, _)| **declared).map(|(_, port)| *port);
    let mut all: Vec<String> = service
        .tasks
        .iter()
        .filter(|t| t.wanted && t.state == "running" && nodes.iter().all(|n| n.id != t.node || n.state != "lost"))
        .filter_map(|task| Some(format!("{}:{}", task.address, first(task)?)))
        .collect();
    all.sort();
    let more = all.len().saturating_sub(ADDRESSES_SHOWN);
    all.truncate(ADDRESSES_SHOWN);
    if more > 0 {
        all.push(format!("+{more}"));
    }
    all.join(" ")
}

/// What is not as usual, shortest first.
fn note(service: &v1::Service) -> String {
    let mut notes = Vec::new();
    if service.scaled_by_hand {
        notes.push("scaled by hand".to_owned());
    }
    match service.roll.as_str() {
        "going" => notes.push("rolling".to_owned()),
        "stopped" => notes.push(format!("update stopped: {}", service.roll_problem)),
        _ => {}
    }
    // Those count as fine and not as running.
    let ended = service.tasks.iter().filter(|t| t.wanted && t.state == "exited").count();
    if ended > 0 {
        notes.push(format!("{ended} ended well"));
    }
    notes.extend(service.unplaced.first().cloned());
    notes.join("; ")
}

/// One service, a field a line, then its tasks.
pub fn detail(service: &v1::Service, nodes: &[v1::Node], paint: Paint) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        let _ = writeln!(text, "{} {value}", paint.dim(&format!("{name:9}")));
    };
    field("name", plain(&service.name));
    field("command", plain(&service.command.join(" ")));
    let by_hand = if service.scaled_by_hand { " (scaled by hand)" } else { "" };
    field("running", format!("{} of {}{by_hand}", service.running, service.desired));
    field("version", service.version.to_string());
    let problem = if service.roll_problem.is_empty() { String::new() } else { format!(": {}", plain(&service.roll_problem)) };
    field("update", format!("{}{problem}", plain(&service.roll)));
    for why in &service.unplaced {
        field("unplaced", plain(why));
    }
    if !service.tasks.is_empty() {
        text.push('\n');
        text.push_str(&tasks(&service.tasks, nodes, paint));
    }
    text
}

fn tasks(tasks: &[v1::Task], nodes: &[v1::Node], paint: Paint) -> String {
    let mut table = Table::new(&["TASK", "NODE", "STATE", "VERSION", "PID", "PORTS", "RESTARTS", "NOTE"]);
    for task in tasks {
        let number = |n: u32| if n == 0 { "-".to_owned() } else { n.to_string() };
        let (version, pid) = (task.version.to_string(), number(task.pid));
        table.row(&[
            &task.id,
            name_of(&task.node, nodes),
            &task.state,
            &version,
            &pid,
            &ports(task),
            &task.restarts.to_string(),
            &trouble(task),
        ]);
    }
    table.render(|h| paint.dim(h), |column, cell| if column == 2 { paint.state(cell) } else { cell.to_owned() })
}

/// Ids of tasks on a node that have not ended.
pub fn tasks_on(status: &v1::Status, node: &str) -> Vec<String> {
    let tasks = status.services.iter().flat_map(|s| &s.tasks);
    tasks.filter(|t| t.node == node && !matches!(t.state.as_str(), "exited" | "failed")).map(|t| t.id.clone()).collect()
}

/// A node's name, or enough of its id.
pub fn name_of<'a>(id: &'a str, nodes: &'a [v1::Node]) -> &'a str {
    nodes.iter().find(|n| n.id == id).map_or(short(id), |n| n.name.as_str())
}

/// `80=127.80.3.1:41233`
fn ports(task: &v1::Task) -> String {
    let mut all: Vec<_> = task.ports.iter().collect();
    all.sort();
    all.into_iter().map(|(declared, port)| format!("{declared}={}:{port}", task.address)).collect::<Vec<_>>().join(" ")
}

fn trouble(task: &v1::Task) -> String {
    let exit = match (task.exit_code, task.exit_signal) {
        (Some(code), _) => format!("exit {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => String::new(),
    };
    let leaving = if task.wanted { "" } else { "not wanted any more" };
    [task.last_error.as_str(), if task.last_error.is_empty() { &exit } else { "" }, leaving]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    fn service() -> v1::Service {
        let mut service = samples::service("web", 2, "stopped", &[("running", 1, true), ("failed", 2, true), ("stopping", 1, false)]);
        service.roll_problem = "task web.2 on n1 did not stay up".into();
        service.unplaced = vec!["no node has 512 MiB free (most is 384 MiB, on n1)".into()];
        service.scaled_by_hand = true;
        service.tasks[1].exit_code = Some(3);
        service.tasks[1].pid = 0;
        service
    }

    #[test]
    fn a_service_is_a_line_with_where_it_answers_and_what_is_wrong() {
        let expected = "\
SERVICE  RUNNING  VERSION  ADDRESSES         NOTE
web      1/2      2        127.80.3.1:41001  scaled by hand; update stopped: task web.2 on n1 did not stay up; no node has 512 MiB free (most is 384 MiB, on n1)
";
        assert_eq!(table(&[service()], &samples::status().nodes, Paint::off()), expected);
        let many: Vec<_> = std::iter::repeat_n(("running", 2, true), 5).collect();
        let service = samples::service("web", 5, "done", &many);
        assert!(table(&[service], &[], Paint::off()).contains("127.80.3.1:41001 127.80.3.1:41002 127.80.3.1:41003 +2\n"));
    }

    #[test]
    fn one_screen_shows_what_needs_a_look_and_counts_the_rest() {
        let mut services: Vec<_> = (0..20).map(|n| samples::service(&format!("s{n}"), 1, "done", &[("running", 2, true)])).collect();
        services[17].roll = "going".into();
        let text = screen(&services, &[], Paint::off());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[13]), (14, "and 8 more: `disco service ls`"));
        assert!(lines[1].starts_with("s17 ") && lines[2].starts_with("s0 "), "{text}");
    }

    #[test]
    fn a_service_is_shown_field_by_field_with_each_task() {
        let expected = "\
name      web
command   serve --port 80
running   1 of 2 (scaled by hand)
version   2
update    stopped: task web.2 on n1 did not stay up
unplaced  no node has 512 MiB free (most is 384 MiB, on n1)

TASK   NODE  STATE     VERSION  PID   PORTS                RESTARTS  NOTE
web.1  n1    running   1        4001  80=127.80.3.1:41001  0
web.2  n1    failed    2        -     80=127.80.3.1:41002  0         exit 3
web.3  n1    stopping  1        4003  80=127.80.3.1:41003  0         not wanted any more
";
        assert_eq!(detail(&service(), &samples::status().nodes, Paint::off()), expected);
    }
}
