//! The examples of docs/scripting.md, applied one after the other to a real node.

use crate::common::{Project, text, wait_until};
use std::{fs, time::Duration};

const PAGE: &str = include_str!("../../../docs/scripting.md");
const INIT: &str = "export async function init() {\n  return new Cluster({ name: \"example\", provider: await LocalProvider.init({ name: \"local\" }) });\n}\n";

/// File name and text of each `js` block; those without a name are a cluster.js.
fn examples() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in PAGE.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(what)) => {
                let (language, name) = what.split_once(' ').unwrap_or((what, "cluster.js"));
                open = Some((if language == "js" { name.into() } else { String::new() }, String::new()));
            }
            (Some(_), Some(_)) => found.extend(open.take().filter(|(name, _)| !name.is_empty())),
            (Some((_, text)), None) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    found
}

#[test]
fn every_example_of_the_page_works() {
    let examples = examples();
    assert!(examples.len() >= 8, "the page has examples: {}", examples.len());
    let project = Project::new();
    project.write("cluster.js", INIT);
    let client = examples.iter().find(|(name, _)| name == "client.js").expect("one for client.js");
    project.write(&client.0, &client.1);
    project.ok(&["bootstrap", "--yes"]);
    for (name, source) in &examples {
        if name != "cluster.js" {
            project.write(name, source);
            continue;
        }
        let init = if source.contains("function init") { "" } else { INIT };
        project.write(name, &format!("{init}{source}"));
        let planned = project.disco(&["plan"]);
        assert!(matches!(planned.status.code(), Some(0 | 2)), "{source}\n{}", text(&planned.stderr));
        project.ok(&["apply", "--yes"]);
        let calm = || project.status().is_some_and(|s| s["script"]["error"].is_null() && s["script"]["applied"] == s["script"]["version"]);
        assert!(calm(), "{source}\n{}", project.tell());
        if source.contains("key(\"queue\").on") {
            project.ok(&["kv", "set", "queue", "500"]);
            let log = project.instances()[0].join("discod.log");
            let said = || fs::read_to_string(&log).is_ok_and(|log| log.contains("the queue is 500"));
            wait_until(Duration::from_secs(10), "the change to be told", said, || project.tell());
        }
        assert!(!project.ok(&["events"]).contains("script.failed"), "{source}\n{}", project.tell());
    }
    let value = project.ok(&["eval", "cluster.nodes().then(nodes => nodes.length)"]);
    assert_eq!(value.trim(), "1");
    project.ok(&["destroy", "--yes"]);
}
