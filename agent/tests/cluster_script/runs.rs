//! What works.

use crate::{
    common::{BOUND, Daemon, until},
    rig::{eval, executors, leader, load, plan, script, until_key, until_runs},
};
use agent::drivers::syscall::{self, ProcessHandle, SIGHUP, SIGKILL};

#[test]
fn what_configure_declares_runs_and_what_it_registers_is_called() {
    let node = leader();
    let source = script(
        r#"
        export function configure(cluster) {
          cluster.service("sleeper", { command: ["sleep", "1000"], replicas: 2 });
          cluster.key("greeting").set("hello");
          cluster.key("ask").on("change", async (value) => { await cluster.key("answer").set(`${value}!`); });
          let ticks = 0;
          const timer = every("200ms", async () => {
            await cluster.key("ticks").set(`${++ticks}`);
            if (ticks === 3) timer.stop();
          });
        }
        export async function leader(cluster, node) { await cluster.key("leader").set(`${node}`); }
        export const twice = (n) => 2 * n;
        "#,
    );
    let changes: Vec<_> = plan(&node, &source).changes.into_iter().map(|c| format!("{} {}: {}", c.sign, c.subject, c.detail)).collect();
    assert_eq!(changes, ["+ service sleeper: 2 of `sleep 1000`", "+ key greeting: hello"]);
    load(&node, &source);
    until_runs(&node, "sleeper", 2);
    until_key(&node, "greeting", "hello");
    until_key(&node, "leader", "n1");
    node.set("ask", "who").expect("it leads");
    until_key(&node, "answer", "who!");
    until_key(&node, "ticks", "3");
    assert_eq!(plan(&node, &source).changes.len(), 0, "nothing to do");

    assert_eq!(eval(&node, "1 + 1").value, "2");
    assert_eq!(
        eval(&node, "(await cluster.services()).map((s) => `${s.name} ${s.running}/${s.desired}`)").value,
        "[\n  \"sleeper 2/2\"\n]"
    );
    assert_eq!(eval(&node, "const x = twice(4); return `${x}`").value, "\"8\"");
    let refused = eval(&node, "await cluster.scale(3)").error;
    assert!(refused.contains("this node has no provider"), "{refused}");
    assert_eq!(node.status().expect("it leads").desired_nodes, 1);
    eval(&node, "cluster.service('sleeper').scale(1)");
    until_runs(&node, "sleeper", 1);
}

/// The same on x86-64 and arm64 (signal(7)).
const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

fn signal(pid: u32, signal: i32) {
    let handle = ProcessHandle::open(pid, syscall::process_started(pid).expect("it runs")).expect("it is ours").expect("it runs");
    handle.signal(signal).expect("it is ours");
}

#[test]
fn an_idle_executor_goes_away_and_what_it_registered_is_still_called() {
    let node = leader();
    let source = script(
        r#"export function configure(cluster) {
          cluster.key("ask").on("change", async (value) => { await cluster.key("answer").set(`${value}!`); });
        }"#,
    );
    load(&node, &source);
    until("it has nothing to do", BOUND, || executors(&node).is_empty().then_some(()));
    node.set("ask", "who").expect("it leads");
    until_key(&node, "answer", "who!");
    assert_eq!(executors(&node).len(), 1);
    until("it has nothing to do again", BOUND, || executors(&node).is_empty().then_some(()));
}

#[test]
fn sighup_runs_configure_again() {
    let node = leader();
    let source = script(
        r#"
        export async function configure(cluster) { await cluster.key("copy").set((await cluster.key("original").get()) ?? "nothing"); }
        "#,
    );
    load(&node, &source);
    until_key(&node, "copy", "nothing");
    node.set("original", "something").expect("it leads");
    signal(node.pid(), SIGHUP);
    until_key(&node, "copy", "something");
}

#[test]
fn an_executor_that_is_killed_in_the_middle_of_a_hook_is_started_again() {
    let node = leader();
    let source = script(
        r#"
        export async function leader(cluster) {
          const began = Number((await cluster.key("began").get()) ?? 0) + 1;
          await cluster.key("began").set(`${began}`);
          if (began === 1) await delay(60000);
          await cluster.key("done").set("yes");
        }
        "#,
    );
    load(&node, &source);
    until_key(&node, "began", "1");
    signal(executors(&node)[0], SIGKILL);
    until_key(&node, "done", "yes");
    assert_eq!(node.value("began").expect("it leads").as_deref(), Some("2"));
    assert_eq!(node.status().expect("it leads").script_error, "");
}

#[test]
fn people_are_answered_while_a_hook_waits() {
    let node = leader();
    let source = script("export async function leader(cluster) { await cluster.key('began').set('yes'); await delay(60000); }");
    load(&node, &source);
    until_key(&node, "began", "yes");
    assert_eq!(eval(&node, "await cluster.key('began').get()").value, "\"yes\"");
    let declares = script("export function configure(cluster) { cluster.key('new').set('yes'); }");
    assert_eq!(plan(&node, &declares).changes.len(), 1);
    load(&node, &declares);
    until_key(&node, "new", "yes");
    until("all is over", BOUND, || executors(&node).is_empty().then_some(()));
}

#[test]
fn tasks_do_not_notice_that_executor_or_agent_end() {
    let mut node = leader();
    let source = script("export function configure(cluster) { cluster.service('sleeper', { command: ['sleep', '1000'], replicas: 2 }); }");
    load(&node, &source);
    let pids = |node: &Daemon| until_runs(node, "sleeper", 2).tasks.iter().map(|task| task.pid).collect::<Vec<_>>();
    let before = pids(&node);
    eval(&node, "1");
    let executors = executors(&node);
    assert!(!executors.is_empty());
    node.kill();
    until("no executor outlives its agent", BOUND, || executors.iter().all(|pid| syscall::process_started(*pid).is_none()).then_some(()));
    node.start();
    node.until("it leads again", |status| status.leader.is_some() && status.script_applied > 0);
    assert_eq!(pids(&node), before);
    node.write(proto::v1::write_request::Op::ServiceRemove(proto::v1::ServiceName { name: "sleeper".into() })).expect("it leads");
    until("they ended", BOUND, || before.iter().all(|pid| syscall::process_started(*pid).is_none()).then_some(()));
}

#[test]
fn each_leader_runs_the_script_and_the_one_before_says_goodbye() {
    let first = leader();
    let others: Vec<Daemon> = ["n2", "n3"].iter().map(|name| Daemon::join(name, &first.token("manager"), &[&first.address])).collect();
    first.until("three managers", |status| status.voters.len() == 3);
    let source = script(
        r#"
        export function configure(cluster) {
          cluster.service("everywhere", { command: ["sleep", "1000"], replicas: "every-node" });
          cluster.on("leader", (event) => console.log("event", event.name, event.subject));
          cluster.on("follower", (event) => console.log("event", event.name, event.subject));
        }
        export async function leader(cluster, node) {
          console.log(`leader ${node}`);
          await cluster.key("leader").set(`${node}`);
        }
        export async function follower(cluster, node) {
          console.log(`follower ${node}`);
          try { await cluster.key("leader").set("the past"); } catch (e) { console.log(e.message); }
        }
        "#,
    );
    load(&first, &source);
    until_runs(&first, "everywhere", 3);
    until_key(&first, "leader", "n1");
    assert_eq!(eval(&others[0], "`${await cluster.leader()}`").value, "\"n1\"", "a follower passes it on");
    assert_eq!(plan(&others[1], &source).error, "");
    // Stopped long enough for the others to elect, it steps down when it hears of that.
    signal(first.pid(), SIGSTOP);
    let name = until("another one leads", BOUND, || {
        let status = others[0].status().ok()?;
        let leader = status.nodes.iter().find(|node| Some(&node.id) == status.leader.as_ref())?.name.clone();
        (leader != "n1" && others[0].value("leader").ok()?.as_deref() == Some(&leader)).then_some(leader)
    });
    signal(first.pid(), SIGCONT);
    first.until_it_says("script: follower n1");
    first.until_it_says("script: the script ran while this node led in term");
    first.until_it_says("script: event follower n1");
    assert_eq!(others[0].value("leader").expect("it forwards").as_deref(), Some(&*name));
    let new = others.iter().find(|node| node.log().contains(&format!("script: leader {name}"))).expect("it said so");
    new.until_it_says(&format!("script: event leader {name}"));
}
