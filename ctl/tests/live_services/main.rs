//! The example's service on real nodes: it is there, it heals, it moves, it is replaced. `disco` asks, HTTP answers.

#[path = "../common/mod.rs"]
mod common;
mod docs;
mod tasks;

use common::{Project, is_running, kill, rounds, text, wait_until};
use memprof::tasks_of;
use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tasks::{Task, nodes_of};

/// Nothing here takes longer on a machine that can hold a cluster at all.
const SOON: Duration = Duration::from_secs(15);

fn up() -> Project {
    let project = Project::new();
    project.ok(&["bootstrap", "--yes"]);
    let tasks = project.answering_tasks("hello");
    assert_eq!(
        (tasks.len(), nodes_of(&tasks).len()),
        (3, 3),
        "bootstrap ends with three that answer, each on a node of its own: {tasks:?}"
    );
    project
}

/// Ends the cluster and sees to it that nothing of it is left.
fn down(project: &Project) {
    let addresses = project.addresses();
    project.ok(&["destroy", "--yes"]);
    assert!(project.running().is_empty() && !project.path().join(".disco").exists(), "destroy leaves nothing");
    wait_until(SOON, "no task is left", || tasks_of(&addresses).is_empty(), || format!("{:?}", tasks_of(&addresses)));
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().is_ok_and(|s| s.success()), "kill {name} {pid}");
}

fn follower(project: &Project) -> String {
    let leader = project.leader_instance();
    project.running().into_iter().map(|(instance, _)| instance).find(|instance| Some(instance) != leader.as_ref()).expect("a follower")
}

/// The node of an instance.
fn node_of(project: &Project, instance: &str) -> String {
    let status = project.status().expect("the cluster answers");
    let nodes = status["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|n| n["instance"] == instance).expect("its node");
    node["id"].as_str().expect("an id").to_owned()
}

#[test]
fn three_copies_answer_and_every_kill_heals() {
    let project = up();

    for round in 0..rounds(2) {
        let victim = project.tasks("hello").remove(round % 3);
        kill(victim.pid);
        wait_until(SOON, "the process to be gone", || !is_running(victim.pid), String::new);
        let took = project.wait_for_tasks("hello", 3, Duration::from_secs(2));
        println!("a task was killed: three answer again after {took:.2?}");
    }

    for name in ["-KILL", "-TERM"] {
        for leads in [false, true] {
            let before = project.task_pids("hello");
            let instance = if leads { project.leader_instance().expect("a leader") } else { follower(&project) };
            let pid = project.pid(&instance).expect("it runs");
            signal(pid, name);
            wait_until(SOON, "the agent to be gone", || !is_running(pid), String::new);
            project.wait_for_managers(3, SOON);
            let took = project.wait_for_tasks("hello", 3, SOON);
            assert_eq!(project.task_pids("hello"), before, "tasks go on while their agent is away");
            println!(
                "kill {name} of {} agent: the same three pids, {took:.2?} after it was ready again",
                if leads { "the leader's" } else { "an" }
            );
        }
    }

    let instance = follower(&project);
    let node = node_of(&project, &instance);
    let there = project.tasks("hello").into_iter().find(|t| t.node == node).expect("one on each node");
    let began = Instant::now();
    project.ok(&["instance", "terminate", &instance, "--yes"]);
    wait_until(SOON, "the task to end with its machine", || !is_running(there.pid), || project.tell());
    project.wait_for_tasks("hello", 3, Duration::from_secs(12));
    println!("an instance was terminated: three answer again {:.2?} after the command began", began.elapsed());
    project.wait_for_managers(3, SOON);

    for (_, pid) in project.running() {
        kill(pid);
    }
    for task in tasks_of(&project.addresses()) {
        kill(task);
    }
    wait_until(SOON, "all to be gone", || project.running().is_empty(), String::new);
    project.ok(&["bootstrap", "--yes"]);
    let took = project.wait_for_tasks("hello", 3, SOON);
    println!("everything was killed: three answer {took:.2?} after `disco bootstrap` said so");
    down(&project);
}

/// A machine that is silent is lost after 5 s, and its tasks move 5 s later. When it comes back it stops what was moved.
#[test]
fn a_silent_nodes_tasks_run_elsewhere_and_it_stops_them_when_it_is_back() {
    let project = up();
    let instance = follower(&project);
    let (node, agent) = (node_of(&project, &instance), project.pid(&instance).expect("it runs"));
    let moved = project.tasks("hello").into_iter().find(|t| t.node == node).expect("one on each node");
    signal(agent, "-STOP");
    let began = Instant::now();
    let elsewhere = || {
        let tasks = project.answering_tasks("hello");
        tasks.iter().filter(|t| t.node != node).count() == 3
    };
    wait_until(Duration::from_secs(12), "three that answer on the two nodes left", elsewhere, || project.tell());
    println!("a node fell silent: three answer on the other two after {:.2?}", began.elapsed());
    assert!(is_running(moved.pid), "who cannot be reached cannot be stopped");
    signal(agent, "-CONT");
    wait_until(SOON, "the node that is back to stop what was moved", || !is_running(moved.pid), || project.tell());
    project.wait_for_tasks("hello", 3, SOON);
    down(&project);
}

/// Counts, all the time, how many copies answer; how few it ever were.
struct Lookout {
    stop: Arc<AtomicBool>,
    fewest: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Lookout {
    fn on(project: &Arc<Project>) -> Lookout {
        let (stop, fewest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(usize::MAX)));
        let (project, stopped, count) = (project.clone(), stop.clone(), fewest.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                count.fetch_min(answering_now(&project), Ordering::Relaxed);
            }
        });
        Lookout { stop, fewest, thread: Some(thread) }
    }

    fn fewest(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the lookout");
        }
        self.fewest.load(Ordering::Relaxed)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A copy may end between being listed and being asked, when another has taken over: then it is looked at again.
fn answering_now(project: &Project) -> usize {
    let (mut best, mut before) = (0, Vec::new());
    loop {
        let tasks: Vec<Task> = project.tasks("hello");
        best = best.max(tasks.iter().filter(|t| t.answers()).count());
        let ids: Vec<String> = tasks.into_iter().map(|t| t.id).collect();
        if ids == before || best >= 3 {
            return best;
        }
        before = ids;
    }
}

fn with_greeting(word: &str) -> String {
    let script = include_str!("../../../scripts/examples/local/cluster.js");
    let changed = script.replace("GREETING: \"hello\"", &format!("GREETING: \"{word}\""));
    assert_ne!(script, changed, "the example greets");
    changed
}

#[test]
fn an_update_replaces_copies_while_enough_answer_and_can_be_taken_back() {
    let project = Arc::new(up());

    project.ok(&["service", "scale", "hello", "5"]);
    project.wait_for_tasks("hello", 5, SOON);
    assert_eq!(nodes_of(&project.tasks("hello")).len(), 3, "five on three nodes");
    let planned = project.disco(&["plan"]);
    assert_eq!(planned.status.code(), Some(2), "what was done by hand is a difference");
    assert!(text(&planned.stdout).contains("5 (by hand) -> 3"), "{}", text(&planned.stdout));
    project.ok(&["apply", "--yes"]);
    project.wait_for_tasks("hello", 3, SOON);
    assert_eq!(project.disco(&["plan"]).status.code(), Some(0), "applied: nothing left to do");

    project.write("cluster.js", &with_greeting("welcome"));
    let old: BTreeSet<String> = project.task_pids("hello").into_keys().collect();
    let mut lookout = Lookout::on(&project);
    let applied = project.disco(&["apply", "--yes"]);
    let said = text(&applied.stderr);
    assert!(applied.status.success() && said.contains("env.GREETING hello -> welcome"), "it says what changes: {said}");
    project.wait_for_tasks("hello", 3, SOON);
    let fewest = lookout.fewest();
    assert!(fewest >= 3, "three answered all through a start-first update, not {fewest}");
    let new = project.tasks("hello");
    assert!(new.iter().all(|t| !old.contains(&t.id) && t.says().is_some_and(|words| words.starts_with("welcome from"))), "{new:?}");
    assert_eq!(nodes_of(&new).len(), 3, "still spread");

    project.ok(&["service", "rollback", "hello"]);
    let back = || project.tasks("hello").iter().all(|t| t.says().is_some_and(|words| words.starts_with("hello from")));
    wait_until(SOON, "the version before", back, || project.tell());
    project.wait_for_tasks("hello", 3, SOON);

    let logs = project.ok(&["logs", "hello"]);
    for task in project.tasks("hello") {
        let listens = format!("{} listens on", task.id);
        assert!(logs.contains(&listens), "`{listens}` is not in:\n{logs}");
    }
    // A finished task is forgotten after a while, so any number might have been one; but nothing is left of this.
    for how in [vec!["logs", "hello", "--task", "999"], vec!["logs", "hello", "--task", "hello.999", "-f"]] {
        let refused = project.disco(&how);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains("no log of task") && said.contains("999"), "{how:?}: {said}");
    }

    let drained = project.tasks("hello").remove(0).node;
    project.ok(&["node", "drain", &drained]);
    let left = || project.tasks("hello").iter().all(|t| t.node != drained) && project.answering_tasks("hello").len() == 3;
    wait_until(SOON, "the drained node to be empty", left, || project.tell());

    project.ok(&["service", "rm", "hello", "--yes"]);
    wait_until(SOON, "no task", || tasks_of(&project.addresses()).is_empty(), || project.tell());
    down(&project);
}

#[test]
fn an_update_that_does_not_stay_up_stops_keeps_the_old_copies_and_says_why() {
    let project = up();
    let before = project.task_pids("hello");
    project.write(
        "cluster.js",
        &with_greeting("x\", FAIL: \"yes")
            .replace("import { server } from \"./server.js\";", "const server = \"print qq(no way\\\\n); exit 3\";"),
    );
    let applied = project.disco(&["apply", "--yes"]);
    assert_eq!(applied.status.code(), Some(1), "{}{}", text(&applied.stdout), text(&applied.stderr));
    let said = text(&applied.stderr);
    assert!(said.contains("exit code 3") && said.contains("hello."), "it names the task and says why: {said}");
    let now = project.answering_tasks("hello");
    assert_eq!(
        now.iter().map(|t| (t.id.clone(), t.pid)).collect::<Vec<_>>(),
        before.into_iter().collect::<Vec<_>>(),
        "the old ones are kept"
    );
    let status = project.disco(&["status"]);
    assert!(text(&status.stdout).contains("the update to version 2 stopped"), "{}", text(&status.stdout));
    assert_eq!(status.status.code(), Some(1), "not all is well");
    project.ok(&["apply", "--rollback", "--yes"]);
    project.wait_for_tasks("hello", 3, SOON);
    let status = project.ok(&["status"]);
    assert!(!status.contains("problems"), "{status}");
    down(&project);
}
