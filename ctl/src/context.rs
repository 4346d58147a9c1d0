//! Which cluster is meant: a project folder and what its `.disco/` knows.
//!
//! `.disco/` = `cluster.json` (id, name, provider), `addresses` (one host:port a line), `ca.crt`, `admin.crt`, `admin.key`,
//! `stopped`, `pushed` (which modules the cluster was given), `lock`, `journal.jsonl` and, for the local provider, `instances/`,
//! for the hosts provider `hosts.json`, for aws `aws.json`. Files are replaced whole, never written into.

use crate::args::Global;
use crate::install::programs::Places;
use crate::message::Failure;
use agent::drivers::syscall;
use agent::model::ids::ClusterId;
use agent::model::limits;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What was done to make the cluster, step by step: who has it made the machines.
pub const JOURNAL: &str = "journal.jsonl";
/// No file of `.disco/` that is read whole may be longer.
const FILE_BYTES_MAX: u64 = 64 * 1024;
pub const CLUSTER: &str = "cluster.json";
pub const LOCK: &str = "lock";
/// What a cluster on AWS was made of: without it nothing of it is found.
pub const AWS: &str = "aws.json";

#[derive(Clone, Debug)]
pub struct Context {
    /// The project folder, absolute.
    pub folder: PathBuf,
    /// Asked instead of the folder's addresses.
    pub socket: Option<PathBuf>,
    discod: Option<PathBuf>,
    binaries: Option<PathBuf>,
}

/// `cluster.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    pub id: String,
    pub name: String,
    pub provider: String,
}

impl ClusterFile {
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.id.parse().ok()
    }

    /// Its nodes' own addresses are of a network that this machine is not in.
    pub fn is_elsewhere(&self) -> bool {
        self.provider == crate::bootstrap::aws::KIND
    }
}

/// What lets `disco` in.
pub struct Identity {
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Held while a bootstrap or destroy runs; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Context {
    /// # Errors
    /// The folder does not exist.
    pub fn new(global: &Global) -> Result<Context, Failure> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = global.dir.clone().or_else(|| variable("DISCO_DIR")).unwrap_or_else(|| PathBuf::from("."));
        let absolute =
            fs::canonicalize(&folder).map_err(|e| Failure::broke(format!("there is no folder {}", folder.display())).caused_by(&e))?;
        if !absolute.is_dir() {
            return Err(Failure::broke(format!("{} is not a folder", folder.display())));
        }
        Ok(Context {
            folder: absolute,
            socket: global.socket.clone(),
            discod: global.discod.clone().or_else(|| variable("DISCO_DISCOD")),
            binaries: global.binaries.clone().or_else(|| variable("DISCO_BINARIES")),
        })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.disco().join(name)
    }

    pub fn disco(&self) -> PathBuf {
        self.folder.join(".disco")
    }

    /// Makes `.disco/`, readable by its owner only.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn make_disco(&self) -> Result<(), Failure> {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(self.disco())
            .map_err(|e| Failure::broke(format!("cannot make {}", self.disco().display())).caused_by(&e))
    }

    /// The daemon's program: `--discod`, `DISCO_DISCOD`, or the one beside `disco`.
    ///
    /// # Errors
    /// There is none.
    pub fn discod(&self) -> Result<PathBuf, Failure> {
        let beside = std::env::current_exe().ok().and_then(|p| Some(p.parent()?.join("discod")));
        let Some(path) = self.discod.clone().or(beside) else {
            return Err(Failure::broke("cannot tell where disco itself is").hint("name the daemon with --discod PATH"));
        };
        fs::canonicalize(&path).map_err(|e| {
            Failure::broke(format!("there is no discod at {}", path.display()))
                .caused_by(&e)
                .hint("name it with --discod PATH or DISCO_DISCOD")
        })
    }

    /// Where programs for other machines may lie.
    pub fn places(&self) -> Places {
        let beside = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned));
        Places { folder: self.binaries.clone(), discod: self.discod.clone(), beside, project: Some(self.folder.clone()) }
    }

    /// The private key that client.js names: `~/` is the user's home, other names are of this folder.
    ///
    /// # Errors
    /// There is none.
    pub fn private_key(&self, given: &str) -> Result<PathBuf, Failure> {
        let path = self.place(given);
        if path.exists() {
            return Ok(path);
        }
        Err(Failure::broke(format!("there is no private key {}", path.display())).hint("`ssh-keygen -t ed25519` makes one"))
    }

    /// A path as client.js gives it.
    pub fn place(&self, given: &str) -> PathBuf {
        match (given.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.folder.join(given),
        }
    }

    /// `None`: this folder has no cluster yet.
    ///
    /// # Errors
    /// `cluster.json` is damaged.
    pub fn cluster(&self) -> Result<Option<ClusterFile>, Failure> {
        let Some(file) = self.json::<ClusterFile>(CLUSTER)? else { return Ok(None) };
        if file.cluster_id().is_none() {
            return Err(self.damaged(CLUSTER, format!("`{}` is not a cluster id", file.id)));
        }
        Ok(Some(file))
    }

    /// The cluster whose machines this folder made, and so knows; none with `--socket` or in a folder that may only ask
    /// (`disco ca issue`). Such a one sees no machines, which must not be taken for "there are none".
    ///
    /// # Errors
    /// `cluster.json` is damaged.
    pub fn own_cluster(&self) -> Result<Option<ClusterFile>, Failure> {
        if self.socket.is_some() || !self.file(JOURNAL).exists() { Ok(None) } else { self.cluster() }
    }

    /// # Errors
    /// As writing files goes.
    pub fn write_cluster(&self, cluster: &ClusterFile) -> Result<(), Failure> {
        self.write(CLUSTER, &pretty(cluster), 0o644)
    }

    /// Where the managers were, last known first.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn addresses(&self) -> Result<Vec<String>, Failure> {
        let text = read_small(&self.file("addresses"))?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && l.len() <= limits::ADDRESS_BYTES_MAX);
        Ok(lines.take(limits::NODES_MAX).map(str::to_owned).collect())
    }

    /// # Errors
    /// As writing files goes.
    pub fn write_addresses(&self, addresses: &[String]) -> Result<(), Failure> {
        if self.addresses()? == addresses {
            return Ok(());
        }
        let text: String = addresses.iter().flat_map(|a| [a.as_str(), "\n"]).collect();
        self.write("addresses", text.as_bytes(), 0o644)
    }

    /// `None`: nobody has issued one yet.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn identity(&self) -> Result<Option<Identity>, Failure> {
        let read = |name: &str| read_small(&self.file(name));
        Ok(match (read("ca.crt")?, read("admin.crt")?, read("admin.key")?) {
            (Some(ca_pem), Some(certificate_pem), Some(key_pem)) => Some(Identity { ca_pem, certificate_pem, key_pem }),
            _ => None,
        })
    }

    /// Key first: a key without certificate only asks for one again. A renewal keeps the key, so it never waits for two files.
    ///
    /// # Errors
    /// As writing files goes.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), Failure> {
        self.write("admin.key", identity.key_pem.as_bytes(), 0o600)?;
        self.write("ca.crt", identity.ca_pem.as_bytes(), 0o644)?;
        self.write("admin.crt", identity.certificate_pem.as_bytes(), 0o644)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let path = self.file(name);
        replace_file(&path, bytes, mode).map_err(|e| Failure::broke(format!("cannot write {}", path.display())).caused_by(&e))
    }

    /// One bootstrap or destroy at a time.
    ///
    /// # Errors
    /// Another one runs: names its pid.
    pub fn lock(&self) -> Result<Lock, Failure> {
        let path = self.file(LOCK);
        let broken = |e: &dyn std::error::Error| Failure::broke(format!("cannot lock {}", path.display())).caused_by(e);
        loop {
            self.make_disco()?;
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(|e| broken(&e))?;
            if !syscall::try_lock(&file).map_err(|e| broken(&e))? {
                let mut pid = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut pid);
                let who = if pid.trim().is_empty() { String::from("another disco") } else { format!("process {}", pid.trim()) };
                return Err(Failure::broke(format!("{who} is working on this cluster already"))
                    .because(format!("it holds {}", path.display()))
                    .hint("wait until it has ended, or end it; then run this again"));
            }
            // A destroy removes the file it holds: a lock on what is no longer there is no lock.
            let held = file.metadata().map_err(|e| broken(&e))?;
            if fs::metadata(&path).is_ok_and(|now| now.ino() == held.ino() && now.dev() == held.dev()) {
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|e| broken(&e))?;
                return Ok(Lock { _file: file });
            }
        }
    }

    /// Instances a person wants stopped, as last heard: when no node answers, bootstrap leaves them alone.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn wanted_stopped(&self) -> Result<Vec<String>, Failure> {
        Ok(read_small(&self.file("stopped"))?.unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// # Errors
    /// As writing files goes.
    pub fn write_wanted_stopped(&self, ids: &[String]) -> Result<(), Failure> {
        if self.wanted_stopped()? == ids {
            return Ok(());
        }
        let text: String = ids.iter().flat_map(|id| [id.as_str(), "\n"]).collect();
        self.write("stopped", text.as_bytes(), 0o644)
    }

    /// Digest of the modules this folder gave its cluster last.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn pushed(&self) -> Result<Option<String>, Failure> {
        Ok(read_small(&self.file("pushed"))?.map(|text| text.trim().to_owned()))
    }

    /// # Errors
    /// As writing files goes.
    pub fn write_pushed(&self, digest: &str) -> Result<(), Failure> {
        self.write("pushed", format!("{digest}\n").as_bytes(), 0o644)
    }

    /// One of the JSON files; `None` if there is no such file.
    ///
    /// # Errors
    /// The file exists and cannot be read, or is damaged.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(text) = read_small(&self.file(name))? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| self.damaged(name, e.to_string()))
    }

    fn damaged(&self, name: &str, why: String) -> Failure {
        Failure::broke(format!("{} is damaged", self.file(name).display())).because(why)
    }

    /// # Errors
    /// As writing files goes.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        self.write(name, &pretty(value), 0o644)
    }

    /// The same, for what only its owner may read.
    ///
    /// # Errors
    /// As writing files goes.
    pub fn write_secret_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        self.write(name, &pretty(value), 0o600)
    }

    /// The administrator's key, if one was made.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn key(&self) -> Result<Option<String>, Failure> {
        read_small(&self.file("admin.key"))
    }
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("what has only strings for keys is always JSON");
    text.push(b'\n');
    text
}

/// `None` if there is no such file.
///
/// # Errors
/// It cannot be read, is no text, or is bigger than what `disco` writes or a key is.
pub fn read_small(path: &Path) -> Result<Option<String>, Failure> {
    let read = |e: &dyn std::error::Error| Failure::broke(format!("cannot read {}", path.display())).caused_by(e);
    match read_whole(path, FILE_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|e| read(&e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(read(&e)),
    }
}

/// All of a file, never the beginning of a bigger one.
///
/// # Errors
/// As open(2) and read(2); it has more than `bytes_max` bytes.
pub fn read_whole(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if length as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Readers see the old file or the new one, and after a power cut too.
///
/// # Errors
/// As write(2), fsync(2), rename(2).
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(folder: &Path) -> Context {
        let context = Context::new(&Global { dir: Some(folder.to_owned()), ..Global::default() }).unwrap();
        context.make_disco().unwrap();
        context
    }

    #[test]
    fn a_second_lock_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        let held = context.lock().unwrap();
        let refused = context.lock().expect_err("it is held");
        assert_eq!(refused.what(), format!("process {} is working on this cluster already", std::process::id()));
        drop(held);
        context.lock().unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_folder_is_taken_anew() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        let lock = context.lock().unwrap();
        fs::create_dir_all(context.file("instances/i-1/data")).unwrap();
        context.remove_disco(lock).unwrap();
        assert!(!context.disco().exists());
        let again = context.lock().unwrap();
        assert!(context.lock().is_err());
        drop(again);
    }

    #[test]
    fn what_is_written_is_read_back_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        assert_eq!(
            (context.cluster().unwrap(), context.addresses().unwrap().len(), context.identity().unwrap().is_none()),
            (None, 0, true)
        );
        let cluster = ClusterFile { id: ClusterId(7).to_string(), name: "c".into(), provider: "local".into() };
        context.write_cluster(&cluster).unwrap();
        context.write_addresses(&["127.80.0.1:5080".into(), "127.80.0.2:5080".into()]).unwrap();
        context.write_identity(&Identity { ca_pem: "ca".into(), certificate_pem: "crt".into(), key_pem: "key".into() }).unwrap();
        assert_eq!(context.cluster().unwrap(), Some(cluster));
        assert_eq!(context.addresses().unwrap(), ["127.80.0.1:5080", "127.80.0.2:5080"]);
        assert_eq!(context.identity().unwrap().expect("all three are there").key_pem, "key");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(context.file("admin.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(context.disco()).unwrap().count(), 5);
    }

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_whole(&path, 5).unwrap(), b"12345");
        assert_eq!(read_whole(&path, 4).unwrap_err().to_string(), "it has more than 4 bytes");
    }

    #[test]
    fn a_damaged_cluster_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        fs::write(context.file("cluster.json"), "{\"id\":\"x\",\"name\":\"c\",\"provider\":\"local\"}").unwrap();
        assert!(context.cluster().expect_err("x is no id").what().ends_with("cluster.json is damaged"));
    }
}
