//! `discod __door SOCKET`: carries bytes between stdin and stdout and a node's control socket.
//!
//! That is how `disco` asks a node over SSH: the socket admits root and the daemon's user, and a socket that sshd forwards
//! is opened as whoever logged in.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::ExitCode,
    thread,
};

const CHUNK: usize = 16 * 1024;

pub fn main(socket: Option<OsString>) -> ExitCode {
    let Some(path) = socket else {
        eprintln!("error: `__door` is how disco asks a node over SSH; it is not a command");
        return ExitCode::from(2);
    };
    match UnixStream::connect(&path).and_then(relay) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot reach {}\n  caused by: {error}", path.display());
            ExitCode::from(1)
        }
    }
}

/// Until the node has said its last; what it is asked may end before.
fn relay(socket: UnixStream) -> io::Result<()> {
    let mut asked = socket.try_clone()?;
    thread::spawn(move || {
        let _ = carry(&mut io::stdin().lock(), &mut asked);
        let _ = asked.shutdown(Shutdown::Write);
    });
    carry(&mut &socket, &mut io::stdout().lock())
}

fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            length => {
                to.write_all(&chunk[..length])?;
                to.flush()?;
            }
        }
    }
}
