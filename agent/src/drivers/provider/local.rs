//! The `local` provider: an instance is a detached `discod` on a loopback address of its own.
//!
//! It outlives whoever started it. A start is `discod --detach --await-record --config F`: the process forks, prints the pid of the copy
//! and ends; the copy does nothing until it reads one byte, which it gets once its `pid` file is written. If the starter dies
//! before that, the copy reads the end of the pipe instead and ends: no process of ours ever runs unrecorded.

use super::{
    Capabilities, Drift, First, Launched, Provider, ProviderError, file, first_operation,
    folder::{self, Contents, Folder, InstanceFile, Instances},
};
use crate::{
    drivers::{process::ProcessRecord, runtime},
    model::{
        ids::{ClusterId, OperationId},
        instance::{InstanceSeen, InstanceState},
        limits,
        node::PORT,
        query::LaunchRequest,
    },
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// From SIGTERM to SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses with the same first three numbers.
const PER_NET: u32 = 250;

/// Makes, starts and ends the instances of one project folder. All calls block: they start processes and wait for them.
#[derive(Debug, Clone)]
pub struct LocalProvider {
    root: PathBuf,
    instances: Instances,
    cluster: ClusterId,
    cluster_name: String,
    program: PathBuf,
}

/// The address of an instance: 127.a.b.c with a (64 to 254) and b from the cluster, so that several clusters live side by side.
pub fn address_of(cluster: ClusterId, ordinal: u32) -> String {
    // Random ids differ in their low bits as well as anywhere.
    let a = 64 + cluster.0 % 191;
    let b = (cluster.0 / 191 + u64::from(ordinal / PER_NET)) % 256;
    let c = ordinal % PER_NET + 1;
    format!("127.{a}.{b}.{c}:{PORT}")
}

impl LocalProvider {
    /// `root` is the project's `.disco` folder; `program` the `discod` that new instances get a copy of.
    pub fn new(root: PathBuf, cluster: ClusterId, cluster_name: String, program: PathBuf) -> LocalProvider {
        // Instances run in `/`, so the path is made absolute; and an instance names the root relative to its own folder,
        // so `..` is resolved, or the path would grow with each start of one instance by another.
        let root = std::fs::canonicalize(&root).or_else(|_| std::path::absolute(&root)).unwrap_or(root);
        LocalProvider { instances: Instances::in_project(&root), root, cluster, cluster_name, program }
    }

    fn launch_as(&self, operation: OperationId, ordinal: u32, mut config: toml::Table) -> Result<Launched, ProviderError> {
        let id = folder::id_of(ordinal);
        let address = address_of(self.cluster, ordinal);
        for (key, value) in [
            ("name", format!("n{ordinal}")),
            ("instance", id.clone()),
            ("listen", address.clone()),
            ("advertise", address.clone()),
            // Paths in the file count from its own folder, so that a project may move.
            ("data_dir", "data".into()),
            ("cluster_id", self.cluster.to_string()),
            ("cluster_name", self.cluster_name.clone()),
        ] {
            config.insert(key.into(), value.into());
        }
        let provider = [("kind", "local"), ("root", "../.."), ("binary", "discod")];
        config.insert("provider".into(), toml::Value::Table(provider.map(|(k, v)| (k.to_owned(), v.into())).into_iter().collect()));

        let about = InstanceFile { operation: operation.to_string(), ordinal, address: address.clone(), cluster: self.cluster.to_string() };
        self.instances.make(&Contents { about, program: &self.program, config: config.to_string() })?;
        self.start(&id)?;
        Ok(Launched { operation, id, address })
    }

    fn process_of(&self, folder: &Folder) -> Result<Option<ProcessRecord>, ProviderError> {
        ProcessRecord::read(&folder.pid()).map_err(file("read", folder.pid()))
    }

    /// The instance's process and its tasks: on a machine of its own they would end together.
    fn end(&self, folder: &Folder) -> Result<(), ProviderError> {
        let process = self.process_of(folder)?;
        let own = process.as_ref().filter(|process| process.is_ours());
        // Nobody may start a task while we end them, so the daemon goes first, unless it is us who are the daemon.
        if let (Some(process), None) = (&process, own) {
            process.end(PATIENCE).map_err(|source| ProviderError::End { id: folder.id.clone(), pid: process.pid, source })?;
        }
        let tasks = folder.tasks();
        runtime::end_recorded(&tasks, PATIENCE).map_err(file("end the tasks of", tasks))?;
        match own {
            Some(process) => process.ask_to_end().map_err(|source| ProviderError::End { id: folder.id.clone(), pid: process.pid, source }),
            None => Ok(()),
        }
    }

    /// The project's `.disco` folder.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }
}

impl Provider for LocalProvider {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { launches: true, stops: true, attaches: false }
    }

    fn launch_first(&self, _: &First) -> Result<Launched, ProviderError> {
        let mut config = toml::Table::new();
        config.insert("originate".into(), true.into());
        self.launch_as(first_operation(self.cluster), 1, config)
    }

    fn launch(&self, request: &LaunchRequest) -> Result<Launched, ProviderError> {
        let mut config = toml::Table::new();
        config.insert("token".into(), request.token.clone().into());
        config.insert("seeds".into(), request.seeds.clone().into());
        self.launch_as(request.operation, request.ordinal, config)
    }

    fn describe(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let mut seen = Vec::new();
        for (id, about) in
            self.instances.list()?.into_iter().filter(|(_, about)| folder::is_of(about, self.cluster)).take(limits::INSTANCES_MAX)
        {
            let pid = self.instances.path_of(&id).join("pid");
            let state = match ProcessRecord::read(&pid).map_err(file("read", &pid))? {
                None => InstanceState::Pending,
                Some(process) if process.alive().map_err(file("look for the process of", &pid))? => InstanceState::Running,
                Some(_) => InstanceState::Stopped,
            };
            seen.push(InstanceSeen { operation: about.operation(), id, address: about.address, state, public_address: String::new() });
        }
        Ok(seen)
    }

    fn start(&self, id: &str) -> Result<(), ProviderError> {
        let folder = self.instances.open(id)?.ok_or_else(|| ProviderError::Unknown { id: id.into() })?;
        if let Some(operation) = self.instances.tombstone(id)? {
            return Err(ProviderError::Terminated { operation });
        }
        if let Some(process) = self.process_of(&folder)?
            && process.alive().map_err(file("look for the process of", folder.pid()))?
        {
            return Ok(());
        }
        let log = folder.log()?;
        spawn(&folder, log).map_err(|source| ProviderError::Start { path: folder.program(), source })
    }

    fn stop(&self, id: &str) -> Result<(), ProviderError> {
        let folder = self.instances.open(id)?.ok_or_else(|| ProviderError::Unknown { id: id.into() })?;
        self.end(&folder)
    }

    fn terminate(&self, id: &str) -> Result<(), ProviderError> {
        let Some(folder) = self.instances.open(id)? else { return self.instances.sweep(id) };
        // First: from here on whoever repeats the launch is refused, also if we die now.
        self.instances.bury(&folder)?;
        if self.process_of(&folder)?.is_some_and(|process| process.is_ours()) {
            // A daemon cannot wait for its own end: it only asks, and the next leader's repetition removes the folder.
            return self.end(&folder);
        }
        self.end(&folder)?;
        self.instances.remove(&folder)?;
        self.instances.sweep(id)
    }

    fn attach(&self, _: &str, _: &str) -> Result<(), ProviderError> {
        Err(ProviderError::Unable { kind: self.kind(), what: "move an address" })
    }

    /// Folders hold what was written in them: nobody else has a hand in it.
    fn drift(&self, _: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError> {
        Ok(Vec::new())
    }
}

/// Starts the folder's program as the top of this file says. When it returns the process is recorded and on its way.
fn spawn(folder: &Folder, log: std::fs::File) -> io::Result<()> {
    let mut command = Command::new(folder.program());
    // Variables win over the file, so ours would become the new instance's; how much to log is the exception.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DISCO_") && name != "DISCO_LOG") {
        command.env_remove(name);
    }
    let mut starter = command
        .args(["--detach", "--await-record", "--config"])
        .arg(folder.config())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let (go, said) = (starter.stdin.take(), starter.stdout.take());
    let mut line = String::new();
    // The copy keeps this pipe open for a moment, so read a line, not to the end; a pid is short.
    let read = BufReader::new(said.expect("it is piped").take(32)).read_line(&mut line);
    let status = starter.wait()?;
    read?;
    let failed = |what: String| io::Error::other(format!("{what}; its discod.log says why"));
    if !status.success() {
        return Err(failed(format!("it ended with {status}")));
    }
    let pid: u32 = line.trim().parse().map_err(|_| failed(format!("it printed {line:?}, not a pid")))?;
    let process = ProcessRecord::of(pid)?.ok_or_else(|| failed(format!("process {pid} ended at once")))?;
    process.write(&folder.pid())?;
    go.expect("it is piped").write_all(b"\n")
}
