//! Real daemons from nothing: one that makes a cluster, then others that join it.

mod common;

use agent::drivers::syscall::{self, ProcessHandle, SIGHUP};
use common::{BOUND, Daemon, block_on, until};
use proto::{Channel, ChannelLimits, v1};
use std::{fs, time::Instant};

#[test]
fn one_node_originates_leads_and_keeps_its_state_over_a_restart() {
    let mut node = Daemon::originate();
    let before = node.until("it leads", |status| status.leader.is_some() && status.nodes.iter().all(|node| node.state == "ready"));
    assert_eq!((before.cluster.as_str(), before.nodes.len()), ("test", 1));
    node.set("greeting", "hello").expect("a leader writes");
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));

    let second = node.command().output().expect("discod starts");
    assert_eq!(second.status.code(), Some(2), "a second daemon on the same data dir is refused");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.starts_with("error: ") && words.contains(&node.pid().to_string()), "{words}");

    assert_eq!(node.stop().code(), Some(0), "SIGTERM is no failure; log:\n{}", node.log());
    node.start();
    let after = node.until("it leads again", |status| status.leader.is_some());
    assert_eq!((after.cluster_id, after.leader), (before.cluster_id.clone(), before.leader.clone()));
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));

    node.kill();
    node.start();
    node.until("it leads after kill -9", |status| status.leader == before.leader);
    assert_eq!(node.value("greeting").expect("a leader reads").as_deref(), Some("hello"));
}

#[test]
fn nodes_join_by_token_and_become_managers() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let others: Vec<Daemon> = ["n2", "n3"].iter().map(|name| Daemon::join(name, &first.token("manager"), &[&first.address])).collect();
    let managers = |status: &v1::Status| status.nodes.iter().filter(|node| node.role == "manager" && node.state == "ready").count();
    let status = first.until("three ready managers", |status| managers(status) == 3);
    assert_eq!(status.voters.len(), 3);

    first.set("k", "v").expect("a quorum writes");
    for node in &others {
        assert_eq!(node.value("k").expect("a follower reads or forwards").as_deref(), Some("v"));
        node.set("from", &node.address).expect("a follower forwards");
    }
    assert_eq!(first.value("from").expect("the leader reads"), Some(others[1].address.clone()));
}

#[test]
fn a_watcher_hears_of_each_change_once() {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    let query = Some(v1::read_request::Query::KvGet(v1::KvGet { key: "k".into() }));
    let value = |reply: v1::ReadReply| match reply.result {
        Some(v1::read_reply::Result::KvValue(kv)) => kv.value.map(|bytes| String::from_utf8(bytes).expect("tests write text")),
        other => panic!("watched a key, got {other:?}"),
    };
    block_on(async |spawner| {
        let mut disco = Channel::unix(spawner, node.data().join("control.sock"), ChannelLimits::default()).disco();
        let mut watch = disco.watch(v1::ReadRequest { stale: false, query }).await.expect("there is room").into_inner();
        assert_eq!(value(watch.message().await.expect("it lives").expect("at once")), None);
        for (number, text) in (1..).zip(["one", "two", "three"]) {
            for (key, text) in [("other", text), ("k", text)] {
                let op = Some(v1::write_request::Op::KvSet(v1::KvSet { key: key.into(), value: text.into() }));
                disco.write(v1::WriteRequest { client: 1, sequence: number * 2 + u64::from(key == "k"), op }).await.expect("it leads");
            }
            assert_eq!(value(watch.message().await.expect("it lives").expect("it changed")).as_deref(), Some(text));
        }
    });
}

#[test]
fn sighup_reads_the_log_filter_again() {
    let node = Daemon::originate();
    node.until("it leads", |status| status.leader.is_some());
    let path = node.folder().join("disco.toml");
    let config = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, format!("log = \"debug\"\n{config}")).expect("the disk works");
    let process = ProcessHandle::open(node.pid(), syscall::process_started(node.pid()).expect("it runs"));
    assert!(process.expect("it is ours").expect("it runs").signal(SIGHUP).expect("it is ours"));
    until("it says so", BOUND, || node.log().contains("reloaded the log filter").then_some(()));
    assert!(node.status().is_ok(), "it goes on");
}

#[test]
fn detached_it_says_its_pid_and_outlives_its_starter() {
    let mut node = Daemon::new("originate = true\n");
    // The one that goes on keeps stderr as its log.
    let starter = node.command().arg("--detach").stderr(node.log_file()).output().expect("discod starts");
    assert_eq!(starter.status.code(), Some(0), "{}", node.log());
    let pid: u32 = String::from_utf8_lossy(&starter.stdout).trim().parse().expect("a pid");
    node.adopt(pid);
    node.until("it leads", |status| status.leader.is_some());
    let again = node.command().arg("--detach").output().expect("discod starts");
    assert_eq!(again.status.code(), Some(2), "the folder is taken");
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(words.starts_with("error: ") && words.contains(&pid.to_string()), "{words}");
    let began = Instant::now();
    node.end_adopted();
    assert!(began.elapsed() < BOUND);
}
