//! A machine over SSH, and the steps that make it a node. Each asks first what is already so; all may be taken again.

use super::door::Door;
use super::error::SshError;
use super::programs::{Places, Program};
use super::session::{Session, Target};
use crate::message::Failure;
use agent::drivers::provider::unit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A command that only looks, or moves a file.
pub(super) const QUICK: Duration = Duration::from_secs(20);
/// 10 MB over a slow line.
const UPLOAD_MAX: Duration = Duration::from_secs(600);
const SETUP_MAX: Duration = Duration::from_secs(120);
/// Between two attempts to connect.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Lines of a daemon's log that go into an error.
const LAST_WORDS: usize = 5;

/// A machine we are on.
#[derive(Clone)]
pub struct Machine {
    session: Session,
    root: Root,
    /// As `uname -m` says it.
    pub arch: String,
}

/// How a command becomes root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Already,
    Sudo,
    Doas,
}

/// What is already so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The installed program's digest, in hex.
    pub program: Option<String>,
    /// Of a program that was uploaded and not yet installed.
    pub waiting: Option<String>,
    pub configured: bool,
    /// Of which cluster the machine is a node.
    pub cluster: Option<String>,
    pub node: Option<String>,
    /// `host:port` of its node, as the configuration says it.
    pub advertised: Option<String>,
    /// The home of a user of the node's name who is not ours.
    pub stranger: Option<String>,
}

/// What an installation changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The program that was sent, and its size.
    pub sent: Option<(PathBuf, usize)>,
    pub configured: bool,
}

const GREETING: &str = "uname -s; uname -m; id -u; \
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then echo sudo; \
    elif command -v doas >/dev/null 2>&1 && doas -n true 2>/dev/null; then echo doas; else echo no; fi";

const LOOK: &str = "\
sum() { [ ! -f \"$2\" ] || echo \"$1=$(sha256sum \"$2\" | cut -d' ' -f1)\"; }
sum program /usr/local/bin/discod
sum waiting /usr/local/bin/.discod.new
home=~disco
[ \"$home\" = /var/lib/disco ] || [ \"$home\" = '~disco' ] || echo \"stranger=$home\"
[ ! -f /etc/disco/disco.toml ] || echo configured=yes
[ ! -f /etc/disco/disco.toml ] || sed -n 's/^advertise = \"\\(.*\\)\"$/advertised=\\1/p' /etc/disco/disco.toml
[ ! -f /var/lib/disco/identity.toml ] || sed -n 's/^\\(cluster\\|node\\) = \"\\([0-9a-f]*\\)\"$/\\1=\\2/p' /var/lib/disco/identity.toml";

impl Machine {
    /// Connects, and learns what the machine is and how to become root. One that may only be on its way up is tried again
    /// for as long as `patience`; one that is not what it should be never is.
    ///
    /// # Errors
    /// As [`Session::connect`]; it is no Linux machine, or there is no way to become root.
    pub async fn greet(target: Target, patience: Duration) -> Result<Machine, SshError> {
        let started = Instant::now();
        let session = loop {
            match Session::connect(target.clone()).await {
                Err(error) if error.may_pass() && started.elapsed() < patience => async_io::Timer::after(TRY_AGAIN).await,
                connected => break connected?,
            };
        };
        let output = session.run("see what machine it is", GREETING, Vec::new(), QUICK).await?;
        let mut lines = output.stdout.lines();
        let mut line = || lines.next().unwrap_or_default().trim().to_owned();
        let (system, arch, uid, way) = (line(), line(), line(), line());
        let refuse = |why: String| SshError::Command { machine: session.machine.clone(), what: "install".into(), why };
        if system != "Linux" {
            return Err(refuse(format!("it runs {}, and a node needs Linux", if system.is_empty() { "nothing we know" } else { &system })));
        }
        let root = match (uid.as_str(), way.as_str()) {
            ("0", _) => Root::Already,
            (_, "sudo") => Root::Sudo,
            (_, "doas") => Root::Doas,
            _ => return Err(refuse("neither sudo nor doas lets this user become root without a password".into())),
        };
        Ok(Machine { session, root, arch })
    }

    /// What the person knows it by.
    pub fn shown(&self) -> &str {
        &self.session.machine
    }

    /// # Errors
    /// The connection is lost.
    pub async fn look(&self) -> Result<Found, SshError> {
        let output = self.as_root("look", LOOK, Vec::new(), QUICK).await?;
        Ok(found(&output))
    }

    /// Installs or renews what is not as it should be, and starts the node. It is not waited for.
    ///
    /// # Errors
    /// There is no program for this machine, a step fails, or the connection is lost.
    pub async fn install(&self, places: &Places, found: &Found, config: Option<String>) -> Result<Installed, Failure> {
        let what = format!("cannot install the node on {}", self.shown());
        let program = places.find(&self.arch)?;
        let mut installed = Installed { sent: None, configured: config.is_some() };
        let steps = async {
            if found.program.as_ref() != Some(&program.sha256) {
                if found.waiting.as_ref() != Some(&program.sha256) {
                    installed.sent = Some((program.path, program.bytes.len()));
                    self.upload(program.bytes, &program.sha256, unit::PROGRAM_NEW).await?;
                }
                // What does not run here must not replace what does.
                let runs = format!("chmod 700 {0} && {0} --version", unit::PROGRAM_NEW);
                self.as_root("run the new discod", &runs, Vec::new(), QUICK).await?;
            } else if found.waiting.is_some() {
                self.as_root("tidy up", &format!("rm -f {}", unit::PROGRAM_NEW), Vec::new(), QUICK).await?;
            }
            if let Some(text) = config {
                self.as_root("make /etc/disco", "mkdir -p -m 750 /etc/disco", Vec::new(), QUICK).await?;
                let sum = crate::render::hex(&agent::drivers::pki::sha256(text.as_bytes()));
                self.upload(text.into_bytes(), &sum, unit::CONFIG_NEW).await?;
            }
            self.as_root_by_stdin("set up the service", unit::setup(), SETUP_MAX).await
        };
        let done: Result<String, SshError> = steps.await;
        done.map_err(|e| e.failure(what))?;
        Ok(installed)
    }

    /// Writes a file that only root reads, under its name only when it is whole. A command whose `disco` was killed may
    /// still run, so each has a file of its own on the way.
    async fn upload(&self, bytes: Vec<u8>, sha256: &str, path: &str) -> Result<(), SshError> {
        let command = format!(
            "umask 077; part={path}.part.$$; cat >$part && [ \"$(sha256sum $part | cut -d' ' -f1)\" = {sha256} ] && mv -f $part {path} \
             || {{ rm -f $part; echo 'what arrived is not what was sent' >&2; exit 1; }}"
        );
        self.as_root(&format!("upload {path}"), &command, bytes, UPLOAD_MAX).await.map(drop)
    }

    /// Leaves a program for machines of another kind, which the node gives to them.
    ///
    /// # Errors
    /// A step fails or the connection is lost.
    pub async fn keep(&self, program: &Program) -> Result<(), SshError> {
        let (folder, user) = (format!("{}/artifacts", unit::DATA_DIR), unit::USER);
        let path = format!("{folder}/{}", program.sha256);
        let look = format!("mkdir -p -m 700 {folder} && chown {user}:{user} {folder} && if [ -f {path} ]; then echo there; fi");
        if self.as_root("make a place for programs", &look, Vec::new(), QUICK).await?.trim() != "there" {
            self.upload(program.bytes.clone(), &program.sha256, &path).await?;
        }
        self.as_root("leave a program", &format!("chown {user}:{user} {path}"), Vec::new(), QUICK).await.map(drop)
    }

    /// The last lines the daemon said, for an error.
    pub async fn last_words(&self) -> String {
        let command = format!("journalctl -u {} -n {LAST_WORDS} -o cat --no-pager 2>/dev/null", unit::UNIT);
        self.as_root("read the log", &command, Vec::new(), QUICK).await.unwrap_or_default().trim().to_owned()
    }

    /// Stops the daemon, if it runs; its tasks go on.
    ///
    /// # Errors
    /// It does not stop, or the connection is lost.
    pub async fn halt(&self) -> Result<(), SshError> {
        let command = format!("systemctl stop {0} || [ ! -e /etc/systemd/system/{0} ]", unit::UNIT);
        self.as_root("stop the node", &command, Vec::new(), SETUP_MAX).await.map(drop)
    }

    /// Removes what a stopped daemon that never was a node has made: its key, the token's other half.
    ///
    /// # Errors
    /// The disk's, or the connection is lost.
    pub async fn forget(&self) -> Result<(), SshError> {
        self.as_root("remove the data", &format!("rm -rf {}/*", unit::DATA_DIR), Vec::new(), QUICK).await.map(drop)
    }

    /// Ends the node and its tasks and removes what was installed, data and all. What is not there is no error.
    ///
    /// # Errors
    /// A step fails or the connection is lost.
    pub async fn uninstall(&self) -> Result<(), SshError> {
        self.as_root_by_stdin("uninstall", unit::REMOVAL.to_owned(), SETUP_MAX).await.map(drop)
    }

    /// The node's control socket, from here: in the folder `home`.
    ///
    /// # Errors
    /// No socket can be made here.
    pub async fn door(&self, home: &Path) -> Result<Door, Failure> {
        let command = self.wrapped(&format!("exec {} __door {}/control.sock", unit::PROGRAM, unit::DATA_DIR));
        Door::open(self.session.clone(), command, home).await
    }

    /// Runs a script that is too long for a command line.
    async fn as_root_by_stdin(&self, what: &str, script: String, limit: Duration) -> Result<String, SshError> {
        let shell = match self.root {
            Root::Already => "sh -s",
            Root::Sudo => "sudo -n sh -s",
            Root::Doas => "doas -n sh -s",
        };
        self.done(what, self.session.run(what, shell, script.into_bytes(), limit).await?)
    }

    pub(super) async fn as_root(&self, what: &str, command: &str, stdin: Vec<u8>, limit: Duration) -> Result<String, SshError> {
        self.done(what, self.session.run(what, &self.wrapped(command), stdin, limit).await?)
    }

    fn wrapped(&self, command: &str) -> String {
        let quoted = command.replace('\'', r"'\''");
        match self.root {
            Root::Already => format!("sh -c '{quoted}'"),
            Root::Sudo => format!("sudo -n sh -c '{quoted}'"),
            Root::Doas => format!("doas -n sh -c '{quoted}'"),
        }
    }

    fn done(&self, what: &str, output: super::session::Output) -> Result<String, SshError> {
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
        let why = match (said.trim(), output.code) {
            ("", Some(code)) => format!("it exits with {code}"),
            ("", None) => "it was killed".into(),
            (said, _) => said.lines().rev().take(LAST_WORDS).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"),
        };
        Err(SshError::Command { machine: self.session.machine.clone(), what: what.into(), why })
    }
}

fn found(text: &str) -> Found {
    let mut found = Found::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = value.trim().to_owned();
        match key {
            "program" => found.program = Some(value),
            "waiting" => found.waiting = Some(value),
            "configured" => found.configured = true,
            "cluster" => found.cluster = Some(value),
            "node" => found.node = Some(value),
            "advertised" => found.advertised = Some(value),
            "stranger" => found.stranger = Some(value),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_of_itself_is_read() {
        assert_eq!(found(""), Found::default());
        let told =
            found("program=ab\nconfigured=yes\ncluster=0000000000000007\nnode=12\nadvertised=[::1]:5080\nstranger=/home/disco\nnonsense\n");
        let expected = Found {
            program: Some("ab".into()),
            configured: true,
            cluster: Some("0000000000000007".into()),
            node: Some("12".into()),
            advertised: Some("[::1]:5080".into()),
            stranger: Some("/home/disco".into()),
            ..Found::default()
        };
        assert_eq!(told, expected);
    }
}
