//! The test cloud with machines, and the folder of `scripts/examples/aws` to be bootstrapped into it.

use crate::running::Running;
use serde_json::Value;
use sigv4_ec2::{Address, Client, Filter, Instance};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What a person's shell may hold that must not reach the test.
const FOREIGN: [&str; 4] = ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "SSH_AUTH_SOCK"];

pub struct Cloud(Running);

impl Cloud {
    pub fn start() -> Cloud {
        Cloud(Running::start(&["--machines"]))
    }

    /// One in which nothing that is launched would run.
    pub fn without_machines() -> Cloud {
        Cloud(Running::start(&[]))
    }

    pub fn endpoint(&self) -> &str {
        self.0.said("AWS_ENDPOINT_URL_EC2")
    }

    /// Of somebody who may do everything, and sees what the proxy lets be seen.
    pub fn client(&self) -> Client {
        self.client_at("AWS_ENDPOINT_URL_EC2")
    }

    /// Every instance there ever was, from moto itself: nothing lags there.
    pub fn instances(&self) -> Vec<Instance> {
        self.client_at("CLOUD_MOTO").describe_instances(&[], &[]).expect("moto answers")
    }

    fn client_at(&self, endpoint: &str) -> Client {
        let client = Client::builder(self.0.said("AWS_REGION")).endpoint(self.0.said(endpoint));
        client.credentials(self.0.credentials("ADMIN")).build().expect("the cloud says good addresses")
    }

    pub fn order(&self, method: &str, path: &str, body: &str) -> String {
        self.0.order(method, path, body)
    }

    /// Requests of an action that the proxy saw since the last `DELETE /log`.
    pub fn seen(&self, action: &str) -> Vec<Value> {
        let log: Vec<Value> = serde_json::from_str(&self.order("GET", "/log", "")).expect("the log is JSON");
        log.into_iter().filter(|entry| entry["action"] == action).collect()
    }

    /// What a command prints, run as root in an instance's machine.
    pub fn prints(&self, instance: &str, command: &str) -> String {
        let machine = Path::new(TOP).join("scripts/cloud/machine");
        let mut run = Command::new(machine);
        run.args(["run", instance, "--", "sh", "-c", command]).env("DISCO_MACHINES", self.0.said("DISCO_MACHINES"));
        String::from_utf8_lossy(&run.output().expect("machines need root").stdout).into_owned()
    }

    /// Kills discod on an instance; its service manager starts it again.
    pub fn kill_daemon(&self, instance: &str) {
        const KILL: &str = r#"for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" != /usr/local/bin/discod ] || { kill -9 ${p#/proc/} && echo killed; }; done"#;
        assert!(self.prints(instance, KILL).starts_with("killed"), "discod runs on {instance}");
    }
}

/// What stands for a program of arm64 machines, of which there are none here: an ELF header (elf(5)) and something behind it.
pub fn for_arm64() -> Vec<u8> {
    let mut header = vec![0; 64 * 1024];
    header[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    header[16..20].copy_from_slice(&[2, 0, 183, 0]);
    header
}

/// A folder with the example and a key of its own.
pub struct Project<'a> {
    cloud: &'a Cloud,
    folder: tempfile::TempDir,
    disco: PathBuf,
}

impl<'a> Project<'a> {
    pub fn new(cloud: &'a Cloud) -> Project<'a> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["client.js", "cluster.js"] {
            let from = Path::new(TOP).join("scripts/examples/aws").join(name);
            std::fs::copy(from, folder.path().join(name)).expect("the example is there");
        }
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join("key")).status();
        assert!(made.expect("ssh-keygen is installed").success());
        std::fs::write(folder.path().join("discod-aarch64"), for_arm64()).expect("the folder is ours");
        Project { cloud, folder, disco: env!("CARGO_BIN_EXE_disco").into() }
    }

    /// With another `disco` than the one under test, and the discod beside it.
    pub fn with(self, disco: &Path) -> Project<'a> {
        Project { disco: disco.to_owned(), ..self }
    }

    /// The same folder, in the hands of somebody with another account.
    pub fn at(self, cloud: &Cloud) -> Project<'_> {
        Project { cloud, folder: self.folder, disco: self.disco }
    }

    /// What it said, on stderr, when it refused.
    pub fn refused(&self, args: &[&str]) -> String {
        let Output { status, stderr, .. } = self.command(args).output().expect("disco starts");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success(), "disco {args:?}:\n{said}");
        said
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.disco);
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in FOREIGN {
            command.env_remove(name);
        }
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_IAM"] {
            command.env(name, self.cloud.0.said(name));
        }
        command.env("SSH_KEY", "key");
        command
    }

    /// What it said, on stderr.
    pub fn ok(&self, args: &[&str]) -> String {
        let Output { status, stderr, .. } = self.command(args).output().expect("disco starts");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(status.success(), "disco {args:?}:\n{said}\n{}", self.tell());
        said
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).expect("it is in the folder")
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("the folder is ours");
    }

    pub fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]).output().expect("disco starts");
        serde_json::from_slice(&output.stdout).ok()
    }

    pub fn ready(&self) -> usize {
        let Some(status) = self.status() else { return 0 };
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| node["state"] == "ready").count())
    }

    pub fn ready_managers(&self) -> usize {
        let Some(status) = self.status() else { return 0 };
        let votes = |node: &&Value| node["state"] == "ready" && node["role"] == "manager";
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(votes).count())
    }

    /// The instance of the node that leads.
    pub fn leader(&self) -> Option<String> {
        let status = self.status()?;
        let node = status["nodes"].as_array()?.iter().find(|node| node["leader"] == true)?;
        Some(node["instance"].as_str()?.to_owned())
    }

    pub fn disco_folder(&self) -> PathBuf {
        self.folder.path().join(".disco")
    }

    fn cluster(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.disco_folder().join("cluster.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        Some(value["id"].as_str()?.to_owned())
    }

    fn ours(&self) -> Vec<Filter> {
        vec![Filter::tag("disco:cluster-id", self.cluster().expect("it was bootstrapped"))]
    }

    pub fn instances(&self) -> Vec<Instance> {
        let found = self.cloud.client().describe_instances(&[], &self.ours()).expect("EC2 answers");
        found.into_iter().filter(|instance| !instance.state.is_gone()).collect()
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.cloud.client().describe_addresses(&self.ours()).expect("EC2 answers")
    }

    /// Instances, groups, key pairs and addresses of this cluster.
    pub fn possessions(&self) -> [usize; 4] {
        let client = self.cloud.client();
        let groups = client.describe_security_groups(&[], &self.ours()).expect("EC2 answers").len();
        let keys = client.describe_key_pairs(&[], &self.ours()).expect("EC2 answers").len();
        [self.instances().len(), groups, keys, self.addresses().len()]
    }

    /// Whether anybody may reach port 22.
    pub fn is_open_for_ssh(&self) -> bool {
        let groups = self.cloud.client().describe_security_groups(&[], &self.ours()).expect("EC2 answers");
        groups.iter().flat_map(|group| &group.ingress).any(|rule| rule.lets_in_tcp(22))
    }

    pub fn until(&self, what: &str, bound: Duration, mut look: impl FnMut() -> bool) {
        let deadline = Instant::now() + bound;
        while !look() {
            assert!(Instant::now() < deadline, "not within {bound:?}: {what}\n{}", self.tell());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// For somebody who reads why a test failed.
    pub fn tell(&self) -> String {
        let output = self.command(&["status"]).output().expect("disco starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}
