//! Tasks as real processes: started, watched, found again, ended with all they started, and their logs.

mod common;

use agent::{
    drivers::{
        process::ProcessRecord,
        runtime::{
            Runtime,
            lines::{Line, Reader, Wanted},
            log_file::LogFile,
            process::{
                record::{Tasks, all_in},
                start::Here,
                sweep::sweep,
            },
        },
        syscall::{self, HeldChild, Program},
    },
    model::{
        ids::NodeId,
        io::Input,
        limits,
        service::{PortSpec, ServiceSpec},
        task::{Exit, TaskCall, TaskEvent, TaskNumber, TaskOrder},
    },
};
use async_channel::Receiver;
use common::{BOUND, until};
use futures_lite::FutureExt;
use proto::Spawner;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A node's runtime on a folder of its own.
struct Rig {
    runtime: Runtime,
    inputs: Receiver<Input>,
    folder: PathBuf,
}

/// No other test's tasks carry it, also not one of another test process.
fn fresh_node() -> NodeId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NodeId(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Rig {
    fn open(folder: &Path, node: NodeId, spawner: &Spawner) -> Rig {
        let (report, inputs) = async_channel::unbounded();
        let here = Here { node, name: "n1".into(), host: "127.0.0.1".into() };
        let report = Arc::new(move |input| report.try_send(input).expect("the channel is unbounded"));
        let runtime = Runtime::start(folder.join("tasks"), here, spawner, report).expect("the folder can be made");
        Rig { runtime, inputs, folder: folder.join("tasks") }
    }

    async fn next(&self) -> Input {
        let late = async {
            async_io::Timer::after(BOUND).await;
            panic!("nothing was reported within {BOUND:?}");
        };
        async { self.inputs.recv().await.expect("the runtime lives") }.or(late).await
    }

    /// The next word about a task.
    async fn event(&self) -> (u64, TaskEvent) {
        match self.next().await {
            Input::Task { number, event } => (number.0, event),
            other => panic!("a task's event was expected, not {other:?}"),
        }
    }

    async fn found(&self) -> Vec<TaskOrder> {
        match self.next().await {
            Input::TasksFound { orders } => orders,
            other => panic!("TasksFound was expected, not {other:?}"),
        }
    }

    fn call_start(&self, order: TaskOrder) {
        self.runtime.carry_out(TaskCall::Start { order, restarts: 0 });
    }

    async fn start(&self, order: TaskOrder) -> (u32, BTreeMap<u16, u16>) {
        self.call_start(order);
        match self.event().await.1 {
            TaskEvent::Up { pid, ports, adopted: false } => (pid, ports),
            other => panic!("it should be up: {other:?}"),
        }
    }

    async fn ended(&self) -> Exit {
        match self.event().await.1 {
            TaskEvent::Ended(exit) => exit,
            other => panic!("it should have ended: {other:?}"),
        }
    }

    async fn stop(&self, number: u64, signal: u32, timeout_ms: u64) -> Exit {
        self.runtime.carry_out(TaskCall::Stop { number: TaskNumber(number), signal, timeout_ms });
        self.ended().await
    }

    /// Waits until a task has written a line that `wanted` likes.
    fn line(&self, number: u64, wanted: impl Fn(&str) -> bool) -> String {
        let log = self.folder.join(number.to_string()).join("log");
        until("a line of the task", BOUND, || {
            let text = fs::read_to_string(&log).ok()?;
            text.lines().filter(|_| text.ends_with('\n')).find(|line| wanted(line)).map(str::to_owned)
        })
    }

    fn lines(&self, wanted: Wanted) -> Vec<Line> {
        let mut reader = Reader::open(self.runtime.logs.clone(), wanted).expect("the logs can be read");
        std::iter::from_fn(|| reader.next().expect("the logs can be read")).collect()
    }
}

/// Runs a test on a fresh folder, with nothing found in it.
fn on_a_node(test: impl AsyncFnOnce(Rig, &Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    common::block_on(async |spawner| {
        let rig = Rig::open(folder.path(), fresh_node(), &spawner);
        assert_eq!(rig.found().await, vec![]);
        test(rig, folder.path()).await;
    });
}

fn order(number: u64, command: &[&str]) -> TaskOrder {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let spec = ServiceSpec { command, ..ServiceSpec::default() };
    TaskOrder { number: TaskNumber(number), service: "web".into(), version: 1, wanted: true, spec }
}

fn shell(number: u64, script: &str) -> TaskOrder {
    order(number, &["/bin/sh", "-c", script])
}

fn lives(pid: u32) -> bool {
    syscall::process_started(pid).is_some()
}

#[test]
fn how_a_task_ends_is_told_as_it_was() {
    on_a_node(async |rig, _| {
        let cases =
            [("exit 0", Exit::Code(0)), ("exit 7", Exit::Code(7)), ("kill -9 $$", Exit::Signal(9)), ("kill -15 $$", Exit::Signal(15))];
        for (number, (script, exit)) in (1..).zip(cases) {
            rig.start(shell(number, script)).await;
            assert_eq!(rig.ended().await, exit, "{script}");
        }
        let (pid, _) = rig.start(shell(9, "sleep 1000")).await;
        assert!(lives(pid));
        assert_eq!(rig.stop(9, 15, 10_000).await, Exit::Signal(15));
        assert!(!lives(pid));
        assert_eq!(rig.stop(9, 15, 10_000).await, Exit::Signal(15), "asked again, it says so again");
    });
}

#[test]
fn a_task_finds_what_it_is_promised_and_nothing_else() {
    on_a_node(async |rig, folder| {
        let mut wanted = shell(3, "pwd; env; ls /proc/self/fd; cat; grep Sig /proc/self/status; ps -o sid= -p $$ 2>/dev/null; echo end");
        wanted.spec.cwd = Some(folder.display().to_string());
        wanted.spec.env = [("GREETING", "hello"), ("DISCO_TASK", "forged")].map(|(name, value)| (name.into(), value.into())).into();
        wanted.spec.ports = [80, 443].map(|port| PortSpec { port, public: None, udp: port == 443 }).into();
        let (_, ports) = rig.start(wanted).await;
        assert_eq!(rig.ended().await, Exit::Code(0));
        let text: Vec<String> = rig
            .lines(Wanted { service: "web".into(), ..Wanted::default() })
            .into_iter()
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect();
        assert_eq!(text[0], folder.canonicalize().expect("it is there").display().to_string());
        let has = |line: &str| text.iter().any(|other| other == line);
        for line in ["GREETING=hello", "DISCO_SERVICE=web", "DISCO_TASK=web.3", "DISCO_ADDRESS=127.0.0.1", "DISCO_NODE_NAME=n1"] {
            assert!(has(line), "{line} is missing in {text:#?}");
        }
        let (first, second) = (ports[&80], ports[&443]);
        assert!(first != second && has(&format!("PORT={first}")) && has(&format!("DISCO_PORT_443={second}")), "{text:#?}");
        assert!(!text.iter().any(|line| line.starts_with("CARGO")), "the daemon's own variables stay with it");
        assert!(!has("4"), "only stdio, and 3 for `ls` itself: {text:#?}");
        assert!(has("SigBlk:\t0000000000000000") && has("SigIgn:\t0000000000000000"), "{text:#?}");
    });
}

#[test]
fn a_command_that_cannot_start_is_named_with_the_reason() {
    on_a_node(async |rig, folder| {
        let plain = folder.join("plain");
        fs::write(&plain, "text").expect("the disk works");
        let plain = plain.display().to_string();
        let mut homeless = shell(4, "true");
        homeless.spec.cwd = Some("/nowhere/at/all".into());
        let mut somebody = shell(5, "true");
        somebody.spec.user = Some("nobody-of-that-name".into());
        let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = busy.local_addr().expect("it is bound").port();
        let mut taken = shell(6, "true");
        taken.spec.ports = vec![PortSpec { port: 80, public: Some(port), udp: false }];
        let cases = [
            (order(1, &["/no/such/program"]), vec!["/no/such/program", "No such file"]),
            (order(2, &[&plain]), vec![plain.as_str(), "Permission denied"]),
            (order(3, &["no-such-program"]), vec!["`no-such-program`", "PATH"]),
            (homeless, vec!["/nowhere/at/all", "No such file"]),
            (somebody, vec!["`nobody-of-that-name`"]),
            (taken, vec!["port", "taken"]),
        ];
        for (order, words) in cases {
            let number = order.number.0;
            rig.call_start(order);
            match rig.event().await {
                (told, TaskEvent::NotStarted { why }) if told == number => {
                    assert!(words.iter().all(|word| why.contains(word)), "{why:?} lacks one of {words:?}");
                }
                other => panic!("it should not start: {other:?}"),
            }
        }
    });
}

#[test]
fn a_task_keeps_its_port_over_restarts() {
    on_a_node(async |rig, _| {
        let with_port = |number| {
            let mut order = shell(number, "sleep 1000");
            order.spec.ports = vec![PortSpec { port: 80, public: None, udp: false }];
            order
        };
        let (_, first) = rig.start(with_port(1)).await;
        let (_, other) = rig.start(with_port(2)).await;
        assert_ne!(first, other);
        rig.stop(1, 9, 0).await;
        let (_, again) = rig.start(with_port(1)).await;
        assert_eq!(again, first);
        rig.stop(1, 9, 0).await;
        let _busy = std::net::TcpListener::bind(("127.0.0.1", first[&80])).expect("it is free again");
        let (_, moved) = rig.start(with_port(1)).await;
        assert_ne!(moved, first, "somebody else took it meanwhile");
        rig.stop(1, 9, 0).await;
        rig.stop(2, 9, 0).await;
    });
}

#[test]
fn a_task_that_ignores_its_end_is_ended_with_all_it_started() {
    on_a_node(async |rig, _| {
        // One child in its session, one that left it, one that also gave up its environment and its parent.
        let script = "trap '' TERM; sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (setsid sleep 1002 & echo $!); echo ready; while :; do sleep 1003; done";
        let (pid, _) = rig.start(shell(1, script)).await;
        rig.line(1, |line| line == "ready");
        let log = fs::read_to_string(rig.folder.join("1/log")).expect("it has a log");
        let children: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
        assert_eq!(children.len(), 3, "{log}");
        let before = Instant::now();
        assert_eq!(rig.stop(1, 15, 300).await, Exit::Signal(9));
        assert!(before.elapsed() >= Duration::from_millis(300), "it had its time");
        for child in children.into_iter().chain([pid]) {
            until("nothing of it runs", BOUND, || (!lives(child)).then_some(()));
        }
        // The first process ends by itself and leaves one behind.
        rig.start(shell(2, "setsid sleep 1004 & echo $!")).await;
        assert_eq!(rig.ended().await, Exit::Code(0));
        let left: u32 = rig.line(2, |_| true).parse().expect("a pid");
        assert!(!lives(left), "Ended says that nothing runs any more");
    });
}

#[test]
fn without_a_cgroup_a_task_is_ended_entirely_too() {
    on_a_node(async |rig, _| {
        // One that keeps the session but not the variables, one the other way round.
        let script = "env -i sleep 1000 & echo $!; setsid sleep 1001 & echo $!; echo ready; sleep 1002";
        let (pid, _) = rig.start(shell(1, script)).await;
        rig.line(1, |line| line == "ready");
        let log = fs::read_to_string(rig.folder.join("1/log")).expect("it has a log");
        let children: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
        let bystander = Command::new("sleep").arg("1003").env("DISCO_TASK", "web.1").spawn().map(AgentSide).expect("it starts");
        let mut task = all_in(&rig.folder).expect("it can be listed").remove(0);
        task.cgroup = None;
        sweep(&task, true).expect("they are ours to end");
        assert!(children.len() == 2 && children.iter().all(|pid| !lives(*pid)) && !lives(pid), "{log}");
        assert!(lives(bystander.0.id()), "another node's task of the same name lives on");
        assert_eq!(rig.ended().await, Exit::Signal(9));
    });
}

#[test]
fn many_starts_and_stops_leave_nothing() {
    on_a_node(async |rig, _| {
        let descriptors = || fs::read_dir("/proc/self/fd").expect("it can be listed").count();
        let mut after_some = (0, 0);
        for number in 1..=200 {
            let (pid, _) = rig.start(shell(number, "echo up; exec sleep 1000")).await;
            if number == 200 {
                rig.line(number, |line| line == "up");
            }
            rig.stop(number, 15, 5_000).await;
            assert!(!lives(pid));
            rig.runtime.carry_out(TaskCall::Forget { number: TaskNumber(number) });
            if number == 50 {
                after_some = (descriptors(), anonymous_kib());
            }
        }
        // Forgetting answers nothing; a start after it does.
        rig.start(shell(1000, "true")).await;
        rig.ended().await;
        let (then, kib) = after_some;
        assert!(descriptors() <= then + 4, "{} descriptors, {then} after 50 tasks", descriptors());
        assert!(anonymous_kib() <= kib + 1024, "{} KiB, {kib} after 50 tasks", anonymous_kib());
        let mut left: Vec<String> = fs::read_dir(&rig.folder)
            .expect("it can be listed")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["1000", "forgotten"]);
        assert_eq!(fs::read_dir(rig.folder.join("forgotten")).expect("it can be listed").count(), limits::TASK_LOGS_KEPT);
        let newest = rig.lines(Wanted { service: "web".into(), task: "web.200".into(), ..Wanted::default() });
        assert_eq!(newest.len(), 1, "a forgotten task's log can still be read");
    });
}

fn anonymous_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("it can be read");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel says so");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Another process of this test program, in which `agent_side` does its part.
struct AgentSide(Child);

impl AgentSide {
    fn begin(part: &str, folder: &Path, node: NodeId) -> (AgentSide, Vec<String>) {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "agent_side", "--nocapture"])
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

#[test]
fn a_log_is_bounded_at_a_line_and_knows_when_lines_came() {
    on_a_node(async |rig, _| {
        let enough = limits::TASK_LOG_BYTES_MAX * 3 / 100;
        let line = "x".repeat(90);
        let script = format!("i=0; while [ $i -lt {enough} ]; do echo \"$i {line}\"; i=$((i+1)); done; echo done; sleep 1000");
        rig.start(shell(1, &script)).await;
        let log = LogFile::in_folder(&rig.folder.join("1"));
        let tail = || rig.lines(Wanted { service: "web".into(), tail: 1, ..Wanted::default() });
        let woken = rig.runtime.logs.follow().expect("nobody else follows");
        let begun = Instant::now();
        while tail().first().is_none_or(|line| line.text != b"done") {
            assert!(begun.elapsed() < BOUND * 3, "it is still writing");
            let later = async {
                async_io::Timer::after(Duration::from_secs(1)).await;
                Ok(())
            };
            let _ = woken.recv().or(later).await;
        }
        log.look(u64::MAX).expect("the disk works");
        let (begin, length) = (log.begin().expect("it can be read"), log.length().expect("it can be read"));
        assert!(length - begin <= limits::TASK_LOG_BYTES_MAX, "{begin} to {length}");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&log.log).expect("it is there")) * 512;
        assert!(blocks <= limits::TASK_LOG_BYTES_MAX + 64 * 1024, "{blocks} bytes on disk");
        let lines = rig.lines(Wanted { service: "web".into(), ..Wanted::default() });
        assert!(lines[0].text.ends_with(line.as_bytes()) && lines[0].text[0].is_ascii_digit(), "the first line is whole");
        assert!(lines.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms), "times do not go back");
        let (first, last) = (lines[0].at_ms, lines[lines.len() - 1].at_ms);
        let since = rig.lines(Wanted { service: "web".into(), since_ms: last, ..Wanted::default() });
        assert!(since.len() <= lines.len() && since.iter().all(|line| line.at_ms >= last), "{first} to {last}");
        rig.stop(1, 9, 0).await;
    });
}

#[test]
fn lines_of_several_tasks_come_in_time_order_and_can_be_followed() {
    on_a_node(async |rig, _| {
        let woken = rig.runtime.logs.follow().expect("nobody else follows");
        for (number, text) in [(1, "one"), (2, "two"), (3, "three")] {
            rig.start(shell(number, &format!("echo {text}; printf rest"))).await;
            rig.ended().await;
        }
        let mut other = shell(4, "echo four");
        other.service = "db".into();
        rig.start(other).await;
        rig.ended().await;
        let text = |lines: Vec<Line>| {
            lines.into_iter().map(|line| format!("{} {}", line.task, String::from_utf8_lossy(&line.text))).collect::<Vec<_>>()
        };
        let all = text(rig.lines(Wanted { service: "web".into(), ..Wanted::default() }));
        assert_eq!(all, ["web.1 one", "web.1 rest", "web.2 two", "web.2 rest", "web.3 three", "web.3 rest"]);
        for task in ["web.2", "2"] {
            let one = rig.lines(Wanted { service: "web".into(), task: task.into(), tail: 1, ..Wanted::default() });
            assert_eq!(text(one), ["web.2 rest"]);
        }
        let mut follower =
            Reader::open(rig.runtime.logs.clone(), Wanted { service: "web".into(), follow: true, ..Wanted::default() }).expect("it opens");
        let told: BTreeSet<String> = std::iter::from_fn(|| follower.next().expect("it reads")).map(|line| line.task).collect();
        assert_eq!(told.len(), 3, "and the lines without an end are held back");
        while woken.try_recv().is_ok() {}
        rig.start(shell(5, "echo five; exec sleep 1000")).await;
        let five = loop {
            woken.recv().await.expect("the runtime lives");
            follower.find_new().expect("it reads");
            if let Some(line) = follower.next().expect("it reads") {
                break line;
            }
        };
        assert_eq!((five.task.as_str(), five.text.as_slice()), ("web.5", &b"five"[..]));
        rig.stop(5, 9, 0).await;
    });
}

#[test]
fn what_a_dead_daemon_recorded_can_be_ended_from_outside() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (agent, words) = AgentSide::begin("tasks", folder.path(), fresh_node());
    agent.kill();
    agent::drivers::runtime::end_recorded(&folder.path().join("tasks"), Duration::from_secs(5)).expect("they are ours to end");
    assert!(words.iter().all(|pid| !lives(pid.parse().expect("a pid"))));
    agent::drivers::runtime::end_recorded(&folder.path().join("nothing"), Duration::ZERO).expect("no folder, no tasks");
    let _ = Tasks::open(folder.path().join("tasks"), fresh_node()).expect("the folder stays usable");
}
