//! The parent's side: starts the executor, answers its questions, keeps its clock, and says how it ended.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, ExitStatus, Stdio},
    task::Poll,
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use serde_json::Value;

use super::{
    clock::{Bounds, Clock, Verdict},
    error::{Place, ScriptError},
    frame::{self, Arg, Decoder, Modules, ToChild, ToHost},
};
use crate::{
    drivers::syscall::{self, ChildSetup},
    model::limits::{
        EXTERNAL_COMMANDS_MAX, SCRIPT_BUSY_MS_MAX, SCRIPT_IDLE_MS, SCRIPT_INIT_MS_MAX, SCRIPT_MEMORY_BYTES_MAX, SCRIPT_REQUESTS_MAX,
        SCRIPT_TIME_MS_MAX,
    },
};

/// What the script may ask of whoever runs it.
pub trait HostOps {
    /// `op`: `cluster.scale`, `key.get`, `ask`, …; `args`: `{ cluster: options, … }`. An error's text reaches the script as its message.
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>>;
    /// A line of the script's console; `level`: log, info, warn, error, debug.
    fn console(&self, level: &str, text: &str);
}

/// What to run, and in which bounds.
#[derive(Clone, Debug)]
pub struct ScriptOptions {
    /// The binary to execute as `exe __script`; usually [`ScriptOptions::this_binary`].
    pub exe: PathBuf,
    pub modules: Modules,
    /// `ENV` of the script; `None`: this process's.
    pub environment: Option<BTreeMap<String, String>>,
    pub limits: Limits,
}

impl ScriptOptions {
    pub fn new(modules: Modules) -> ScriptOptions {
        ScriptOptions { exe: Self::this_binary(), modules, environment: None, limits: Limits::default() }
    }

    /// This process's own binary, also after the file was replaced by an upgrade.
    pub fn this_binary() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}

/// Bounds of a script; the defaults are those of `model/limits.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Above what the bare executor needs.
    pub memory_bytes: u64,
    /// Running without a pause.
    pub busy: Duration,
    /// Running in all, per hook.
    pub total: Duration,
    /// Loading, and init(): from begin to end, except while the host is asked.
    pub init: Duration,
    /// The executor ends after so long without work.
    pub idle: Duration,
    /// Programs of `run` at once.
    pub commands_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: SCRIPT_MEMORY_BYTES_MAX,
            busy: Duration::from_millis(SCRIPT_BUSY_MS_MAX),
            total: Duration::from_millis(SCRIPT_TIME_MS_MAX),
            init: Duration::from_millis(SCRIPT_INIT_MS_MAX),
            idle: Duration::from_millis(SCRIPT_IDLE_MS),
            commands_max: EXTERNAL_COMMANDS_MAX,
        }
    }
}

/// Names of the functions that the module exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exports {
    pub hooks: Vec<String>,
}

impl Exports {
    pub fn has(&self, hook: &str) -> bool {
        self.hooks.iter().any(|known| known == hook)
    }
}

/// How long a new executor may take to say that it is there.
const START_MAX: Duration = Duration::from_secs(10);
/// What it said while dying; more is noise.
const LAST_WORDS_BYTES_MAX: u64 = 4096;

/// One script and, while it is needed, the process that runs it.
pub struct ScriptHost {
    options: ScriptOptions,
    executor: Option<Executor>,
    file: Option<String>,
}

/// A call that was given up half-way leaves an executor in the middle of something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No module yet.
    Fresh,
    Loaded,
    /// ... and init() returned its cluster.
    Initialized,
    Working,
}

struct Executor {
    child: Child,
    socket: Async<UnixStream>,
    decoder: Decoder,
    state: State,
}

/// Why there is no answer.
enum Break {
    /// The executor had idled out before it saw the request.
    Idled,
    Error(ScriptError),
}

impl ScriptHost {
    /// Starts the executor, so that a binary that can't be executed is reported before anything else happens.
    ///
    /// # Errors
    /// [`ScriptError::Start`].
    pub async fn start(options: ScriptOptions) -> Result<ScriptHost, ScriptError> {
        let mut host = ScriptHost { options, executor: None, file: None };
        host.spawn().await?;
        Ok(host)
    }

    /// Evaluates the module `file` (a name inside the modules: `client.js`).
    ///
    /// # Errors
    /// Any [`ScriptError`]; the next call starts afresh.
    pub async fn load(&mut self, file: &str, ops: &dyn HostOps) -> Result<Exports, ScriptError> {
        self.file = Some(file.to_owned());
        // An executor holds one module graph: a second load starts another.
        if self.executor.as_ref().is_some_and(|e| e.state != State::Fresh) {
            self.stop();
        }
        self.load_again(ops).await
    }

    /// Calls the exported function `hook`. If the executor went away meanwhile, the module is evaluated again first,
    /// and init() is called again if its cluster is an argument: scripts keep their state in the cluster, not in variables.
    ///
    /// The result is what the hook returned, as JSON; for `init` the options of its cluster.
    ///
    /// # Errors
    /// Any [`ScriptError`]; the next call starts afresh unless it was [`ScriptError::Failed`].
    ///
    /// # Panics
    /// If no module was loaded before.
    pub async fn call(&mut self, hook: &str, args: Vec<Arg>, ops: &dyn HostOps) -> Result<Value, ScriptError> {
        assert!(self.file.is_some(), "load() comes before call()");
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.prepare(&args, ops).await?;
            match self.call_hook(hook, args.clone(), ops).await {
                Err(Break::Idled) if attempt == 1 => self.stop(),
                Err(Break::Idled) => return Err(self.gone_error(Some(hook))),
                Err(Break::Error(e)) => return Err(e),
                Ok(value) => return Ok(value),
            }
        }
    }

    /// Process id of the executor, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.executor.as_ref().map(|e| e.child.id())
    }

    /// Resolves when the executor has gone away by itself (idle, or killed) and is buried. At once if there is none.
    pub async fn gone(&mut self) {
        if let Some(executor) = &mut self.executor {
            while executor.next_frame().await.is_ok_and(|frame| frame.is_some()) {}
        }
        self.stop();
    }

    /// Ends the executor and all it started, at once.
    pub fn stop(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.bury();
        }
    }

    /// Makes sure that a loaded executor is there, with a cluster if the arguments want one.
    async fn prepare(&mut self, args: &[Arg], ops: &dyn HostOps) -> Result<(), ScriptError> {
        if self.executor.as_ref().is_some_and(|e| e.state == State::Working) {
            self.stop();
        }
        if self.executor.as_ref().is_none_or(|e| e.state == State::Fresh) {
            self.load_again(ops).await?;
        }
        let wants_cluster = args.contains(&Arg::Handle);
        if wants_cluster && self.executor.as_ref().is_some_and(|e| e.state == State::Loaded) {
            match self.call_hook("init", Vec::new(), ops).await {
                Ok(_) => {}
                // It idled out this very moment. The call that follows finds out as well, and tries once more.
                Err(Break::Idled) => {}
                Err(Break::Error(e)) => return Err(e),
            }
        }
        Ok(())
    }

    async fn load_again(&mut self, ops: &dyn HostOps) -> Result<Exports, ScriptError> {
        let file = self.file.clone().expect("load() set it");
        let bounds = Bounds { whole: Some(self.options.limits.init), ..self.bounds() };
        let mut attempt = 0;
        loop {
            attempt += 1;
            if self.executor.is_none() {
                self.spawn().await?;
            }
            match self.exchange(ToChild::Load { file: file.clone() }, bounds, None, ops).await {
                Ok(ToHost::Loaded { hooks }) => {
                    self.set_state(State::Loaded);
                    return Ok(Exports { hooks });
                }
                Ok(_) => return Err(self.senseless(None)),
                Err(Break::Idled) if attempt == 1 => self.stop(),
                Err(Break::Idled) => return Err(self.gone_error(None)),
                Err(Break::Error(e)) => {
                    // A module that failed to evaluate cannot be evaluated again in the same context.
                    self.stop();
                    return Err(e);
                }
            }
        }
    }

    async fn call_hook(&mut self, hook: &str, args: Vec<Arg>, ops: &dyn HostOps) -> Result<Value, Break> {
        let before = self.executor.as_ref().map_or(State::Fresh, |e| e.state);
        let whole = (hook == "init").then_some(self.options.limits.init);
        let bounds = Bounds { whole, ..self.bounds() };
        match self.exchange(ToChild::Call { hook: hook.to_owned(), args }, bounds, Some(hook), ops).await {
            Ok(ToHost::Done { value }) => {
                self.set_state(if hook == "init" { State::Initialized } else { before });
                Ok(value)
            }
            Ok(_) => Err(Break::Error(self.senseless(Some(hook)))),
            Err(Break::Error(e @ ScriptError::Failed { .. })) => {
                self.set_state(before);
                Err(Break::Error(e))
            }
            Err(other) => Err(other),
        }
    }

    /// Sends a request and serves the executor until it answers or has to be stopped.
    async fn exchange(&mut self, request: ToChild, bounds: Bounds, hook: Option<&str>, ops: &dyn HostOps) -> Result<ToHost, Break> {
        let place = self.place(hook);
        let Some(executor) = self.executor.as_mut() else { return Err(Break::Idled) };
        executor.state = State::Working;
        let mut clock = Clock::new(bounds, Instant::now());
        let ended = match executor.serve(&request, &mut clock, ops).await {
            Ok(ToHost::Failed { message, stack }) => return Err(Break::Error(ScriptError::Failed { place, message, stack })),
            Ok(answer) => return Ok(answer),
            Err(ended) => ended,
        };
        let (status, words) = self.executor.take().map(Executor::bury).unwrap_or_default();
        Err(match ended {
            Ended::Bound(Verdict::Hung) => Break::Error(ScriptError::Hung { place, limit: bounds.busy }),
            Ended::Bound(Verdict::Greedy) => Break::Error(ScriptError::Greedy { place, limit: bounds.total }),
            Ended::Bound(Verdict::TooLong) => Break::Error(ScriptError::TooLong { place, limit: bounds.whole.unwrap_or_default() }),
            Ended::Talk(source) => Break::Error(ScriptError::Talk { place, source }),
            Ended::Gone => epitaph(place, status, words, self.options.limits.memory_bytes),
        })
    }

    async fn spawn(&mut self) -> Result<(), ScriptError> {
        let failed = |source| ScriptError::Start { exe: self.options.exe.display().to_string(), source };
        let mut executor = Executor::spawn(&self.options).map_err(failed)?;
        let limits = &self.options.limits;
        let start = ToChild::Start {
            modules: self.options.modules.clone(),
            memory_bytes: limits.memory_bytes,
            idle_ms: u64::try_from(limits.idle.as_millis()).unwrap_or(u64::MAX),
            commands_max: limits.commands_max,
        };
        let hello = async {
            executor.send(&start).await?;
            match executor.next_frame().await? {
                Some(ToHost::Ready) => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        let late = async {
            Timer::after(START_MAX).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        if let Err(e) = hello.or(late).await {
            let (status, words) = executor.bury();
            return Err(failed(io::Error::new(e.kind(), format!("{e} ({status}) {words}"))));
        }
        self.executor = Some(executor);
        Ok(())
    }

    fn bounds(&self) -> Bounds {
        Bounds { busy: self.options.limits.busy, total: self.options.limits.total, whole: None }
    }

    fn set_state(&mut self, state: State) {
        if let Some(executor) = &mut self.executor {
            executor.state = state;
        }
    }

    fn place(&self, hook: Option<&str>) -> Place {
        Place { file: self.file.clone().unwrap_or_default(), hook: hook.map(str::to_owned) }
    }

    fn senseless(&mut self, hook: Option<&str>) -> ScriptError {
        self.stop();
        ScriptError::Talk { place: self.place(hook), source: io::Error::new(io::ErrorKind::InvalidData, "an answer to something else") }
    }

    fn gone_error(&mut self, hook: Option<&str>) -> ScriptError {
        ScriptError::Talk {
            place: self.place(hook),
            source: io::Error::new(io::ErrorKind::UnexpectedEof, "it ends as soon as it is started"),
        }
    }
}

impl Drop for ScriptHost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why the executor must be buried.
enum Ended {
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
    fn spawn(options: &ScriptOptions) -> io::Result<Executor> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&options.exe);
        command.arg("__script").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Modules::Folder(folder) = &options.modules {
            command.current_dir(folder);
        }
        if let Some(environment) = &options.environment {
            command.env_clear().envs(environment);
        }
        syscall::prepare_child(
            &mut command,
            ChildSetup { descriptor_3: Some(OwnedFd::from(theirs)), own_group: true, ..ChildSetup::default() },
        );
        let child = command.spawn()?;
        Ok(Executor { child, socket: Async::new(ours)?, decoder: Decoder::default(), state: State::Fresh })
    }

    async fn serve<'a>(&mut self, request: &ToChild, clock: &mut Clock, ops: &'a dyn HostOps) -> Result<ToHost, Ended> {
        let mut operations: Vec<Operation<'a>> = Vec::new();
        self.send_in_time(request).await?;
        loop {
            let late = late(clock.poll_deadline());
            let frame = async { Step::Frame(self.next_frame().await) };
            // What the executor already said comes before the judgement that it says nothing.
            let step = frame.or(answered(&mut operations)).or(late).await;
            let now = Instant::now();
            match step {
                Step::Late(verdict) => return Err(Ended::Bound(verdict)),
                Step::Frame(Err(e)) => return Err(e.into()),
                Step::Frame(Ok(None)) => return Err(Ended::Gone),
                Step::Frame(Ok(Some(frame))) => match frame {
                    ToHost::Busy => clock.handle_busy(now),
                    ToHost::Waiting => clock.handle_waiting(now),
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
                    clock.handle_busy(now);
                }
            }
            clock.handle_asked(!operations.is_empty(), now);
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
    fn bury(mut self) -> (ExitStatus, String) {
        // Its programs share the group. It is ours until we wait for it, so the number is not somebody else's by now.
        let _ = syscall::signal_group(self.child.id(), syscall::SIGKILL);
        let status = self.child.wait().unwrap_or_default();
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Nobody holds the other end any more (programs have pipes of their own), so this ends.
            let _ = stderr.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words);
        }
        (status, String::from_utf8_lossy(&words).trim().to_owned())
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

/// What a status and the last words mean.
fn epitaph(place: Place, status: ExitStatus, words: String, limit_bytes: u64) -> Break {
    // What the allocator, and collections that cannot even ask it, say at the end.
    let out_of_memory = ["memory allocation of", "capacity overflow", "out of memory"].iter().any(|sign| words.contains(sign));
    Break::Error(match status.signal() {
        None if status.success() => return Break::Idled,
        _ if out_of_memory => ScriptError::Memory { place, limit_bytes },
        _ if words.contains("overflowed its stack") => ScriptError::Stack { place },
        Some(signal @ (syscall::SIGKILL | syscall::SIGTERM | syscall::SIGINT | syscall::SIGHUP)) => ScriptError::Killed { place, signal },
        _ => ScriptError::Crashed { place, status, words: words.lines().last().unwrap_or("no last words").to_owned() },
    })
}
