//! An apply in the middle of which something dies: the end is the same.

mod common;

use common::{Chance, Project, kill, rounds, text, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Three copies that say this word; a change of it replaces them all.
fn declare(project: &Project, word: &str) {
    project.write(
        "cluster.js",
        &format!(
            "export async function init() {{ return new Cluster({{ name: 'example', provider: await LocalProvider.init({{ name: 'local' }}) }}) }}
            export function configure(cluster) {{
              cluster.service('say', {{ command: ['sh', '-c', 'echo {word}; exec sleep 1000000'], replicas: 3, health: {{ grace: '300ms' }} }});
            }}"
        ),
    );
}

/// Whether exactly three tasks run, all of them of the service's newest version, and that one says `word`.
fn all_say(project: &Project, word: &str) -> bool {
    let Some(status) = project.status() else { return false };
    let service = &status["services"][0];
    let Some(tasks) = service["tasks"].as_array() else { return false };
    let here = |t: &Value| t["wanted"] == true && t["state"] == "running" && t["version"] == service["version"];
    let says = service["command"][2].as_str().is_some_and(|command| command.contains(word));
    says && service["roll"] == "done" && tasks.len() == 3 && tasks.iter().all(here)
}

#[test]
fn an_apply_whose_leader_dies_ends_as_if_nothing_had_been() {
    let mut chance = Chance::new();
    let project = Project::new();
    declare(&project, "word0");
    project.ok(&["bootstrap", "--yes"]);
    for round in 1..=rounds(3) {
        let word = format!("word{round}");
        declare(&project, &word);
        let leader = project.leader_instance().expect("a leader");
        let pid = project.pid(&leader).expect("it runs");
        let moment = Duration::from_millis(chance.below(2_500));
        let apply = project.command(&["apply", "--yes"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let began = Instant::now();
        wait_until(SOON, "its moment", || began.elapsed() >= moment, String::new);
        kill(pid);
        let output = apply.expect("it starts").wait_with_output().expect("it ends");
        let words = text(&output.stderr);
        assert!(output.status.success(), "round {round}, killed after {moment:?}: {words}\n{}", project.tell());
        assert!(all_say(&project, &word), "round {round}, killed after {moment:?}: {words}\n{}", project.tell());
        wait_until(SOON, "three managers again", || project.ready_managers() == 3, || project.tell());
        println!("round {round}: leader killed after {moment:?}, applied after {:.2?}", began.elapsed());
    }
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn an_apply_that_nobody_waits_for_is_carried_out_all_the_same() {
    let project = Project::new();
    declare(&project, "one");
    project.ok(&["bootstrap", "--yes"]);
    declare(&project, "two");
    let mut apply = project.spawn(&["apply", "--yes"]);
    let version = |project: &Project| project.status().map(|s| s["script"]["applied"].as_u64().unwrap_or(0)).unwrap_or(0);
    let before = version(&project);
    wait_until(SOON, "the modules to be in force", || version(&project) > before, || project.tell());
    let _ = apply.kill();
    let _ = apply.wait();
    wait_until(SOON, "the roll to end", || all_say(&project, "two"), || project.tell());

    declare(&project, "three");
    project.ok(&["apply", "--yes", "--no-wait"]);
    wait_until(SOON, "the roll to end", || all_say(&project, "three"), || project.tell());
    project.ok(&["destroy", "--yes"]);
}
