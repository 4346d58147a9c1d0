//! `run`: a native program without a shell, bounded in time and output.
//!
//! The program gets back the address space that the script was denied: the limit is lifted in our own process while
//! it is being started (nothing else allocates meanwhile: the script's thread is the one that starts it).
//! It stays in the executor's process group, so that whatever ends the script ends its programs as well.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{child::THREAD_STACK_BYTES, error::seconds};
use crate::{
    drivers::syscall::{self, Ready, Resource},
    model::limits::{EXTERNAL_COMMAND_OUTPUT_BYTES_MAX, EXTERNAL_COMMAND_TIMEOUT_MS},
};

/// poll(2) says "room" for a pipe when so much fits without waiting (POSIX PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// How often a program is looked at that closed its output and goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Request {
    program: String,
    args: Vec<String>,
    stdin: Option<String>,
    cwd: Option<String>,
    timeout_ms: Option<u64>,
}

/// Starts the program that `prelude.js` described; `done` gets `{ status, signal, stdout, stderr }` or why there is none.
pub fn start(request: Value, done: impl FnOnce(Result<Value, String>) + Clone + Send + 'static) {
    let request: Request = match serde_json::from_value(request) {
        Ok(request) => request,
        Err(e) => return done(Err(format!("run(): {e}"))),
    };
    let child = match spawn(&request) {
        Ok(child) => child,
        Err(e) => return done(Err(format!("cannot run `{}`: {e}", request.program))),
    };
    let (spare, program) = (done.clone(), request.program.clone());
    let spawned = thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(move || {
        let timeout = Duration::from_millis(request.timeout_ms.unwrap_or(EXTERNAL_COMMAND_TIMEOUT_MS));
        done(watch(child, request.stdin.unwrap_or_default().into_bytes(), timeout).map_err(|why| format!("`{}` {why}", request.program)));
    });
    if let Err(e) = spawned {
        spare(Err(format!("cannot watch `{program}`: {e}")));
    }
}

fn spawn(request: &Request) -> io::Result<Child> {
    let mut command = Command::new(&request.program);
    command.args(&request.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(folder) = &request.cwd {
        command.current_dir(folder);
    }
    let ours = syscall::limit(Resource::AddressSpace)?;
    syscall::set_soft_limit(Resource::AddressSpace, ours.hard)?;
    let child = command.spawn();
    syscall::set_soft_limit(Resource::AddressSpace, ours.soft)?;
    child
}

fn watch(mut child: Child, input: Vec<u8>, timeout: Duration) -> Result<Value, String> {
    let deadline = Instant::now() + timeout;
    let result = talk(&mut child, &input, deadline).and_then(|output| Ok((output, wait(&mut child, deadline)?)));
    match result {
        Ok(((stdout, stderr), status)) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(json!({ "status": status.code(), "signal": status.signal(), "stdout": text(&stdout), "stderr": text(&stderr) }))
        }
        Err(trouble) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(match trouble {
                Trouble::TooLong => format!("took longer than {} and was stopped", seconds(timeout)),
                Trouble::TooMuch => format!("wrote more than {} KiB and was stopped", EXTERNAL_COMMAND_OUTPUT_BYTES_MAX / 1024),
                Trouble::Io(e) => format!("could not be watched: {e}"),
            })
        }
    }
}

enum Trouble {
    TooLong,
    TooMuch,
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Trouble {
        Trouble::Io(e)
    }
}

/// Feeds the program and reads it, both at once, until it closed its outputs.
fn talk(child: &mut Child, mut input: &[u8], deadline: Instant) -> Result<(Vec<u8>, Vec<u8>), Trouble> {
    let (mut stdin, mut out, mut err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        if input.is_empty() {
            stdin = None;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Trouble::TooLong);
        }
        let wanted = [stdin.as_ref().map(|s| (s.as_fd(), Ready::Write)), readable(out.as_ref()), readable(err.as_ref())];
        let [can_write, out_ready, err_ready] = syscall::poll(wanted, left)?;
        if can_write {
            feed(&mut stdin, &mut input);
        }
        if out_ready {
            drain(&mut out, &mut stdout)?;
        }
        if err_ready {
            drain(&mut err, &mut stderr)?;
        }
        if stdout.len() + stderr.len() > EXTERNAL_COMMAND_OUTPUT_BYTES_MAX {
            return Err(Trouble::TooMuch);
        }
    }
    Ok((stdout, stderr))
}

fn readable<P: AsFd>(pipe: Option<&P>) -> Option<(BorrowedFd<'_>, Ready)> {
    pipe.map(|pipe| (pipe.as_fd(), Ready::Read))
}

/// A program need not read all of its input (`head -1`): then we stop, and that is no error.
fn feed(stdin: &mut Option<ChildStdin>, input: &mut &[u8]) {
    let Some(pipe) = stdin else { return };
    match pipe.write(&input[..input.len().min(PIPE_BUF)]) {
        Ok(written) => *input = &input[written..],
        Err(_) => *stdin = None,
    }
}

fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    let mut buffer = [0; 8192];
    match open.read(&mut buffer)? {
        0 => *pipe = None,
        n => into.extend_from_slice(&buffer[..n]),
    }
    Ok(())
}

fn wait(child: &mut Child, deadline: Instant) -> Result<std::process::ExitStatus, Trouble> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Trouble::TooLong);
        }
        thread::sleep(LOOK_AGAIN);
    }
}
