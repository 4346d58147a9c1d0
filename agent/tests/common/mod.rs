//! Real daemons for tests: each in a temporary folder, on a loopback address of its own, ended when dropped.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod intruder;

use agent::drivers::{
    pki::{self, KeyFiles},
    process::ProcessRecord,
    runtime::end_recorded,
};
use proto::{Channel, ChannelLimits, Spawner, v1};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::Status;

/// What a step of a healthy cluster may take on a busy machine.
pub const BOUND: Duration = Duration::from_secs(20);

/// A loopback address that no other test uses: one net a process, one host a call.
pub fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    loop {
        let host = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(host < 250, "a test process has 249 addresses");
        // 127.64 and up belong to the local provider's instances.
        let address = format!("127.{}.{}.{host}:5080", 2 + pid % 62, pid / 62 % 256);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Looks until there is something to see.
///
/// # Panics
/// It is not there within `bound`.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Runs a future together with the connections it opens.
pub fn block_on<T>(work: impl AsyncFnOnce(Spawner) -> T) -> T {
    let executor = Arc::new(smol::Executor::new());
    smol::block_on(executor.run(async {
        let done = work(Spawner(executor.clone())).await;
        // A connection holds the executor that holds it: whoever leaves first would leave it open, and a daemon serves
        // only so many.
        let closed = async {
            while !executor.is_empty() {
                async_io::Timer::after(Duration::from_millis(1)).await;
            }
        };
        let late = async {
            async_io::Timer::after(Duration::from_millis(200)).await;
        };
        futures_lite::future::or(closed, late).await;
        done
    }))
}

/// One `discod` and its folder.
pub struct Daemon {
    folder: tempfile::TempDir,
    pub address: String,
    child: Option<Child>,
    /// A detached one: not our child, but ours to end.
    adopted: Option<ProcessRecord>,
    /// The network namespace it runs in, if not ours.
    namespace: Option<PathBuf>,
}

impl Daemon {
    /// The first node of a new cluster.
    pub fn originate() -> Daemon {
        let mut daemon = Daemon::new("originate = true\ncluster_name = \"test\"\nname = \"n1\"\n");
        daemon.start();
        daemon
    }

    /// A node that joins by a token.
    pub fn join(name: &str, token: &str, seeds: &[&str]) -> Daemon {
        let mut daemon = Daemon::new(&format!("name = \"{name}\"\ntoken = \"{token}\"\nseeds = {seeds:?}\n"));
        daemon.start();
        daemon
    }

    /// A folder with a config, not started yet. `listen`, `advertise` and `data_dir` are added.
    pub fn new(config: &str) -> Daemon {
        let address = address();
        Daemon::placed(&address, &address, None, config)
    }

    /// One that listens at `address` and is reached at `advertised`, in a network namespace (its file) if there is one.
    pub fn placed(address: &str, advertised: &str, namespace: Option<PathBuf>, config: &str) -> Daemon {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!("listen = \"{address}\"\nadvertise = \"{advertised}\"\ndata_dir = \"data\"\n{config}");
        fs::write(folder.path().join("disco.toml"), config).expect("the disk works");
        Daemon { folder, address: address.to_owned(), child: None, adopted: None, namespace }
    }

    pub fn command(&self) -> Command {
        let discod = env!("CARGO_BIN_EXE_discod");
        let mut command = match &self.namespace {
            // It becomes discod: same process, same id.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(discod);
                command
            }
            None => Command::new(discod),
        };
        command.arg("--config").arg(self.folder.path().join("disco.toml")).stdin(Stdio::null());
        command
    }

    /// Starts it; its words go to `discod.log`.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = self.log_file();
        let child = self.command().stdout(log.try_clone().expect("a descriptor")).stderr(log).spawn().expect("discod starts");
        self.child = Some(child);
    }

    /// Takes over a process that detached itself.
    pub fn adopt(&mut self, pid: u32) {
        self.adopted = Some(ProcessRecord::of(pid).expect("/proc is there").expect("it runs"));
    }

    /// SIGTERM for the adopted one, SIGKILL if need be.
    pub fn end_adopted(&mut self) {
        if let Some(process) = self.adopted.take() {
            process.end(BOUND).expect("it is ours to end");
        }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `discod.log`, to append to.
    pub fn log_file(&self) -> fs::File {
        fs::OpenOptions::new().append(true).create(true).open(self.log_path()).expect("the disk works")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("discod.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("it is our child").is_none())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.ended()
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        let process = ProcessRecord::of(self.pid()).expect("/proc is there").expect("it runs");
        process.ask_to_end().expect("it is our child");
    }

    /// Waits for it to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                return status;
            }
            if Instant::now() > deadline {
                self.child = Some(child);
                panic!("discod did not end within {BOUND:?}; its log:\n{}", self.log());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Asks over control.sock.
    pub fn read(&self, stale: bool, query: v1::read_request::Query) -> Result<v1::ReadReply, Status> {
        let path = self.data().join("control.sock");
        block_on(async |spawner| {
            let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
            Ok(disco.read(v1::ReadRequest { stale, query: Some(query) }).await?.into_inner())
        })
    }

    /// Writes over control.sock, under a request id of its own.
    pub fn write(&self, op: v1::write_request::Op) -> Result<v1::WriteReply, Status> {
        static SEQUENCE: AtomicU32 = AtomicU32::new(1);
        let path = self.data().join("control.sock");
        let request = v1::WriteRequest {
            client: u64::from(std::process::id()),
            sequence: u64::from(SEQUENCE.fetch_add(1, Ordering::Relaxed)),
            op: Some(op),
        };
        block_on(async |spawner| {
            let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
            Ok(disco.write(request).await?.into_inner())
        })
    }

    pub fn status(&self) -> Result<v1::Status, Status> {
        use v1::{read_reply::Result as Reply, read_request::Query};
        match self.read(false, Query::Status(v1::StatusQuery {}))?.result {
            Some(Reply::Status(status)) => Ok(status),
            other => panic!("asked for the status, got {other:?}"),
        }
    }

    /// An administrator's certificate and key (PKCS#8), both DER, from control.sock.
    pub fn admin(&self) -> (Vec<u8>, Vec<u8>) {
        let path = self.data().join("control.sock");
        let key = pki::new_key();
        let csr = pki::new_csr(&key).expect("a good key");
        let reply = block_on(async |spawner| {
            let mut disco = Channel::unix(spawner, path, ChannelLimits::default()).disco();
            disco.issue_admin(v1::IssueAdminRequest { csr }).await
        });
        (reply.expect("the owner may").into_inner().certificate, key)
    }

    /// This node's certificate and key, as in its data dir.
    pub fn node_certificate(&self) -> (Vec<u8>, Vec<u8>) {
        let files = KeyFiles::new(&self.data());
        (files.certificates().expect("it joined").0, files.key().expect("it joined"))
    }

    /// A channel to its port that shows this certificate, or none. It accepts any server: what the server accepts is the question.
    pub fn channel(&self, spawner: Spawner, shown: Option<&(Vec<u8>, Vec<u8>)>) -> Channel {
        let identity = shown.map(|(certificate, key)| {
            (vec![CertificateDer::from(certificate.clone())], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone())))
        });
        let tls = proto::client_config(identity, Arc::new(AnyServer)).expect("a pair");
        Channel::tcp(spawner, self.address.clone(), tls, ChannelLimits::default())
    }

    /// Waits until the cluster, asked here, looks as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&v1::Status) -> bool) -> v1::Status {
        let deadline = Instant::now() + BOUND;
        loop {
            let last = match self.status() {
                Ok(status) if wanted(&status) => return status,
                Ok(status) => format!("{status:#?}"),
                Err(status) => status.to_string(),
            };
            assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}; last seen: {last}\nlog:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// What nobody may have changed: nodes, instances and tokens, without what time alone changes.
    pub fn picture(&self) -> String {
        use v1::{read_reply::Result as Reply, read_request::Query};
        let status = self.status().expect("it leads or knows who does");
        let Some(Reply::Tokens(tokens)) = self.read(false, Query::Tokens(v1::TokenList {})).expect("as before").result else {
            panic!("asked for the tokens")
        };
        let page = v1::KvList { limit: 1000, ..Default::default() };
        let Some(Reply::KvPage(keys)) = self.read(false, Query::KvList(page)).expect("as before").result else {
            panic!("asked for the keys")
        };
        format!("{:?}\n{:?}\n{:?}\n{:?}\n{tokens:?}\n{keys:?}", status.nodes, status.instances, status.voters, status.learners)
    }

    /// This node's own Raft position.
    pub fn member(&self) -> v1::Member {
        use v1::{read_reply::Result as Reply, read_request::Query};
        match self.read(true, Query::Member(v1::MemberQuery {})).expect("it answers for itself").result {
            Some(Reply::Member(member)) => member,
            other => panic!("asked for the member, got {other:?}"),
        }
    }

    /// Waits for words in its log.
    pub fn until_it_says(&self, words: &str) {
        until(&format!("`{words}` in the log of {}:\n{}", self.address, self.log()), BOUND, || self.log().contains(words).then_some(()));
    }

    pub fn set(&self, key: &str, value: &str) -> Result<v1::WriteReply, Status> {
        self.write(v1::write_request::Op::KvSet(v1::KvSet { key: key.into(), value: value.into() }))
    }

    pub fn value(&self, key: &str) -> Result<Option<String>, Status> {
        use v1::{read_reply::Result as Reply, read_request::Query};
        match self.read(false, Query::KvGet(v1::KvGet { key: key.into() }))?.result {
            Some(Reply::KvValue(kv)) => Ok(kv.value.map(|bytes| String::from_utf8(bytes).expect("tests write text"))),
            other => panic!("asked for a key, got {other:?}"),
        }
    }

    /// A single-use join token.
    pub fn token(&self, role: &str) -> String {
        self.token_for(role, Duration::from_secs(600))
    }

    /// A single-use join token with a life of its own.
    pub fn token_for(&self, role: &str, life: Duration) -> String {
        use v1::{write_reply::Result as Reply, write_request::Op};
        let ttl_ms = u64::try_from(life.as_millis()).expect("a short life");
        let op = Op::TokenCreate(v1::TokenCreate { role: role.into(), ttl_ms, uses: 1 });
        match self.write(op).expect("a leader makes tokens").result {
            Some(Reply::TokenCreated(created)) => created.token,
            other => panic!("asked for a token, got {other:?}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} said:\n{}", self.address, self.log());
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended already; then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(process) = self.adopted.take() {
            // A second panic would hide the first.
            let _ = process.end(Duration::from_secs(1));
        }
        // Tasks outlive their daemon, but not their test.
        if let Err(error) = end_recorded(&self.data().join("tasks"), Duration::from_secs(1)) {
            eprintln!("tasks of {} may still run: {error}", self.address);
        }
    }
}

/// Believes every server.
#[derive(Debug)]
pub struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
