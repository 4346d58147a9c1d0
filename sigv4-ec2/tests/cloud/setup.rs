//! Starts the test cloud once, and gives it to one test at a time, clean.

use crate::running::Running;
use sigv4_ec2::{Client, Clock, Environment, RunInstances, Tags};
use std::{
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// One test's turn.
pub struct Cloud {
    pub running: &'static Running,
    _turn: MutexGuard<'static, ()>,
}

impl Cloud {
    /// Waits for its turn; nothing is faulty, slow or logged.
    pub fn take() -> Cloud {
        static TURN: Mutex<()> = Mutex::new(());
        static CLOUD: OnceLock<Running> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cloud = Cloud { running: CLOUD.get_or_init(|| Running::start(&[])), _turn: turn };
        cloud.order("DELETE", "/faults", "");
        cloud.order("POST", "/settings", r#"{"lag": 0, "page": 0, "clock_ahead": 0}"#);
        cloud.order("DELETE", "/log", "");
        cloud
    }

    pub fn said(&self, name: &str) -> &'static str {
        self.running.said(name)
    }

    pub fn order(&self, method: &str, path: &str, body: &str) -> String {
        self.running.order(method, path, body)
    }

    pub fn fault(&self, action: &str, kind: &str, times: u32) {
        self.order("POST", "/faults", &format!(r#"{{"action": "{action}", "kind": "{kind}", "times": {times}}}"#));
    }

    /// Requests of an action that the proxy saw since this test's turn began.
    pub fn seen(&self, action: &str) -> Vec<serde_json::Value> {
        let log: Vec<serde_json::Value> = serde_json::from_str(&self.order("GET", "/log", "")).expect("the log is JSON");
        log.into_iter().filter(|entry| entry["action"] == action).collect()
    }

    /// A client of one of [`Running::credentials`]' users.
    pub fn client_of(&self, user: &str, clock: &Arc<TestClock>) -> Client {
        self.builder(clock).credentials(self.running.credentials(user)).build().expect("the settings are good")
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
        command.args(["-c", program]).args(arguments).envs(&self.running.said);
        command
            .env("AWS_ACCESS_KEY_ID", self.said("ADMIN_ACCESS_KEY_ID"))
            .env("AWS_SECRET_ACCESS_KEY", self.said("ADMIN_SECRET_ACCESS_KEY"));
        let output = command.stderr(Stdio::inherit()).output().expect("Python starts");
        assert!(output.status.success(), "Python ends with {}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }
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
