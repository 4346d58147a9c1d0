//! One SSH connection: who is there is checked, who we are is shown, then commands run.

use super::error::SshError;
use super::thread::on_tokio;
use super::trust::{Expected, Trust, fingerprint};
use futures_lite::future::or;
use russh::client::{self, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Preferred};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// From the first packet to a checked host key. Whoever plays for time is refused within five seconds.
const HANDSHAKE_MAX: Duration = Duration::from_millis(4500);
const LOGIN_MAX: Duration = Duration::from_secs(15);
/// Keys of an agent that are shown; a server refuses more anyway (sshd_config(5), MaxAuthTries 6).
const AGENT_KEYS_MAX: usize = 5;
/// What is kept of a command's stdout and of its stderr.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A machine and how to get into it.
#[derive(Clone, Debug)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub trust: Trust,
    pub keys: Keys,
}

/// With what we show who we are.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// This private key and no other.
    pub file: Option<PathBuf>,
    /// The socket of an agent, asked if no file is named.
    pub agent: Option<PathBuf>,
    /// Private keys to try then, where they exist.
    pub usual: Vec<PathBuf>,
}

impl Keys {
    /// As `ssh` would: the agent of SSH_AUTH_SOCK, then `~/.ssh/id_ed25519` and `id_ecdsa`.
    pub fn of_this_user(file: Option<PathBuf>) -> Keys {
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = std::env::home_dir().map(|home| home.join(".ssh"));
        let usual = home.into_iter().flat_map(|ssh| ["id_ed25519", "id_ecdsa"].map(|name| ssh.join(name))).collect();
        Keys { file, agent, usual }
    }
}

impl Target {
    /// `admin@10.0.0.1`, with the port if it is not the usual one.
    pub fn shown(&self) -> String {
        match self.port {
            22 => format!("{}@{}", self.user, self.host),
            port => format!("{}@{} port {port}", self.user, self.host),
        }
    }
}

#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle<Gate>>,
    /// For errors.
    pub machine: String,
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    /// `None`: it was ended by a signal.
    pub code: Option<u32>,
    pub stdout: String,
    pub stderr: String,
}

/// Lets a server pass only with an expected key; remembers what was shown otherwise.
struct Gate {
    expected: Expected,
    refused: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Gate {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let (passes, shown) = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => (self.expected.accepts(key), fingerprint(key)),
            PublicKeyOrCertificate::Certificate(_) => (false, "a certificate".into()),
        };
        if !passes {
            *self.refused.lock().expect("nobody panics while holding it") = Some(shown);
        }
        Ok(passes)
    }
}

impl Session {
    /// # Errors
    /// The machine is not reached, is not the one it should be, or does not let us in.
    pub async fn connect(target: Target) -> Result<Session, SshError> {
        on_tokio(connect(target)).await
    }

    /// Runs a command, gives it `stdin`, and waits until it has ended. `what` it is for is what a person reads.
    ///
    /// # Errors
    /// The connection is lost or the time is over. A command that fails is no error here.
    pub async fn run(&self, what: &str, command: &str, stdin: Vec<u8>, limit: Duration) -> Result<Output, SshError> {
        let (session, command, what) = (self.clone(), command.to_owned(), what.to_owned());
        on_tokio(async move {
            let ran = timeout(limit, session.run_here(&command, stdin)).await;
            ran.map_err(|_| SshError::Slow { machine: session.machine.clone(), what, seconds: limit.as_secs() })?
                .map_err(|source| session.broke(source))
        })
        .await
    }

    async fn run_here(&self, command: &str, stdin: Vec<u8>) -> Result<Output, russh::Error> {
        let channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (mut read, write) = channel.split();
        let writing = async {
            // A command may end without reading all of it; how it ended says more than the broken pipe.
            if write.data_bytes(stdin).await.is_ok() {
                let _ = write.eof().await;
            }
            std::future::pending::<()>().await;
        };
        let (mut stdout, mut stderr, mut code, mut signal) = (Vec::new(), Vec::new(), None, false);
        let keep = |into: &mut Vec<u8>, data: &[u8]| {
            let room = OUTPUT_BYTES_MAX.saturating_sub(into.len());
            into.extend_from_slice(&data[..data.len().min(room)]);
        };
        let reading = async {
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => keep(&mut stdout, &data),
                    ChannelMsg::ExtendedData { data, .. } => keep(&mut stderr, &data),
                    ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                    ChannelMsg::ExitSignal { .. } => signal = true,
                    _ => {}
                }
            }
        };
        or(reading, writing).await;
        if code.is_none() && !signal {
            return Err(russh::Error::Disconnect);
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { code, stdout: text(stdout), stderr: text(stderr) })
    }

    pub(super) fn handle(&self) -> &Handle<impl client::Handler + use<>> {
        &self.handle
    }

    fn broke(&self, source: russh::Error) -> SshError {
        match source {
            russh::Error::ChannelOpenFailure(_) => SshError::Protocol { machine: self.machine.clone(), source },
            _ => SshError::Lost { machine: self.machine.clone() },
        }
    }
}

async fn connect(target: Target) -> Result<Session, SshError> {
    let machine = target.shown();
    let expected = target.trust.expected(&machine, &target.host, target.port)?;
    let config = client::Config {
        keepalive_interval: Some(Duration::from_secs(5)),
        keepalive_max: 3,
        inactivity_timeout: Some(Duration::from_secs(300)),
        nodelay: true,
        preferred: Preferred { key: expected.algorithms().into(), ..Preferred::DEFAULT },
        ..client::Config::default()
    };
    let refused = Arc::new(Mutex::new(None));
    let gate = Gate { expected: expected.clone(), refused: refused.clone() };
    let handshake = async {
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|source| SshError::Connect { machine: machine.clone(), source })?;
        let _ = stream.set_nodelay(true);
        client::connect_stream(Arc::new(config), stream, gate).await.map_err(|source| {
            match refused.lock().expect("nobody panics while holding it").take() {
                Some(shown) if expected.is_empty() => SshError::UnknownKey { machine: machine.clone(), shown },
                Some(shown) => SshError::WrongKey { machine: machine.clone(), shown, expected: expected.shown() },
                None => SshError::Protocol { machine: machine.clone(), source },
            }
        })
    };
    let silent = |_| SshError::Silent { machine: machine.clone(), seconds: HANDSHAKE_MAX.as_secs() };
    let mut handle = timeout(HANDSHAKE_MAX, handshake).await.map_err(silent)??;
    let login = log_in(&mut handle, &target, &machine);
    let slow = |_| SshError::Slow { machine: machine.clone(), what: "log in".into(), seconds: LOGIN_MAX.as_secs() };
    timeout(LOGIN_MAX, login).await.map_err(slow)??;
    Ok(Session { handle: Arc::new(handle), machine })
}

/// The named key alone; else the agent's, then the usual ones.
async fn log_in(handle: &mut Handle<Gate>, target: &Target, machine: &str) -> Result<(), SshError> {
    let mut tried = Vec::new();
    if let Some(path) = &target.keys.file {
        if with_file(handle, target, path, machine).await? {
            return Ok(());
        }
        tried.push(path.display().to_string());
    } else {
        if let Some(socket) = &target.keys.agent
            && with_agent(handle, target, socket, machine, &mut tried).await?
        {
            return Ok(());
        }
        for path in target.keys.usual.iter().filter(|path| path.exists()) {
            // One that cannot be used (it has a passphrase) does not stand in the way of the next.
            match with_file(handle, target, path, machine).await {
                Ok(true) => return Ok(()),
                Err(error @ SshError::Lost { .. }) => return Err(error),
                _ => tried.push(path.display().to_string()),
            }
        }
    }
    match tried.is_empty() {
        true => Err(SshError::NoKey { machine: machine.to_owned() }),
        false => Err(SshError::Refused { machine: machine.to_owned(), tried: tried.join(", ") }),
    }
}

async fn with_file(handle: &mut Handle<Gate>, target: &Target, path: &Path, machine: &str) -> Result<bool, SshError> {
    let key = load_secret_key(path, None).map_err(|source| SshError::PrivateKey { path: path.to_owned(), source })?;
    let shown = handle.authenticate_publickey(&target.user, PrivateKeyWithHashAlg::new(Arc::new(key), None)).await;
    Ok(shown.map_err(|_| SshError::Lost { machine: machine.to_owned() })?.success())
}

/// An agent that does not answer has no keys.
async fn with_agent(
    handle: &mut Handle<Gate>,
    target: &Target,
    socket: &Path,
    machine: &str,
    tried: &mut Vec<String>,
) -> Result<bool, SshError> {
    let Ok(mut agent) = AgentClient::connect_uds(socket).await else { return Ok(false) };
    let identities = agent.request_identities().await.unwrap_or_default();
    // A server refuses after a few: those that it cannot be shown anyway take nobody's turn.
    let usable = identities.into_iter().filter_map(|identity| match identity {
        AgentIdentity::PublicKey { key, comment } if is_usable(&key) => Some((key, comment)),
        _ => None,
    });
    for (key, comment) in usable.take(AGENT_KEYS_MAX) {
        tried.push(format!("the agent's key {comment}").trim_end().to_owned());
        // A key that the agent does not want to sign with is one fewer.
        if let Ok(answer) = handle.authenticate_publickey_with(&target.user, key, None, &mut agent).await
            && answer.success()
        {
            return Ok(true);
        }
        if handle.is_closed() {
            return Err(SshError::Lost { machine: machine.to_owned() });
        }
    }
    Ok(false)
}

/// RSA is not built in.
fn is_usable(key: &PublicKey) -> bool {
    use Algorithm::{Ecdsa, Ed25519, SkEcdsaSha2NistP256, SkEd25519};
    matches!(key.algorithm(), Ed25519 | Ecdsa { .. } | SkEd25519 | SkEcdsaSha2NistP256)
}
