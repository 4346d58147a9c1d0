//! The cluster on one screen.

use super::{Paint, age, plain, services, short, size, table::Table};
use proto::v1;
use std::fmt::Write as _;

/// Events shown on the screen; `disco events` has more.
const EVENTS_SHOWN: usize = 8;

pub fn screen(status: &v1::Status, now_ms: u64, paint: Paint) -> String {
    let mut text = headline(status, paint);
    text.push('\n');
    text.push_str(&nodes(status, now_ms, paint));
    if !status.services.is_empty() {
        text.push('\n');
        text.push_str(&services::screen(&status.services, &status.nodes, paint));
    }
    if !status.instances.is_empty() {
        text.push('\n');
        text.push_str(&instances(&status.instances, &status.nodes, paint));
    }
    if !status.problems.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("problems"));
        for problem in &status.problems {
            let _ = writeln!(text, "  {}", paint.yellow(&plain(problem)));
        }
    }
    if !status.events.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("last events"));
        for event in status.events.iter().rev().take(EVENTS_SHOWN).rev() {
            let _ = writeln!(text, "  {}", event_line(event, now_ms, paint));
        }
    }
    text
}

/// `cluster lab: leader n1, 1 of 3 nodes ready, 3 managers`
fn headline(status: &v1::Status, paint: Paint) -> String {
    let ready = status.nodes.iter().filter(|n| n.state == "ready").count();
    let managers = status.nodes.iter().filter(|n| n.role == "manager").count();
    // Nodes that joined by themselves may be more than anybody asked a provider for.
    let nodes = status.nodes.iter().filter(|n| n.state != "left").count().max(status.desired_nodes as usize);
    let counts = format!("{ready} of {nodes} nodes ready");
    let counts = if ready == nodes { paint.green(&counts) } else { paint.yellow(&counts) };
    let leader = match status.leader.as_deref().map(|id| status.nodes.iter().find(|n| n.id == id).map_or(short(id), |n| n.name.as_str())) {
        Some(name) => format!("leader {}", plain(name)),
        None => paint.red("no leader"),
    };
    let s = if managers == 1 { "" } else { "s" };
    format!(
        "cluster {} {}: {leader}, {counts}, {managers} manager{s}\n",
        paint.bold(&plain(&status.cluster)),
        paint.dim(short(&status.cluster_id))
    )
}

pub fn nodes(status: &v1::Status, now_ms: u64, paint: Paint) -> String {
    let mut table = Table::new(&["NODE", "ID", "ADDRESS", "ROLE", "STATE", "SINCE", "TASKS", ""]);
    let mut sorted: Vec<_> = status.nodes.iter().collect();
    sorted.sort_by_key(|n| (&n.name, &n.id));
    for node in sorted {
        let note = match node.state.as_str() {
            "ready" if node.leader => "leader",
            "ready" => "",
            _ => node.reason.as_str(),
        };
        table.row(&[
            &node.name,
            short(&node.id),
            &node.address,
            &node.role,
            &node.state,
            &age(now_ms, since(node)),
            &services::tasks_on(status, &node.id).len().to_string(),
            note,
        ]);
    }
    table.render(|h| paint.dim(h), |column, cell| if column == 4 { paint.state(cell) } else { cell.to_owned() })
}

/// A node of a build that does not say so yet tells when it joined.
fn since(node: &v1::Node) -> u64 {
    if node.since_ms == 0 { node.joined_ms } else { node.since_ms }
}

pub fn instances(instances: &[v1::Instance], nodes: &[v1::Node], paint: Paint) -> String {
    let mut table = Table::new(&["INSTANCE", "ADDRESS", "STATE", "WANTED", "NODE", "PROBLEM"]);
    for instance in instances {
        let node = nodes.iter().find(|n| n.id == instance.node).map_or(short(&instance.node), |n| n.name.as_str());
        let id = if instance.id.is_empty() { "-" } else { &instance.id };
        table.row(&[id, &instance.address, &instance.state, &instance.desired, node, &instance.problem]);
    }
    table.render(|h| paint.dim(h), |column, cell| if column == 2 { paint.state(cell) } else { cell.to_owned() })
}

/// `leader, 3 tasks`: what is lost with it for a moment.
pub fn standing(status: &v1::Status, node: &v1::Node) -> String {
    let tasks = status.services.iter().flat_map(|s| &s.tasks).filter(|t| t.wanted && t.node == node.id).count();
    let role = if node.leader { "leader" } else { node.role.as_str() };
    format!("{role}, {tasks} task{}", if tasks == 1 { "" } else { "s" })
}

/// One node, a field a line.
pub fn node(status: &v1::Status, node: &v1::Node, now_ms: u64, paint: Paint) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        let _ = writeln!(text, "{} {value}", paint.dim(&format!("{name:9}")));
    };
    field("name", plain(&node.name));
    field("id", plain(&node.id));
    field("address", plain(&node.address));
    field("role", node.role.clone() + if node.leader { ", leader" } else { "" });
    if !node.preference.is_empty() {
        field("wanted", format!("{}, by hand", plain(&node.preference)));
    }
    field("state", format!("{}, for {}", paint.state(&plain(&node.state)), age(now_ms, since(node))));
    if !node.reason.is_empty() {
        field("reason", plain(&node.reason));
    }
    field("joined", format!("{} ago", age(now_ms, node.joined_ms)));
    field("cpus", node.cpus.to_string());
    field("memory", size(node.memory));
    if let Some(instance) = &node.instance {
        field("instance", plain(instance));
    }
    field("tasks", plain(&services::tasks_on(status, &node.id).join(" ")));
    let mut labels: Vec<_> = node.labels.iter().map(|(k, v)| plain(&format!("{k}={v}"))).collect();
    labels.sort();
    if !labels.is_empty() {
        field("labels", labels.join(" "));
    }
    text
}

/// `12s ago  node.lost  n2  silent for 5 s`
pub fn event_line(event: &v1::Event, now_ms: u64, paint: Paint) -> String {
    let ago = format!("{:>8}", age(now_ms, event.at_ms) + " ago");
    let line = format!("{}  {:19}  {}  {}", paint.dim(&ago), plain(&event.name), plain(&event.subject), plain(&event.text));
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn one_screen_tells_who_leads_what_is_wrong_and_what_happened() {
        let expected = "\
cluster lab 00000000: leader n1, 1 of 3 nodes ready, 2 managers

NODE  ID        ADDRESS          ROLE     STATE  SINCE  TASKS
n1    00000000  127.80.3.1:5080  manager  ready  61s    2      leader
n2    00000000  127.80.3.2:5080  manager  lost   12s    0      silent for 5 s

SERVICE  RUNNING  VERSION  ADDRESSES                          NOTE
web      2/2      2        127.80.3.1:41001 127.80.3.1:41002

INSTANCE  ADDRESS     STATE    WANTED   NODE  PROBLEM
i-2       127.80.3.2  stopped  running  n2    no?[31m space

problems
  node n2 is lost: silent for 5 s

last events
   12s ago  node.lost            n2  silent for 5 s
";
        let web = samples::service("web", 2, "done", &[("running", 2, true), ("running", 2, true), ("exited", 1, false)]);
        let status = v1::Status { services: vec![web], ..samples::status() };
        assert_eq!(screen(&status, 62_000, Paint::off()), expected);
    }

    #[test]
    fn without_a_leader_it_says_so() {
        let status = v1::Status { leader: None, ..samples::status() };
        assert!(screen(&status, 0, Paint::off()).starts_with("cluster lab 00000000: no leader, 1 of 3"));
    }

    #[test]
    fn a_node_is_shown_field_by_field() {
        let web = samples::service("web", 2, "done", &[("running", 2, true), ("exited", 1, false), ("running", 2, true)]);
        let status = v1::Status { services: vec![web], ..samples::status() };
        let text = node(&status, &status.nodes[0], 3_000, Paint::off());
        assert!(
            text.contains("role      manager, leader\n")
                && text.contains("joined    2s ago\n")
                && text.contains("memory    1GiB\n")
                && text.contains("tasks     web.1 web.3\n"),
            "{text}"
        );
    }
}
