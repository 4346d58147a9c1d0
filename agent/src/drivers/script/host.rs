//! What the rest of the house sees of scripts: load one, call its hooks, get a value or an error a person can use.
//!
//! The process behind it comes and goes (idle, killed, died of its script); a call finds one, or makes one and
//! evaluates the module again.

use std::{
    collections::BTreeMap,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    pin::Pin,
    process::ExitStatus,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    clock::{Bounds, Clock, Verdict},
    error::{Place, ScriptError},
    executor::{Ended, Executor, State},
    frame::{Arg, Modules, ToChild, ToHost},
};
use crate::{
    drivers::syscall,
    model::limits::{
        EXTERNAL_COMMANDS_MAX, SCRIPT_BUSY_MS_MAX, SCRIPT_IDLE_MS, SCRIPT_INIT_MS_MAX, SCRIPT_MEMORY_BYTES_MAX, SCRIPT_TIME_MS_MAX,
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

/// One script and, while it is needed, the process that runs it.
pub struct ScriptHost {
    options: ScriptOptions,
    executor: Option<Executor>,
    file: Option<String>,
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
        self.executor.as_ref().map(Executor::pid)
    }

    /// Resolves when the executor has gone away by itself (idle, or killed) and is buried. At once if there is none.
    pub async fn gone(&mut self) {
        if let Some(executor) = &mut self.executor {
            executor.gone().await;
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
        let limits = &self.options.limits;
        let start = ToChild::Start {
            modules: self.options.modules.clone(),
            memory_bytes: limits.memory_bytes,
            idle_ms: u64::try_from(limits.idle.as_millis()).unwrap_or(u64::MAX),
            commands_max: limits.commands_max,
        };
        let mut executor = Executor::spawn(&self.options).map_err(failed)?;
        if let Err(e) = executor.greet(&start).await {
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
