//! A node's control socket as a socket here: each connection to it becomes a command on the machine that carries the bytes.
//!
//! The socket admits root and the daemon's own user. sshd opens forwarded sockets as whoever logged in, which is neither,
//! so the machine's `discod __door` does it, through sudo.

use super::session::Session;
use super::thread::on_tokio;
use crate::message::Failure;
use agent::drivers::pki::random_bytes;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};

/// With its NUL: unix(7), `sun_path`.
const SOCKET_PATH_MAX: usize = 108;
/// How the folder of a door's socket begins.
const NAME: &str = "door-";

/// Open while this lives.
pub struct Door {
    folder: PathBuf,
    socket: PathBuf,
    close: smol::channel::Sender<()>,
}

impl Door {
    /// `command` connects its stdin and stdout with the node's socket. In `home`, unless its path is too long for a socket.
    pub(super) async fn open(session: Session, command: String, home: &Path) -> Result<Door, Failure> {
        let name = format!("{NAME}{:016x}", u64::from_be_bytes(random_bytes()));
        let fits = home.as_os_str().len() + name.len() + "//control.sock".len() < SOCKET_PATH_MAX;
        let folder = if fits { home.to_owned() } else { elsewhere() }.join(name);
        let socket = folder.join("control.sock");
        let broken = |e: &dyn std::error::Error| Failure::broke(format!("cannot make the socket {}", socket.display())).caused_by(e);
        DirBuilder::new().mode(0o700).create(&folder).map_err(|e| broken(&e))?;
        let (close, closed) = smol::channel::bounded::<()>(1);
        let door = Door { folder, socket: socket.clone(), close };
        let path = socket.clone();
        let opened = on_tokio(async move {
            let listener = UnixListener::bind(path)?;
            tokio::spawn(async move {
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(carry(session.clone(), command.clone(), stream));
                    }
                };
                let shut = async {
                    let _ = closed.recv().await;
                };
                futures_lite::future::or(serve, shut).await;
            });
            std::io::Result::Ok(())
        });
        opened.await.map_err(|e| broken(&e))?;
        Ok(door)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The user's own folder of the session, if there is one: it goes with the session, whatever became of us.
fn elsewhere() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
    own.unwrap_or_else(std::env::temp_dir)
}

/// Removes what an interrupted `disco` left in `home`; only for who holds the folder's lock. Best effort.
pub fn sweep(home: &Path) {
    let left = fs::read_dir(home).into_iter().flatten().flatten();
    for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(NAME)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close.close();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A connection that cannot be carried is closed: whoever made it asks again.
async fn carry(session: Session, command: String, mut stream: UnixStream) {
    let Ok(channel) = session.handle().channel_open_session().await else { return };
    if channel.exec(false, command).await.is_ok() {
        let _ = copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
    }
}
