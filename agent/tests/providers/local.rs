//! The local provider, beyond what all promise, with a stand-in for `discod`: a shell script that detaches, waits for its record, says it started, and sleeps.

use crate::conformance::{self, Stage};
use agent::{
    drivers::{
        process::ProcessRecord,
        provider::{First, Launched, LocalProvider, Provider, address_of, carry_out},
    },
    model::{
        ids::{ClusterId, OperationId},
        instance::InstanceState,
        io::{Provided, ProviderCall},
        query::LaunchRequest,
    },
};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);
const LAUNCHER: &str = "LOCAL_PROVIDER_LAUNCHER";

/// A project whose instances end with it.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Project {
        Project::with_task("exec sleep 1000")
    }

    /// `task` is what the stand-in does once it was told to go.
    fn with_task(task: &str) -> Project {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A background process of sh has no stdin unless it is handed one by another number.
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = '--detach --await-record --config' ] || exit 9\n[ -r \"$4\" ] || exit 8\nexec 3<&0\n\
             (read go <&3 || exit 0; exec 3<&-; cd {}; exec sh -c 'echo $$ >>started; {task}') >/dev/null &\necho $!\n",
            folder.path().display()
        );
        let program = folder.path().join("stand-in");
        fs::write(&program, script).expect("writable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        Project { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join(".disco")
    }

    fn provider(&self) -> LocalProvider {
        provider(self.folder.path())
    }

    fn instance(&self, id: &str) -> PathBuf {
        self.root().join("instances").join(id)
    }

    fn process(&self, id: &str) -> Option<ProcessRecord> {
        ProcessRecord::read(&self.instance(id).join("pid")).expect("readable")
    }

    /// Every process that ever got as far as being a daemon.
    fn started(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.path().join("started")).unwrap_or_default();
        text.lines().map(|pid| pid.parse().expect("the stand-in writes pids")).collect()
    }

    fn alive(&self) -> Vec<u32> {
        self.started().into_iter().filter(|pid| ProcessRecord::of(*pid).expect("/proc works").is_some()).collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        for instance in self.provider().describe().unwrap_or_default() {
            let _ = self.provider().terminate(&instance.id);
        }
    }
}

fn provider(folder: &Path) -> LocalProvider {
    LocalProvider::new(folder.join(".disco"), CLUSTER, "demo".into(), folder.join("stand-in"))
}

fn request(ordinal: u32) -> LaunchRequest {
    LaunchRequest {
        operation: OperationId { cluster: CLUSTER, epoch: 1, index: u64::from(ordinal) * 10 },
        ordinal,
        cluster_name: "demo".into(),
        ca: vec![],
        token: "DISCO1-digest-secret".into(),
        seeds: vec![address_of(CLUSTER, 1)],
        parameters: Default::default(),
    }
}

fn states(project: &Project) -> Vec<(String, InstanceState)> {
    project.provider().describe().expect("readable").into_iter().map(|seen| (seen.id, seen.state)).collect()
}

#[test]
fn addresses_are_loopback_and_differ_by_cluster_and_ordinal() {
    let mut seen = std::collections::BTreeSet::new();
    for cluster in [0, 1, 190, 191, 0x0123_4567_89ab_cdef, u64::MAX].map(ClusterId) {
        for ordinal in [1, 2, 249] {
            let address: std::net::SocketAddrV4 = address_of(cluster, ordinal).parse().expect("an address");
            let [first, a, _, c] = address.ip().octets();
            assert!(first == 127 && (64..=254).contains(&a) && (1..=250).contains(&c) && address.port() == 5080, "{address}");
            assert!(seen.insert(address), "{address} twice");
        }
    }
    let many: std::collections::BTreeSet<String> = (1..=2000).map(|ordinal| address_of(CLUSTER, ordinal)).collect();
    assert_eq!(many.len(), 2000);
}

#[test]
fn the_first_instance_originates_and_the_others_join() {
    let project = Project::new();
    let first = project.provider().launch_first(&First::default()).expect("it launches");
    let operation = OperationId { cluster: CLUSTER, epoch: 0, index: 0 };
    assert_eq!(first, Launched { operation, id: "i-1".into(), address: address_of(CLUSTER, 1) });
    project.provider().launch(&request(2)).expect("it launches");

    let config =
        |id: &str| fs::read_to_string(project.instance(id).join("disco.toml")).expect("readable").parse::<toml::Table>().expect("TOML");
    let (first, second) = (config("i-1"), config("i-2"));
    assert_eq!(first["originate"].as_bool(), Some(true));
    assert!(!second.contains_key("originate") && !first.contains_key("token"));
    assert_eq!(second["token"].as_str(), Some("DISCO1-digest-secret"));
    assert_eq!(second["seeds"].as_array().map(Vec::len), Some(1));
    for (config, n) in [(&first, 1), (&second, 2)] {
        assert_eq!(config["name"].as_str(), Some(format!("n{n}").as_str()));
        assert_eq!(config["instance"].as_str(), Some(format!("i-{n}").as_str()));
        assert_eq!(config["listen"].as_str(), Some(address_of(CLUSTER, n).as_str()));
        assert_eq!(config["cluster_id"].as_str(), Some("0123456789abcdef"));
    }
    let mode = fs::metadata(project.instance("i-2").join("disco.toml")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds a token");
    assert_eq!(states(&project), [("i-1".into(), InstanceState::Running), ("i-2".into(), InstanceState::Running)]);
}

#[test]
fn repeating_a_call_changes_nothing() {
    let project = Project::new();
    let provider = project.provider();
    let launched = provider.launch(&request(2)).expect("it launches");
    let process = project.process("i-2");
    assert_eq!(provider.launch(&request(2)).expect("the same operation"), launched);
    provider.start("i-2").expect("it runs already");
    assert_eq!(project.process("i-2"), process, "it was not started again");

    let other = LaunchRequest { operation: OperationId { index: 99, ..request(2).operation }, ..request(2) };
    let Provided::Failed { why, final_: true } = carry_out(&provider, &ProviderCall::Launch(other)) else {
        panic!("an ordinal is one operation's")
    };
    assert!(why.contains("i-2") && why.contains(&request(2).operation.to_string()), "{why}");

    for _ in 0..2 {
        provider.stop("i-2").expect("it stops");
        assert_eq!(states(&project), [("i-2".into(), InstanceState::Stopped)]);
    }
    provider.start("i-2").expect("it starts again");
    assert_ne!(project.process("i-2"), process);
    assert_eq!(states(&project), [("i-2".into(), InstanceState::Running)]);

    for _ in 0..2 {
        provider.terminate("i-2").expect("it ends");
        assert_eq!(states(&project), []);
    }
    assert_eq!(project.alive(), [0u32; 0]);
    let Provided::Failed { why, final_: true } = carry_out(&provider, &ProviderCall::Launch(request(2))) else {
        panic!("it was terminated")
    };
    assert!(why.contains("terminated"), "{why}");
    provider.terminate("i-77").expect("what was never there has ended");
}

#[test]
fn bad_names_and_unknown_instances_are_refused_by_name() {
    let project = Project::new();
    for id in ["", "i-", "i-02", "../i-1", "i-1/..", "n1"] {
        for call in [ProviderCall::Start { id: id.into() }, ProviderCall::Stop { id: id.into() }, ProviderCall::Terminate { id: id.into() }]
        {
            assert!(
                matches!(carry_out(&project.provider(), &call), Provided::Failed { final_: true, why } if why.contains(&format!("`{id}`"))),
                "{id}"
            );
        }
    }
    assert!(
        matches!(carry_out(&project.provider(), &ProviderCall::Start { id: "i-9".into() }), Provided::Failed { final_: true, why } if why.contains("i-9"))
    );
}

#[test]
fn what_a_killed_call_left_behind_is_continued() {
    let project = Project::new();
    let provider = project.provider();
    let half = project.root().join("instances/.i-2.new");
    fs::create_dir_all(&half).expect("creatable");
    fs::write(half.join("instance.json"), b"{").expect("writable");
    provider.launch(&request(2)).expect("a folder that got no name is made again");
    assert!(!half.exists());

    provider.stop("i-2").expect("it stops");
    fs::remove_file(project.instance("i-2").join("pid")).expect("there");
    assert_eq!(states(&project), [("i-2".into(), InstanceState::Pending)]);
    provider.launch(&request(2)).expect("a folder without a process is started");
    assert_eq!(states(&project), [("i-2".into(), InstanceState::Running)]);

    // A termination that died after its tombstone: the launch is refused, another termination finishes.
    fs::write(project.root().join("instances/i-2.terminated"), request(2).operation.to_string()).expect("writable");
    provider.launch(&request(2)).expect_err("terminated");
    provider.start("i-2").expect_err("terminated");
    provider.terminate("i-2").expect("it ends");
    assert_eq!((states(&project), project.alive()), (vec![], vec![]));

    let old = project.root().join("instances/.i-2.old");
    fs::create_dir_all(old.join("data")).expect("creatable");
    provider.terminate("i-2").expect("nothing left");
    assert!(!old.exists());
}

#[test]
fn a_pid_of_somebody_else_is_neither_taken_for_ours_nor_killed() {
    let project = Project::new();
    let provider = project.provider();
    provider.launch(&request(2)).expect("it launches");
    provider.stop("i-2").expect("it stops");
    let mut bystander = Bystander(Command::new("sleep").arg("1000").spawn().expect("sleep exists"));
    let living = ProcessRecord::of(bystander.0.id()).expect("/proc works").expect("it lives");
    for record in [ProcessRecord { started: living.started + 1, ..living.clone() }, ProcessRecord { boot: "another".into(), ..living }] {
        record.write(&project.instance("i-2").join("pid")).expect("writable");
        assert_eq!(states(&project), [("i-2".into(), InstanceState::Stopped)]);
        provider.stop("i-2").expect("nothing runs");
    }
    assert!(bystander.0.try_wait().expect("ours").is_none(), "it was killed");

    // A leader that was given the number of an instance that had ended does not take itself for it.
    let us = ProcessRecord::of(std::process::id()).expect("/proc works").expect("we live");
    assert!(us.is_ours());
    ProcessRecord { started: us.started - 1, ..us }.write(&project.instance("i-2").join("pid")).expect("writable");
    provider.terminate("i-2").expect("nothing runs");
    assert!(!project.instance("i-2").exists(), "its folder is left");
}

/// Ends with the test, however that ends.
struct Bystander(std::process::Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn an_instance_that_ignores_sigterm_is_killed() {
    let project = Project::with_task("trap \"\" TERM; echo deaf >>deaf; while :; do sleep 1; done");
    let provider = project.provider();
    provider.launch(&request(2)).expect("it launches");
    let deaf = project.folder.path().join("deaf");
    let bound = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !deaf.exists() {
        assert!(std::time::Instant::now() < bound, "the stand-in never came up");
        std::thread::yield_now();
    }
    provider.stop("i-2").expect("it is killed");
    assert_eq!((states(&project), project.alive()), (vec![("i-2".into(), InstanceState::Stopped)], vec![]));
}

#[test]
fn a_program_that_fails_says_so_and_points_to_its_log() {
    let project = Project::new();
    fs::write(project.folder.path().join("stand-in"), "#!/bin/sh\necho 'unknown key `nam`' >&2\nexit 2\n").expect("writable");
    let Provided::Failed { why, final_: false } = carry_out(&project.provider(), &ProviderCall::Launch(request(3))) else {
        panic!("it cannot start")
    };
    assert!(why.contains("i-3/discod") && why.contains("discod.log"), "{why}");
    let log = fs::read_to_string(project.instance("i-3").join("discod.log")).expect("readable");
    assert!(log.contains("unknown key"), "{log}");
}

#[test]
fn a_log_that_grew_too_large_keeps_its_newest_half() {
    let project = Project::new();
    project.provider().launch(&request(2)).expect("it launches");
    project.provider().stop("i-2").expect("it stops");
    let log = project.instance("i-2").join("discod.log");
    let lines: String = (0..80_000).map(|n| format!("line {n:010}\n")).collect();
    fs::write(&log, &lines).expect("writable");
    project.provider().start("i-2").expect("it starts");
    let kept = fs::read_to_string(&log).expect("readable");
    assert!(kept.len() <= 512 * 1024 && kept.starts_with("line ") && lines.ends_with(&kept), "{} bytes", kept.len());
}

/// The body of the process that the next test kills: nothing to do unless it was started as one.
#[test]
fn launcher() {
    let Ok(folder) = env::var(LAUNCHER) else { return };
    provider(Path::new(&folder)).launch(&request(2)).expect("it launches");
}

fn start_launcher(project: &Project) -> std::process::Child {
    let program = env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(program);
    command.args(["local::launcher", "--exact"]).env(LAUNCHER, project.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the test program starts again")
}

#[test]
fn a_launch_killed_at_any_moment_and_repeated_leaves_one_instance() {
    let mut seed: u64 = 7;
    for round in 0..25 {
        let project = Project::new();
        let mut launcher = start_launcher(&project);
        // Chance is a seed: how long we look away before the kill.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..(seed >> 33) % 6000 {
            std::thread::yield_now();
        }
        launcher.kill().and_then(|()| launcher.wait().map(|_| ())).expect("ours");
        project.provider().launch(&request(2)).expect("the repetition succeeds");
        let recorded = project.process("i-2").expect("recorded").pid;
        let bound = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !project.started().contains(&recorded) {
            assert!(std::time::Instant::now() < bound, "round {round}: {recorded} never started");
            std::thread::yield_now();
        }
        assert_eq!(project.alive(), [recorded], "round {round}");
        assert_eq!(states(&project), [("i-2".into(), InstanceState::Running)]);
    }
}

#[test]
fn launches_at_once_start_one_instance() {
    let project = Project::new();
    let mut launchers: Vec<_> = (0..4).map(|_| start_launcher(&project)).collect();
    for launcher in &mut launchers {
        assert!(launcher.wait().expect("ours").success());
    }
    let recorded = project.process("i-2").expect("recorded").pid;
    let bound = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while project.started().is_empty() {
        assert!(std::time::Instant::now() < bound, "it never started");
        std::thread::yield_now();
    }
    assert_eq!(project.started(), [recorded]);
}

struct Here(Project);

impl Stage for Here {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(self.0.provider())
    }

    fn request(&self, ordinal: u32) -> LaunchRequest {
        request(ordinal)
    }

    fn billed(&self) -> usize {
        self.0.alive().len()
    }

    fn lose_next_answer(&self) {
        // Nothing is between us and the disk: an answer that nobody heard is one that we forget.
        let _ = self.provider().launch(&self.request(2));
    }
}

#[test]
fn it_keeps_what_every_provider_promises() {
    conformance::hold_to_it(|| Here(Project::new()));
}
