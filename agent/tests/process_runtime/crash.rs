//! Agents that are killed, and what the next one finds.

use crate::{
    common::{self, BOUND, until},
    rig::{Rig, fresh_node, lives, shell},
};
use agent::{
    drivers::{
        process::ProcessRecord,
        runtime::{
            lines::Wanted,
            process::record::{Tasks, all_in},
        },
        syscall::{HeldChild, Program},
    },
    model::{
        ids::NodeId,
        task::{Exit, TaskEvent},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Another process of this test program, in which `agent_side` does its part.
pub struct AgentSide(pub Child);

impl AgentSide {
    fn begin(part: &str, folder: &Path, node: NodeId) -> (AgentSide, Vec<String>) {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "crash::agent_side", "--nocapture"])
            .env("AGENT_SIDE", part)
            .env("AGENT_FOLDER", folder)
            .env("AGENT_NODE", node.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let words = said.filter_map(|line| line.strip_prefix("said ").map(str::to_owned)).take_while(|line| line != "ready").collect();
        (AgentSide(child), words)
    }

    fn kill(mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

impl Drop for AgentSide {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(words: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    // libtest's own words may stand on the same line before.
    writeln!(out, "\nsaid {words}").and_then(|()| out.flush()).expect("somebody reads");
}

/// Not a test of its own: what the tests below run as another process, and kill.
#[test]
fn agent_side() {
    let Ok(part) = std::env::var("AGENT_SIDE") else { return };
    let folder = PathBuf::from(std::env::var("AGENT_FOLDER").expect("it is set"));
    let node = std::env::var("AGENT_NODE").expect("it is set").parse().expect("a node id");
    match part.as_str() {
        "held" => {
            let strings = |all: &[&str]| all.iter().map(|text| std::ffi::CString::new(*text).expect("no NUL")).collect::<Vec<_>>();
            let touch = format!("touch {}", folder.join("ran").display());
            let program = Program {
                path: strings(&["/bin/sh"]).remove(0),
                arguments: strings(&["sh", "-c", &touch]),
                environment: Vec::new(),
                cwd: strings(&["/"]).remove(0),
                identity: None,
                data_bytes_max: None,
                nice: 0,
            };
            let null = File::open("/dev/null").expect("it is there");
            // Two at once: neither may hold the other's pipe open.
            let held = [(), ()].map(|()| HeldChild::fork(&program, &null, &null).expect("it forks"));
            held.iter().for_each(|child| say(child.pid));
            say("ready");
            std::thread::park_timeout(BOUND);
        }
        "tasks" => common::block_on(async |spawner| {
            let rig = Rig::open(&folder, node, &spawner);
            rig.found().await;
            for number in 1..=3 {
                let (pid, _) = rig.start(shell(number, "echo up; exec sleep 1000")).await;
                say(pid);
            }
            say("ready");
            async_io::Timer::after(BOUND).await;
        }),
        other => panic!("there is no part {other}"),
    }
}

#[test]
fn an_agent_killed_before_the_record_leaves_no_copy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (agent, words) = AgentSide::begin("held", folder.path(), fresh_node());
    let held: Vec<u32> = words.iter().map(|word| word.parse().expect("a pid")).collect();
    assert!(held.len() == 2 && held.iter().all(|pid| lives(*pid)), "{words:?}");
    agent.kill();
    for pid in held {
        until("the held copy ends", BOUND, || (!lives(pid)).then_some(()));
    }
    assert!(!folder.path().join("ran").exists(), "it never became the program");
}

#[test]
fn tasks_outlive_a_killed_agent_and_are_found_with_their_pids() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = fresh_node();
    let (agent, words) = AgentSide::begin("tasks", folder.path(), node);
    let pids: Vec<u32> = words.iter().map(|word| word.parse().expect("a pid")).collect();
    agent.kill();
    assert!(pids.len() == 3 && pids.iter().all(|pid| lives(*pid)), "{words:?}");
    let spoken =
        |number: u32| fs::metadata(folder.path().join("tasks").join(number.to_string()).join("log")).is_ok_and(|log| log.len() > 0);
    until("each to have said its word", BOUND, || (1..=3).all(spoken).then_some(()));
    // The third ends while nobody looks.
    let third = ProcessRecord::of(pids[2]).expect("/proc is there").expect("it lives");
    third.end(BOUND).expect("it is ours to end");
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), node, &spawner);
        for (number, pid) in (1..).zip(&pids[..2]) {
            assert_eq!(rig.event().await, (number, TaskEvent::Up { pid: *pid, ports: BTreeMap::new(), adopted: true }));
        }
        assert_eq!(rig.event().await, (3, TaskEvent::Ended(Exit::Unknown)));
        assert_eq!(rig.found().await, (1..=3).map(|number| shell(number, "echo up; exec sleep 1000")).collect::<Vec<_>>());
        assert_eq!(rig.lines(Wanted { service: "web".into(), ..Wanted::default() }).len(), 3);
        for number in [1, 2] {
            assert_eq!(rig.stop(number, 15, 5_000).await, Exit::Unknown, "its status went to init");
        }
    });
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn odd_records_are_set_aside_and_stop_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = fresh_node();
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), node, &spawner);
        rig.found().await;
        for number in 1..=4 {
            rig.start(shell(number, "exit 3")).await;
            rig.ended().await;
        }
    });
    let tasks = folder.path().join("tasks");
    let whole = fs::read(tasks.join("1/task")).expect("it is there");
    fs::write(tasks.join("1/task"), &whole[..whole.len() / 2]).expect("the disk works");
    fs::copy(tasks.join("3/task"), tasks.join("2/task")).expect("the disk works");
    fs::remove_file(tasks.join("3/task")).expect("the disk works");
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), node, &spawner);
        assert_eq!(rig.event().await, (4, TaskEvent::Ended(Exit::Code(3))), "an exit that was seen is remembered");
        assert_eq!(rig.found().await.len(), 1);
    });
    assert!(tasks.join("1.odd").is_dir() && tasks.join("2.odd").is_dir() && !tasks.join("3").exists());
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), fresh_node(), &spawner);
        assert_eq!(rig.found().await, vec![], "another node's tasks are not ours");
    });
}

/// The control group of the node, where it may have one.
fn groups_of(folder: &Path) -> BTreeSet<PathBuf> {
    let tasks = all_in(&folder.join("tasks")).expect("it can be listed");
    tasks.iter().filter_map(|task| Some(Path::new(task.cgroup.as_ref()?).parent()?.to_owned())).collect()
}

#[test]
fn a_started_daemon_removes_the_groups_that_a_killed_one_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = fresh_node();
    let (agent, _) = AgentSide::begin("tasks", folder.path(), node);
    agent.kill();
    let groups = groups_of(folder.path());
    groups.iter().for_each(|node| fs::create_dir_all(node.join("99/inside")).expect("where there are groups, we may make them"));
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), node, &spawner);
        for _ in 1..=3 {
            rig.event().await;
        }
        rig.found().await;
        assert!(groups.iter().all(|node| node.join("1").exists() && !node.join("99").exists()), "{groups:?}");
        for number in 1..=3 {
            rig.stop(number, 15, 5_000).await;
        }
        assert!(groups.iter().all(|node| !node.exists()), "{groups:?}");
    });
}

#[test]
fn what_a_dead_daemon_recorded_can_be_ended_from_outside() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (agent, words) = AgentSide::begin("tasks", folder.path(), fresh_node());
    agent.kill();
    let groups = groups_of(folder.path());
    // Of a task whose record the daemon did not come to write.
    groups.iter().for_each(|node| fs::create_dir_all(node.join("99/inside")).expect("where there are groups, we may make them"));
    agent::drivers::runtime::end_recorded(&folder.path().join("tasks"), Duration::from_secs(5)).expect("they are ours to end");
    assert!(words.iter().all(|pid| !lives(pid.parse().expect("a pid"))));
    assert!(groups.iter().all(|node| !node.exists()), "{groups:?}");
    agent::drivers::runtime::end_recorded(&folder.path().join("nothing"), Duration::ZERO).expect("no folder, no tasks");
    let _ = Tasks::open(folder.path().join("tasks"), fresh_node()).expect("the folder stays usable");
}
