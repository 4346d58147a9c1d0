//! Starts the test cloud once, and gives it to one test at a time, clean.

use sigv4_ec2::{Client, Clock, Credentials, Environment, RunInstances, Tags};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// One test's turn.
pub struct Cloud {
    pub said: &'static BTreeMap<String, String>,
    _turn: MutexGuard<'static, ()>,
}

struct Running {
    said: BTreeMap<String, String>,
    /// The cloud ends when this ends, which it does with this process, however that ends.
    _keep: (Mutex<Child>, ChildStdin),
}

impl Cloud {
    /// Waits for its turn; nothing is faulty, slow or logged.
    pub fn take() -> Cloud {
        static TURN: Mutex<()> = Mutex::new(());
        static CLOUD: OnceLock<Running> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cloud = Cloud { said: &CLOUD.get_or_init(start).said, _turn: turn };
        cloud.order("DELETE", "/faults", "");
        cloud.order("POST", "/settings", r#"{"lag": 0, "page": 0, "clock_ahead": 0}"#);
        cloud.order("DELETE", "/log", "");
        cloud
    }

    pub fn said(&self, name: &str) -> &'static str {
        self.said.get(name).unwrap_or_else(|| panic!("the cloud says {name}"))
    }

    /// Tells the proxy something (see scripts/cloud/proxy.py).
    pub fn order(&self, method: &str, path: &str, body: &str) -> String {
        let url = format!("{}{path}", self.said("CLOUD_ORDERS"));
        let answer = match method {
            "GET" => ureq::get(&url).call(),
            "DELETE" => ureq::delete(&url).call(),
            _ => ureq::post(&url).send(body),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        answer.body_mut().with_config().limit(64 << 20).read_to_string().expect("the proxy answers")
    }

    pub fn fault(&self, action: &str, kind: &str, times: u32) {
        self.order("POST", "/faults", &format!(r#"{{"action": "{action}", "kind": "{kind}", "times": {times}}}"#));
    }

    /// Requests of an action that the proxy saw since this test's turn began.
    pub fn seen(&self, action: &str) -> Vec<serde_json::Value> {
        let log: Vec<serde_json::Value> = serde_json::from_str(&self.order("GET", "/log", "")).expect("the log is JSON");
        log.into_iter().filter(|entry| entry["action"] == action).collect()
    }

    /// A client of the user whose keys have this prefix; `AWS` may do what a cluster needs (scripts/cloud/policy.json).
    pub fn client_of(&self, user: &str, clock: &Arc<TestClock>) -> Client {
        let said = |name: &str| self.said(&format!("{user}_{name}"));
        let credentials = Credentials::new(said("ACCESS_KEY_ID"), said("SECRET_ACCESS_KEY"), None);
        self.builder(clock).credentials(credentials).build().expect("the settings are good")
    }

    /// Of somebody who may do everything.
    pub fn client(&self) -> Client {
        self.client_of("ADMIN", &TestClock::at(0))
    }

    pub fn builder(&self, clock: &Arc<TestClock>) -> sigv4_ec2::Builder {
        let environment = Environment::from_iter([("AWS_ENDPOINT_URL_EC2", self.said("AWS_ENDPOINT_URL_EC2"))]);
        let builder = Client::builder(self.said("AWS_REGION")).environment(environment).clock(Shared(Arc::clone(clock)));
        builder.endpoint(self.said("AWS_ENDPOINT_URL_EC2"))
    }

    /// Runs Python with boto3; the environment is this cloud's, as the administrator.
    pub fn python(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(self.said("CLOUD_PYTHON"));
        command.args(["-c", program]).args(arguments).envs(self.said);
        command
            .env("AWS_ACCESS_KEY_ID", self.said("ADMIN_ACCESS_KEY_ID"))
            .env("AWS_SECRET_ACCESS_KEY", self.said("ADMIN_SECRET_ACCESS_KEY"));
        let output = command.stderr(Stdio::inherit()).output().expect("Python starts");
        assert!(output.status.success(), "Python ends with {}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }
}

fn start() -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cloud/up");
    let mut child = Command::new(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {script}, which makes the test cloud: {error}"));
    let keep = child.stdin.take().expect("it is piped");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut said = BTreeMap::new();
    for line in lines {
        let line = line.expect("it prints text");
        match line.split_once('=') {
            Some((name, value)) => drop(said.insert(name.to_owned(), value.to_owned())),
            None if line == "ready" => return Running { said, _keep: (Mutex::new(child), keep) },
            None => {}
        }
    }
    let status = child.wait().expect("it is our child");
    panic!("the test cloud did not start: {script} ends with {status}; what it says stands above")
}

/// A clock that is off by some seconds, and does not really sleep.
#[derive(Debug)]
pub struct TestClock {
    ahead_secs: i64,
    slept_ms: AtomicU64,
}

impl TestClock {
    pub fn at(ahead_secs: i64) -> Arc<TestClock> {
        Arc::new(TestClock { ahead_secs, slept_ms: AtomicU64::new(0) })
    }

    pub fn slept(&self) -> Duration {
        Duration::from_millis(self.slept_ms.load(Ordering::SeqCst))
    }
}

#[derive(Debug)]
pub struct Shared(pub Arc<TestClock>);

impl Clock for Shared {
    fn now(&self) -> SystemTime {
        let by = Duration::from_secs(self.0.ahead_secs.unsigned_abs());
        if self.0.ahead_secs < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    fn since_start(&self) -> Duration {
        // Only sleeping takes time here: how often something is tried then depends on nothing else.
        self.0.slept()
    }

    fn sleep(&self, time: Duration) {
        self.0.slept_ms.fetch_add(time.as_millis().try_into().expect("it is seconds"), Ordering::SeqCst);
    }

    fn random(&self) -> u64 {
        u64::MAX / 2
    }
}

/// A name that no other test has.
pub fn name(of: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{of}-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

pub fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A launch that the cloud accepts, of a mark by which its instances are found again.
pub fn launch(mark: &str) -> RunInstances {
    let launch = RunInstances::new("ami-0a00000000000c602", "t4g.micro", mark);
    RunInstances { tags: tags(&[("mark", mark)]), ..launch }
}
