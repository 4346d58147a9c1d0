//! Tasks as real processes: started, watched, found again, ended with all they started, and their logs.

#[path = "../common/mod.rs"]
mod common;
mod crash;
mod logs;
mod rig;

use agent::{
    drivers::runtime::{
        lines::Wanted,
        process::{record::all_in, sweep::sweep},
    },
    model::{
        limits,
        service::PortSpec,
        task::{Exit, TaskCall, TaskEvent, TaskNumber},
    },
};
use common::{BOUND, until};
use crash::AgentSide;
use rig::{alone_on_a_node, lives, on_a_node, order, shell};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

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
    alone_on_a_node(async |rig, _| {
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

#[test]
fn a_paused_task_stands_still_goes_on_and_can_be_stopped() {
    on_a_node(async |rig, _| {
        // A start of what runs is answered at once: then the call before it is done.
        let pause = async |on| {
            rig.runtime.carry_out(TaskCall::Pause { number: TaskNumber(1), on });
            rig.call_start(shell(1, "true"));
            rig.event().await;
        };
        let (pid, _) = rig.start(shell(1, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")).await;
        // In a frozen cgroup a process sleeps; without one it is stopped. Either way it is not scheduled: no more children.
        let child = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pause(true).await;
        let still = || {
            let before = child();
            std::thread::park_timeout(Duration::from_millis(300));
            (child() == before).then_some(())
        };
        until("it stands still", BOUND, still);
        pause(false).await;
        let before = child();
        until("it goes on", BOUND, || (child() != before).then_some(()));
        pause(true).await;
        pause(false).await;
        assert_eq!(rig.stop(1, 15, 10_000).await, Exit::Code(0), "it heard the signal");
    });
}
