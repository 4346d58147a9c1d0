//! A daemon's log goes to a file that nobody rotates: it must not grow for ever.
//!
//! stderr belongs to a process, so the logging is done by this test program, started again with `LOG_FILE_CHILD` set.

use agent::{daemon::telemetry, model::limits::LOG_FILE_BYTES_MAX};
use std::{
    env, fs,
    fs::OpenOptions,
    process::{Command, Stdio},
};

const CHILD: &str = "LOG_FILE_CHILD";
const LINES: usize = 300;

/// The body of the logging process: nothing to do unless it was started as one.
#[test]
fn child() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    telemetry::start(telemetry::Filter::default());
    for n in 1..=LINES {
        log::info!("line {n} of {LINES}");
        log::debug!("not wanted");
    }
}

#[test]
fn a_log_file_keeps_its_newest_lines_and_stays_small() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("discod.log");
    let old = "an old line of some length, to fill the file\n".repeat(LOG_FILE_BYTES_MAX as usize / 45 + 100);
    fs::write(&path, &old).expect("writable");
    let log = OpenOptions::new().append(true).open(&path).expect("ours");
    let program = env::current_exe().expect("a test knows its own program");
    let status = Command::new(program).args(["child", "--exact", "--nocapture"]).env(CHILD, "1").stdout(Stdio::null()).stderr(log).status();
    assert!(status.expect("the test program starts again").success());

    let kept = fs::read_to_string(&path).expect("readable");
    assert!((kept.len() as u64) < LOG_FILE_BYTES_MAX / 4, "{} bytes", kept.len());
    assert!(kept.starts_with("an old line"), "it begins with a whole line");
    let new: Vec<&str> = kept.lines().filter_map(|line| line.split_once(" INFO  log_file: ")).map(|(_, text)| text).collect();
    assert_eq!(new.len(), LINES, "every new line is there");
    assert_eq!(new.last().copied(), Some("line 300 of 300"));
}
