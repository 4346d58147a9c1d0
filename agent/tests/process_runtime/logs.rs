//! What tasks write, and how it is read back.

use crate::{
    common::BOUND,
    rig::{on_a_node, shell},
};
use agent::{
    drivers::runtime::{
        lines::{Line, Reader, Wanted},
        log_file::LogFile,
    },
    model::limits,
};
use futures_lite::{FutureExt, future::block_on};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

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
        let told: BTreeSet<String> =
            std::iter::from_fn(|| block_on(follower.next_line()).expect("it reads")).map(|line| line.task).collect();
        assert_eq!(told.len(), 3, "and the lines without an end are held back");
        while woken.try_recv().is_ok() {}
        rig.start(shell(5, "echo five; exec sleep 1000")).await;
        let five = loop {
            woken.recv().await.expect("the runtime lives");
            follower.find_new().expect("it reads");
            if let Some(line) = follower.next_line().await.expect("it reads") {
                break line;
            }
        };
        assert_eq!((five.task.as_str(), five.text.as_slice()), ("web.5", &b"five"[..]));
        rig.stop(5, 9, 0).await;
    });
}
