//! The executor process as its parent holds it: spawn, frames, the clock, the funeral.

use std::{
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    pin::Pin,
    process::{Child, Command, ExitStatus, Stdio},
    task::Poll,
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use serde_json::Value;

use super::{
    clock::{Clock, Look, Verdict},
    frame::{self, Decoder, Modules, ToChild, ToHost},
    host::{HostOps, ScriptOptions},
};
use crate::{
    drivers::syscall::{self, ChildSetup},
    model::limits::SCRIPT_REQUESTS_MAX,
};

/// How long a new executor may take to say that it is there.
const START_MAX: Duration = Duration::from_secs(10);
/// What it said while dying; more is noise.
const LAST_WORDS_BYTES_MAX: u64 = 4096;

/// A call that was given up half-way leaves an executor in the middle of something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No module yet.
    Fresh,
    Loaded,
    /// ... and init() returned its cluster.
    Initialized,
    /// ... and configure() registered what is called later.
    Configured,
    Working,
}

/// The process and the line to it.
pub struct Executor {
    child: Child,
    /// How it ended, once we have waited for it.
    ended: Option<ExitStatus>,
    socket: Async<UnixStream>,
    decoder: Decoder,
    pub state: State,
}

/// Why the executor must be buried.
pub enum Ended {
    Gone,
    Bound(Verdict),
    Talk(io::Error),
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Ended {
        match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Ended::Gone,
            _ => Ended::Talk(e),
        }
    }
}

enum Step {
    Frame(io::Result<Option<ToHost>>),
    Answer(u64, Result<Value, String>),
    Late(Verdict),
}

type Operation<'a> = (u64, Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>>);

impl Executor {
    /// # Errors
    /// The script's folder is not there, or what stops a process from being made.
    pub fn spawn(options: &ScriptOptions) -> io::Result<Executor> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&options.exe);
        command.arg("__script").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What `ps` shows.
        command.arg0("disco-script");
        if let Modules::Folder(folder) = &options.modules {
            if !folder.is_dir() {
                // Without this the message would be about the binary.
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no folder {}", folder.display())));
            }
            command.current_dir(folder);
        }
        if let Some(environment) = &options.environment {
            command.env_clear().envs(environment);
        }
        syscall::prepare_child(&mut command, ChildSetup { descriptor_3: Some(OwnedFd::from(theirs)), own_group: true });
        // First: what fails after the spawn would leave a process that nobody holds.
        let socket = Async::new(ours)?;
        Ok(Executor { child: command.spawn()?, ended: None, socket, decoder: Decoder::default(), state: State::Fresh })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has had of the processors so far.
    pub fn look(&self) -> Look {
        Look { now: Instant::now(), cpu: syscall::processor_time(self.pid()).unwrap_or_default() }
    }

    /// Tells it what it is for and waits until its limits are in force.
    ///
    /// # Errors
    /// It died, or takes longer than a new process may.
    pub async fn greet(&mut self, start: &ToChild) -> io::Result<()> {
        let hello = async {
            self.send(start).await?;
            match self.next_frame().await? {
                Some(ToHost::Ready) => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        let late = async {
            Timer::after(START_MAX).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        hello.or(late).await
    }

    /// Resolves when its end of the line is closed.
    pub async fn gone(&mut self) {
        while self.next_frame().await.is_ok_and(|frame| frame.is_some()) {}
    }

    /// Sends a request and serves the script until the answer is there.
    ///
    /// # Errors
    /// The executor must be buried.
    pub async fn serve<'a>(&mut self, request: &ToChild, clock: &mut Clock, ops: &'a dyn HostOps) -> Result<ToHost, Ended> {
        let mut operations: Vec<Operation<'a>> = Vec::new();
        self.send_in_time(request).await?;
        loop {
            let late = late(clock.poll_deadline());
            let frame = async { Step::Frame(self.next_frame().await) };
            // What the executor already said comes before the judgement that it says nothing.
            let step = frame.or(answered(&mut operations)).or(late).await;
            let look = self.look();
            match step {
                // It may have been given less time than has passed.
                Step::Late(verdict) if clock.is_over(look) => return Err(Ended::Bound(verdict)),
                Step::Late(_) => {}
                Step::Frame(Err(e)) => return Err(e.into()),
                Step::Frame(Ok(None)) => return Err(Ended::Gone),
                Step::Frame(Ok(Some(frame))) => match frame {
                    ToHost::Busy => clock.handle_busy(look),
                    ToHost::Waiting => clock.handle_waiting(look),
                    ToHost::Console { level, text } => ops.console(&level, &text),
                    ToHost::Operation { id, .. } if operations.len() == SCRIPT_REQUESTS_MAX => {
                        self.answer(id, Err("too many calls at once".to_owned())).await?;
                    }
                    ToHost::Operation { id, op, args } => {
                        operations.push((id, Box::pin(async move { ops.call(&op, args).await })));
                    }
                    answer @ (ToHost::Loaded { .. } | ToHost::Done { .. } | ToHost::Failed { .. }) => return Ok(answer),
                    ToHost::Ready => return Err(Ended::Talk(io::ErrorKind::InvalidData.into())),
                },
                Step::Answer(id, result) => {
                    self.answer(id, result).await?;
                    clock.handle_busy(look);
                }
            }
            clock.handle_asked(!operations.is_empty(), look.now);
        }
    }

    async fn answer(&mut self, id: u64, result: Result<Value, String>) -> Result<(), Ended> {
        match self.send_in_time(&ToChild::Answer { id, result }).await {
            Err(Ended::Talk(e)) if e.kind() == io::ErrorKind::InvalidData => {
                self.send_in_time(&ToChild::Answer { id, result: Err(format!("the answer is too large: {e}")) }).await
            }
            other => other,
        }
    }

    /// The executor's reader always reads, whatever the script does; if not, it is stopped or dead.
    async fn send_in_time(&mut self, frame: &ToChild) -> Result<(), Ended> {
        let late = async {
            Timer::after(START_MAX).await;
            Err(Ended::Bound(Verdict::Hung))
        };
        let send = async { self.send(frame).await.map_err(Ended::from) };
        send.or(late).await
    }

    async fn send(&mut self, frame: &ToChild) -> io::Result<()> {
        self.socket.write_all(&frame::encode(frame)?).await
    }

    /// The next frame; `None` when the executor is gone. May be given up at any time without losing a byte.
    async fn next_frame(&mut self) -> io::Result<Option<ToHost>> {
        loop {
            if let Some(frame) = self.decoder.poll_frame()? {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer).await? {
                0 => return Ok(None),
                n => self.decoder.handle_bytes(&buffer[..n]),
            }
        }
    }

    /// Kills the whole group and takes the executor's status and last words.
    pub fn bury(mut self) -> (ExitStatus, String) {
        let status = self.end();
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Nobody holds the other end any more (programs have pipes of their own), so this ends.
            let _ = stderr.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words);
        }
        (status, String::from_utf8_lossy(&words).trim().to_owned())
    }

    /// Kills the whole group and waits for the executor, once.
    fn end(&mut self) -> ExitStatus {
        *self.ended.get_or_insert_with(|| {
            // Its programs share the group. It is ours until we wait for it, so the number is not somebody else's by now.
            let _ = syscall::signal_group(self.child.id(), syscall::SIGKILL);
            self.child.wait().unwrap_or_default()
        })
    }
}

/// Whoever gives up a call, also in the middle of a start, leaves no process behind: std's `Child` would.
impl Drop for Executor {
    fn drop(&mut self) {
        self.end();
    }
}

/// Resolves with the verdict when the bound is passed.
async fn late(deadline: Option<(Instant, Verdict)>) -> Step {
    match deadline {
        None => future::pending().await,
        Some((at, verdict)) => {
            Timer::at(at).await;
            Step::Late(verdict)
        }
    }
}

/// Resolves with the first answer and takes its operation out.
async fn answered(operations: &mut Vec<Operation<'_>>) -> Step {
    future::poll_fn(|context| {
        for i in 0..operations.len() {
            if let Poll::Ready(result) = operations[i].1.as_mut().poll(context) {
                let (id, _) = operations.swap_remove(i);
                return Poll::Ready(Step::Answer(id, result));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, path::Path};

    #[test]
    fn an_executor_that_is_given_up_during_its_start_is_gone() {
        // It runs and never says that it is there.
        let options = ScriptOptions { exe: "yes".into(), ..ScriptOptions::new(Modules::Memory(BTreeMap::new())) };
        let mut executor = Executor::spawn(&options).expect("yes(1) is everywhere");
        let process = format!("/proc/{}", executor.pid());
        let start = ToChild::Start { modules: options.modules.clone(), memory_bytes: 0, idle_ms: 0, commands_max: 0, rehearsal: false };
        let greeting = future::block_on(future::poll_once(executor.greet(&start)));
        assert!(greeting.is_none() && Path::new(&process).exists());
        drop(executor);
        assert!(!Path::new(&process).exists(), "it runs, or nobody waited for it");
    }
}
