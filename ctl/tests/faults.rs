//! Real daemons, really killed: what the README promises after each.

mod common;

use common::{Chance, Project, Writing, is_running, kill, rounds, text, wait_until};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

/// Node ids and instances of a cluster of three, which must be exactly three.
fn identities(project: &Project) -> BTreeSet<(String, String)> {
    let status = project.status().expect("the cluster answers");
    let of = |n: &serde_json::Value| (n["id"].as_str().unwrap_or("").to_string(), n["instance"].as_str().unwrap_or("").to_string());
    status["nodes"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn a_bootstrap_killed_anywhere_and_run_again_ends_with_exactly_three() {
    let mut chance = Chance::new();
    for round in 0..rounds(2) {
        let project = Project::new();
        let moment = Duration::from_millis(chance.below(3_000));
        let mut bootstrap = project.spawn(&["bootstrap", "--yes"]);
        let began = Instant::now();
        wait_until(moment + Duration::from_secs(1), "its moment", || began.elapsed() >= moment, String::new);
        let _ = bootstrap.kill();
        let _ = bootstrap.wait();
        for (_, pid) in project.running() {
            if chance.below(2) == 0 {
                kill(pid);
            }
        }
        project.ok(&["bootstrap", "--yes"]);
        project.wait_for_managers(3, Duration::from_secs(20));
        assert_eq!(identities(&project).len(), 3, "round {round}, killed after {moment:?}");
        assert_eq!(project.instances().len(), 3, "round {round}, killed after {moment:?}: {:?}", project.instances());
        assert_eq!(project.running().len(), 3, "round {round}, killed after {moment:?}");
        project.ok(&["destroy", "--yes"]);
        assert!(project.running().is_empty() && !project.path().join(".disco").exists(), "destroy leaves nothing");
        println!("round {round}: killed after {moment:?}, three again");
    }
}

#[test]
fn a_killed_leader_loses_nothing_and_the_cluster_is_three_again() {
    let project = Arc::new(Project::new());
    project.ok(&["bootstrap", "--yes"]);
    let before = identities(&project);
    let writing = Writing::start(project.clone());
    for round in 0..rounds(3) {
        let leader = project.leader_instance().expect("a leader");
        let pid = project.pid(&leader).expect("it runs");
        kill(pid);
        wait_until(Duration::from_secs(2), "the process to be gone", || !is_running(pid), String::new);
        let took = project.wait_for_managers(3, Duration::from_secs(10));
        println!("round {round}: {leader} killed, three ready again after {took:.2?}");
    }
    let (acknowledged, longest) = writing.end();
    println!("{} writes acknowledged, longest gap {longest:.2?}", acknowledged.len());
    assert!(longest < Duration::from_secs(4), "writes resumed only after {longest:?}");
    project.has_all(&acknowledged);
    assert_eq!(identities(&project), before, "repaired, not replaced");
    assert_eq!(project.running().len(), 3);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn all_nodes_killed_at_once_come_back_with_the_same_state_and_identities() {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    for n in 0..20 {
        project.ok(&["kv", "set", &format!("k{n}"), &format!("v{n}")]);
    }
    let before = identities(&project);
    for (_, pid) in project.running() {
        kill(pid);
    }
    wait_until(Duration::from_secs(5), "all to be gone", || project.running().is_empty(), String::new);
    let said = project.disco(&["status"]);
    assert_eq!(said.status.code(), Some(1), "an unreachable cluster is an answer of no");
    project.ok(&["bootstrap", "--yes"]);
    project.wait_for_managers(3, Duration::from_secs(15));
    assert_eq!(identities(&project), before);
    for n in 0..20 {
        assert_eq!(project.ok(&["kv", "get", &format!("k{n}")]).trim_end(), format!("v{n}"));
    }
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_cluster_scales_to_one_and_back_and_replaces_what_is_terminated() {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    project.ok(&["kv", "set", "kept", "yes"]);
    project.ok(&["scale", "1"]);
    project.wait_for_managers(1, Duration::from_secs(20));
    wait_until(Duration::from_secs(10), "two instances to end", || project.running().len() == 1, String::new);
    assert_eq!(project.ok(&["kv", "get", "kept"]).trim_end(), "yes");
    project.ok(&["scale", "3"]);
    project.wait_for_managers(3, Duration::from_secs(20));

    let follower =
        project.running().into_iter().map(|(i, _)| i).find(|i| Some(i) != project.leader_instance().as_ref()).expect("a follower");
    project.ok(&["instance", "terminate", &follower, "--yes"]);
    wait_until(Duration::from_secs(20), "a replacement", || project.running().len() == 3 && project.pid(&follower).is_none(), String::new);
    project.wait_for_managers(3, Duration::from_secs(20));
    assert_eq!(project.ok(&["kv", "get", "kept"]).trim_end(), "yes");
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_lost_majority_is_named_and_the_cluster_goes_on_without_it_only_when_that_is_confirmed() {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    project.wait_for_managers(3, Duration::from_secs(20));
    project.ok(&["kv", "set", "k", "v"]);
    let no = |args: &[&str]| {
        let output = project.disco(args);
        assert_eq!(output.status.code(), Some(1), "disco {}: {}", args.join(" "), text(&output.stderr));
        text(&output.stderr)
    };
    assert!(no(&["recover"]).contains("nothing to recover from"));

    let lost: Vec<(String, u32)> = project.running().into_iter().filter(|(instance, _)| instance != "i-1").collect();
    lost.iter().for_each(|(_, pid)| kill(*pid));
    let refused = no(&["kv", "set", "unknown", "w"]);
    assert!(refused.contains("no majority of the 3 managers: waiting for "), "{refused}");
    let refused = no(&["recover"]);
    assert!(refused.contains("it ends at index"), "{refused}");
    assert!(refused.contains("nothing was changed"), "{refused}");
    assert!(no(&["recover", "--consent", "wrong"]).contains("nothing was changed"));
    let refused = no(&["status", "--watch"]);
    assert!(refused.contains("no majority of the 3 managers: waiting for "), "{refused}");
    let watch = project.command(&["status", "--watch", "--stale", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut watch = watch.expect("disco starts");
    let mut first = String::new();
    let heard = BufReader::new(watch.stdout.take().expect("it is piped")).read_line(&mut first);
    let _ = watch.kill();
    let _ = watch.wait();
    assert!(heard.is_ok() && first.contains("no majority of the 3 managers"), "{first}");

    for (instance, _) in &lost {
        // A machine that is gone took its tasks with it.
        let folder = project.path().join(".disco/instances").join(instance);
        agent::drivers::runtime::end_recorded(&folder.join("data/tasks"), Duration::ZERO).expect("they end");
        std::fs::remove_dir_all(folder).expect("nothing of it runs");
    }
    let done = project.disco(&["recover"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("the provider confirms it"), "{}", text(&done.stderr));
    let journal = std::fs::read_to_string(project.path().join(".disco/journal.jsonl")).expect("it is there");
    assert!(journal.contains(r#""record":"done","step":"recover","result":""#), "{journal}");
    project.wait_for_managers(3, Duration::from_secs(60));
    assert_eq!(project.ok(&["kv", "get", "k"]), "v\n");
    assert!(lost.iter().all(|(instance, _)| project.pid(instance).is_none()), "in new instances");
    project.ok(&["destroy", "--yes"]);
}
