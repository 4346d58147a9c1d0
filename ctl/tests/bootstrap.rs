//! The main job as a person does it: real programs, real processes, a real folder.
//!
//! `disco` and `discod` are those of this build (`cargo build -p agent` makes the second); each test has a folder, and so a
//! cluster and loopback addresses, of its own, and leaves no process behind, whatever happens.

use memprof::{Watch, cluster::Cluster};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// A folder as `disco init` leaves it.
fn project() -> Cluster {
    let programs = Path::new(env!("CARGO_BIN_EXE_disco")).parent().expect("it lies in a folder");
    assert!(programs.join("discod").exists(), "there is no discod beside disco: `cargo build -p agent` makes it");
    Cluster::init(programs).expect("init writes a folder")
}

fn run(project: &Cluster, line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    project.command(&words).stdin(Stdio::null()).output().expect("disco starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs to exit 0; what it printed.
fn ok(project: &Cluster, line: &str) -> String {
    let output = run(project, line);
    assert_eq!(output.status.code(), Some(0), "disco {line}: {}", said(&output));
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// Runs to this exit code; what it said.
fn no(project: &Cluster, line: &str, code: i32) -> String {
    let output = run(project, line);
    assert_eq!(output.status.code(), Some(code), "disco {line}: {}", said(&output));
    said(&output)
}

fn status(project: &Cluster) -> Value {
    serde_json::from_str(&ok(project, "status --json")).expect("it prints JSON")
}

fn files(project: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(project.dir()).expect("the folder is there");
    let mut names: Vec<String> = entries.map(|e| e.expect("it is readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Processes that run a program of the folder.
fn processes_in(folder: &Path) -> Vec<u32> {
    let running = fs::read_dir("/proc").expect("there is /proc").flatten();
    let pids = running.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(folder))).collect()
}

fn kill_all(project: &Cluster) {
    for (_, pid) in project.processes() {
        project.kill(pid);
    }
    eventually("every process is gone", || processes_in(&project.dir()).is_empty());
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

/// A command that goes on printing, and its lines.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(project: &Cluster, words: &[&str]) -> Follower {
        let mut child =
            project.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("disco starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Follower { child, lines }
    }

    /// The next line that has this in it.
    fn until(&self, part: &str) -> String {
        let began = Instant::now();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("no line with {part:?}"));
            if line.contains(part) {
                return line;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no line with {part:?}");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_command_makes_three_managers_and_another_leaves_nothing() {
    let project = project();
    let _watch = Watch::project("the main job", &project.dir());
    let before = files(&project);
    let output = run(&project, "bootstrap --yes");
    let progress = said(&output);
    assert_eq!(output.status.code(), Some(0), "{progress}");
    for step in ["instance i-1 started (127.", "3 of 3 nodes ready, 3 votes", "the first node is at 127."] {
        assert!(progress.contains(step), "{progress}");
    }

    let seen = status(&project);
    assert_eq!(
        (&seen["cluster"]["name"], &seen["services"], &seen["problems"]),
        (&"example".into(), &Value::Array(vec![]), &Value::Array(vec![]))
    );
    let nodes = seen["nodes"].as_array().expect("a list");
    assert_eq!(nodes.iter().filter(|n| n["state"] == "ready" && n["role"] == "manager").count(), 3, "{seen}");
    assert_eq!(nodes.iter().filter(|n| n["leader"] == true && n["id"] == seen["leader"]).count(), 1, "{seen}");
    assert_eq!(seen["instances"].as_array().map(Vec::len), Some(3));
    let screen = ok(&project, "status");
    assert!(screen.starts_with("cluster example ") && screen.contains("3 of 3 nodes ready, 3 managers"), "{screen}");

    ok(&project, "kv set a/b hello");
    assert_eq!(ok(&project, "kv get a/b"), "hello\n");
    assert_eq!(ok(&project, "kv get a/b --raw --stale"), "hello");
    assert_eq!(no(&project, "kv get nothing", 1), "error: there is no key `nothing`\n");
    let large = "x".repeat(70_000);
    assert!(no(&project, &format!("kv set large {large}"), 1).contains("a value has at most 65536 bytes"));

    let token = ok(&project, "token create --role worker --ttl 5m");
    assert!(token.starts_with("DISCO1-"), "{token}");
    let tokens: Value = serde_json::from_str(&ok(&project, "token ls --json")).expect("it prints JSON");
    let id = tokens[0]["id"].as_str().expect("an id");
    assert!(ok(&project, &format!("token rotate {id}")).starts_with("DISCO1-"));
    let rotated: Value = serde_json::from_str(&ok(&project, "token ls --json")).expect("it prints JSON");
    let new = rotated.as_array().expect("a list");
    assert!(new.len() == 1 && new[0]["id"] != id && new[0]["role"] == tokens[0]["role"] && new[0]["uses_left"] == tokens[0]["uses_left"]);
    ok(&project, &format!("token revoke {}", new[0]["id"].as_str().expect("an id")));
    assert_eq!(ok(&project, "token ls").lines().count(), 1);

    let name = status(&project)["nodes"][1]["name"].as_str().expect("a name").to_owned();
    let refused = no(&project, &format!("node demote {name}"), 1);
    assert!(refused.contains(&format!("no node can take the seat of {name}")), "{refused}");
    ok(&project, &format!("node promote {name}"));
    assert!(ok(&project, &format!("node inspect {name}")).contains("manager, by hand"));

    let ca = |project: &Cluster| fs::read_to_string(project.dir().join(".disco/ca.crt")).expect("the disk works");
    let old = ca(&project);
    assert!(said(&run(&project, "ca rotate")).contains("there is no terminal to ask at"));
    let rotated = said(&run(&project, "ca rotate --yes"));
    assert!(rotated.contains("every node has a new certificate, and so has this folder"), "{rotated}");
    let new = ca(&project);
    assert!(new != old && new.matches("BEGIN CERTIFICATE").count() == 1, "only the new one is believed: {new}");
    ok(&project, "kv set a/c again");
    let events = ok(&project, "events");
    assert!(["ca.introduced", "ca.certifying", "ca.replaced"].iter().all(|event| events.contains(event)), "{events}");

    ok(&project, "scale 1");
    let seen = status(&project);
    assert_eq!(seen["nodes"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(ok(&project, "kv get a/b"), "hello\n");
    // A leader's executor goes away when it has nothing to do.
    eventually("one process is left", || processes_in(&project.dir()).len() == 1);

    ok(&project, "destroy --yes");
    assert_eq!((files(&project), processes_in(&project.dir())), (before, vec![]));
    assert!(said(&run(&project, "destroy --yes")).contains("nothing to destroy"));
    assert!(no(&project, "status", 1).contains("hint: `disco init` writes a starting folder"));
}

#[test]
fn after_everything_was_killed_bootstrap_brings_back_the_same_cluster() {
    let project = project();
    let _watch = Watch::project("reboot", &project.dir());
    ok(&project, "bootstrap --yes");
    ok(&project, "kv set kept yes");
    let identities = |seen: &Value| -> Vec<Value> {
        let mut ids: Vec<Value> = seen["nodes"].as_array().expect("a list").iter().map(|n| n["id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        ids.push(seen["cluster"]["id"].clone());
        ids
    };
    let before = identities(&status(&project));
    kill_all(&project);

    let words = no(&project, "status", 1);
    assert!(words.starts_with("error: cannot show the status\n") && words.matches("nothing listens there").count() == 3, "{words}");
    assert!(words.contains("hint: `disco bootstrap` starts stopped instances again"), "{words}");
    let output = run(&project, "instance ls");
    assert!(said(&output).contains("the cluster does not answer"), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches(" stopped").count(), 3);

    let progress = said(&run(&project, "bootstrap --yes"));
    assert_eq!(progress.matches(" started again ").count(), 3, "{progress}");
    assert_eq!((identities(&status(&project)), ok(&project, "kv get kept")), (before, "yes\n".into()));
    assert!(said(&run(&project, "bootstrap --yes")).contains("cluster example is healthy already"));

    // Dead again, and destroyed without an answer.
    kill_all(&project);
    ok(&project, "destroy --yes");
    assert!(!project.dir().join(".disco").exists() && processes_in(&project.dir()).is_empty());
}

#[test]
fn what_was_stopped_on_purpose_stays_stopped() {
    let project = project();
    let _watch = Watch::project("stopped on purpose", &project.dir());
    ok(&project, "bootstrap --yes");
    ok(&project, "instance stop i-3");
    let state = |project: &Cluster| {
        let list: Value = serde_json::from_slice(&run(project, "instance ls --json").stdout).expect("it prints JSON");
        list.as_array().and_then(|l| l.iter().find(|i| i["id"] == "i-3").map(|i| i["state"].clone())).unwrap_or_default()
    };
    eventually("i-3 is stopped", || state(&project) == "stopped");
    kill_all(&project);
    let output = run(&project, "bootstrap --yes");
    let progress = said(&output);
    assert_eq!(output.status.code(), Some(0), "{progress}");
    assert!(progress.contains("i-2 started again") && !progress.contains("i-3 started again"), "{progress}");
    assert_eq!(state(&project), "stopped");
    ok(&project, "instance start i-3");
    project.wait_for("three ready managers", memprof::cluster::Status::is_whole).expect("i-3 comes back");
}

#[test]
fn a_script_that_goes_wrong_changes_nothing_and_is_told_with_its_line() {
    let project = project();
    let init = "export async function init() { return new Cluster({ name: 'x', provider: await LocalProvider.init({ name: 'l' }) }) }\n";
    let long_name = init.replace("'x'", "'x'.repeat(65)") + "export function bootstrap() {}";
    let table = [
        (long_name.as_str(), "at most 64 bytes"),
        ("export function init() {\n  retur", "client.js:2"),
        ("export function bootstrap() {}", "client.js does not export `init`"),
        (init, "client.js does not export `bootstrap`"),
        ("export function init() { return 3 }\nexport function bootstrap() {}", "init() must return a Cluster"),
        ("export function init() {\n  new Cluster({ nam: 'x' }) }\nexport function bootstrap() {}", "`nam`"),
        (
            "export async function init() {\n  throw new Error('no luck') }\nexport function bootstrap() {}",
            "no luck\n    at init (client.js:2",
        ),
        ("export async function init() {\n  await missing() }\nexport function bootstrap() {}", "client.js:2"),
    ];
    let files_before = files(&project);
    for (source, part) in table {
        fs::write(project.dir().join("client.js"), source).expect("the folder is ours");
        let words = no(&project, "bootstrap --yes", 2);
        assert!(words.starts_with("error: ") && words.contains(part), "{source}\n{words}");
        assert_eq!(files(&project), files_before, "{source}");
    }
    fs::remove_file(project.dir().join("client.js")).expect("it is there");
    assert!(no(&project, "bootstrap", 2).contains("there is no client.js in "));
}

#[test]
fn a_second_bootstrap_at_once_is_refused_with_the_pid_of_the_first() {
    let project = project();
    let client = project.dir().join("client.js");
    let source = fs::read_to_string(&client).expect("init wrote it");
    // Holds the first one up until the second has been refused.
    let held = source.replace(
        "export async function bootstrap(cluster) {",
        "export async function bootstrap(cluster) {\n  while ((await run('test', ['-e', 'go'])).status !== 0) await delay(20);",
    );
    assert_ne!(held, source, "the example has changed; change the test");
    fs::write(&client, held).expect("the folder is ours");
    let mut first = project.command(&["bootstrap", "--yes"]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("disco starts");
    eventually("the first one holds its journal", || project.dir().join(".disco/journal.jsonl").exists());
    let words = no(&project, "bootstrap --yes", 2);
    assert!(words.starts_with(&format!("error: process {} is working on this cluster already", first.id())), "{words}");
    assert!(no(&project, "destroy --yes", 2).contains("is working on this cluster already"));
    fs::write(project.dir().join("go"), "").expect("the folder is ours");
    assert!(first.wait().expect("it ends").success());
    assert_eq!(status(&project)["nodes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn whoever_follows_sees_changes_as_they_come() {
    let project = project();
    let client = "export async function init() { return new Cluster({ name: 'one', provider: await LocalProvider.init({ name: 'l' }) }) }
        export async function bootstrap(cluster) {
          await cluster.start_instance();
          await cluster.scale(1);
          await cluster.key('from').set('client.js');
          console.log(`${await cluster.key('from').get()} sees ${(await cluster.nodes()).length} node, ${await cluster.leader()} leads`);
          console.log(await ask('Shall I?'));
        }
        export async function destroy(cluster) { console.log(`goodbye ${cluster.name}`); }";
    fs::write(project.dir().join("client.js"), client).expect("the folder is ours");
    fs::remove_file(project.dir().join("cluster.js")).expect("init wrote it");
    let output = run(&project, "bootstrap");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(
        words.contains("client.js sees 1 node, n1 leads\n")
            && words.contains("Shall I? no (there is no terminal")
            && words.contains("\nfalse\n"),
        "{words}"
    );

    let values = Follower::start(&project, &["kv", "watch", "k"]);
    let events = Follower::start(&project, &["events", "-f", "--json"]);
    let screens = Follower::start(&project, &["status", "--watch"]);
    screens.until("1 of 1 nodes ready");
    for value in ["one", "two"] {
        ok(&project, &format!("kv set k {value}"));
        assert_eq!(values.until(value), value);
    }
    ok(&project, "scale 2");
    events.until("\"name\":\"node.joined\"");
    screens.until("2 of 2 nodes ready");

    // A lost certificate is issued again by a node on this machine.
    fs::remove_file(project.dir().join(".disco/admin.crt")).expect("it is there");
    assert!(no(&project, "status", 1).contains("`disco bootstrap` continues"));
    ok(&project, "bootstrap --yes");
    let socket = project.dir().join(".disco/instances/i-1/data/control.sock");
    assert!(ok(&project, &format!("status --socket {}", socket.display())).starts_with("cluster one "));

    assert!(no(&project, "destroy", 1).contains("nothing was destroyed"));
    let words = said(&run(&project, "destroy --yes"));
    assert!(words.contains("goodbye one\n") && words.contains("cluster one is destroyed"), "{words}");
    assert!(!project.dir().join(".disco").exists());
}
