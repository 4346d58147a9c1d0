//! Who administers a cluster besides the folder that made it, also after the certificate authority was replaced.

mod common;

use common::{DISCO, Project, text, wait_until};
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(30);

/// `disco` in a folder that did not make the cluster.
fn elsewhere(folder: &Path, args: &[&str]) -> Output {
    Command::new(DISCO).args(args).arg("--dir").arg(folder).env("NO_COLOR", "1").stdin(Stdio::null()).output().expect("disco starts")
}

fn refused(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not all in: {said}");
}

#[test]
fn another_folder_is_let_in_and_in_again_after_the_authority_was_replaced() {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    project.wait_for_managers(3, SOON);
    let colleague = tempfile::tempdir().expect("a temporary folder");
    let there = colleague.path().join("lab");
    let issue = |args: &[&str]| project.ok(&[&["ca", "issue", there.to_str().expect("it is UTF-8")], args].concat());
    issue(&[]);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(there.join(".disco").join(name)).expect("it was written").permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("admin.key")), (0o700, 0o600), "nobody else may read it");
    assert!(elsewhere(&there, &["kv", "set", "from", "colleague"]).status.success());
    assert_eq!(project.ok(&["kv", "get", "from"]), "colleague\n");

    // It sees no machines, which does not mean that there are none.
    for file in ["client.js", "cluster.js", "server.js"] {
        fs::copy(project.path().join(file), there.join(file)).expect("the folder is ours");
    }
    for command in ["bootstrap", "destroy"] {
        refused(&elsewhere(&there, &[command, "--yes"]), &["the machines of cluster `example` are not this folder's", "hint: "]);
    }
    let alone = project.running().into_iter().filter(|(instance, _)| instance != "i-1");
    alone.for_each(|(_, pid)| common::kill(pid));
    let not_confirmed = |output: &Output| text(&output.stderr).contains("nothing was changed");
    let asked = || not_confirmed(&elsewhere(&there, &["recover"]));
    wait_until(SOON, "a recovery that asks for consent", asked, || text(&elsewhere(&there, &["recover"]).stderr));
    project.ok(&["bootstrap", "--yes"]);
    project.wait_for_managers(3, SOON);

    project.ok(&["ca", "rotate", "--yes"]);
    refused(&elsewhere(&there, &["status"]), &["its certificate is refused", "hint: ", "`disco ca issue DIR`"]);
    let key = || fs::read(there.join(".disco/admin.key")).expect("it was written");
    let before = key();
    issue(&[]);
    assert!(elsewhere(&there, &["kv", "get", "from"]).status.success());
    assert_eq!(key(), before, "the same administrator");

    // On a node nobody needs a certificate; and a folder of one cluster is not made one of another's.
    let socket = project.path().join(".disco/instances/i-2/data/control.sock");
    let third = colleague.path().join("third");
    let by_socket = Command::new(DISCO).args(["ca", "issue"]).arg(&third).arg("--socket").arg(&socket).output().expect("disco starts");
    assert!(by_socket.status.success(), "{}", text(&by_socket.stderr));
    assert!(elsewhere(&third, &["kv", "get", "from"]).status.success());
    let cluster = third.join(".disco/cluster.json");
    let mut file: serde_json::Value = serde_json::from_slice(&fs::read(&cluster).expect("it was written")).expect("it is JSON");
    file["id"] = "00000000000000aa".into();
    fs::write(&cluster, file.to_string()).expect("the folder is ours");
    let by_socket = Command::new(DISCO).args(["ca", "issue"]).arg(&third).arg("--socket").arg(&socket).output().expect("disco starts");
    assert!(text(&by_socket.stderr).contains("this folder is for 00000000000000aa"), "{}", text(&by_socket.stderr));
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_forced_rotation_leaves_behind_who_is_away_and_that_node_is_told_to_join_anew() {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    project.ok(&["scale", "4"]);
    let status = project.status().expect("it answers");
    let worker = status["nodes"].as_array().expect("a list").iter().find(|n| n["role"] == "worker").expect("the fourth").clone();
    let (name, instance) = (worker["name"].as_str().expect("a name"), worker["instance"].as_str().expect("one"));
    project.ok(&["instance", "stop", instance]);
    wait_until(SOON, "it to stop", || project.pid(instance).is_none(), || project.tell());

    let waits = project.disco(&["ca", "rotate", "--yes", "--wait", "1s"]);
    refused(&waits, &["is not replaced yet", &format!("{name} is not ready"), "--force leaves it behind"]);
    let forced = project.disco(&["ca", "rotate", "--yes", "--wait", "1s", "--force"]);
    let said = text(&forced.stderr);
    assert!(forced.status.success(), "{said}");
    assert_eq!(said.matches(&format!("leaving {name} behind")).count(), 1, "waited for once: {said}");
    project.ok(&["kv", "set", "k", "v"]);

    project.ok(&["instance", "start", instance]);
    let log = project.path().join(".disco/instances").join(instance).join("discod.log");
    let told = || fs::read_to_string(&log).is_ok_and(|log| log.contains("no node of the cluster believes this node"));
    wait_until(SOON, "the node to say why it is alone", told, || fs::read_to_string(&log).unwrap_or_default());
    project.ok(&["node", "rm", name, "--yes"]);
    let replaced = || {
        let Some(status) = project.status() else { return false };
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.len() == 4 && nodes.iter().all(|n| n["state"] == "ready" && n["name"] != name)
    };
    wait_until(SOON, "a new node in its place", replaced, || project.tell());
    project.ok(&["destroy", "--yes"]);
}
