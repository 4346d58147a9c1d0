//! What the rest of the house sees of scripts: load one, call its hooks, get a value or an error a person can use.
//!
//! The process behind it comes and goes (idle, killed, died of its script); a call finds one, or makes one and
//! evaluates the module again.

use std::{collections::BTreeMap, io, os::unix::process::ExitStatusExt, path::PathBuf, pin::Pin, process::ExitStatus, time::Duration};

use serde_json::Value;

use super::{
    clock::{Bounds, Clock, Verdict},
    declared::Declared,
    error::{Place, ScriptError},
    executor::{Ended, Executor, State},
    frame::{Arg, Mode, Modules, Target, ToChild, ToHost},
};
use crate::{
    drivers::syscall,
    model::limits::{
        EXTERNAL_COMMANDS_MAX, SCRIPT_BUSY_MS_MAX, SCRIPT_CONFIGURE_MS_MAX, SCRIPT_HOOK_MS_MAX, SCRIPT_IDLE_MS, SCRIPT_INIT_MS_MAX,
        SCRIPT_MEMORY_BYTES_MAX, SCRIPT_TIME_MS_MAX,
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
    /// Only what it asks for is of interest: `run` and `fetch` are refused, for they would really happen.
    pub rehearsal: bool,
}

impl ScriptOptions {
    pub fn new(modules: Modules) -> ScriptOptions {
        ScriptOptions { exe: Self::this_binary(), modules, environment: None, limits: Limits::default(), rehearsal: false }
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
    /// Loading, and init(): from begin to end; in client.js except while the host is asked.
    pub init: Duration,
    /// configure() of cluster.js, from begin to end.
    pub configure: Duration,
    /// The other hooks of cluster.js, from begin to end.
    pub hook: Duration,
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
            configure: Duration::from_millis(SCRIPT_CONFIGURE_MS_MAX),
            hook: Duration::from_millis(SCRIPT_HOOK_MS_MAX),
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
    pub(super) options: ScriptOptions,
    pub(super) executor: Option<Executor>,
    pub(super) file: Option<String>,
    /// What the newest configure() of cluster.js left behind.
    pub(super) declared: Option<Declared>,
    /// What the newest load found.
    pub(super) exports: Option<Exports>,
}

/// Why there is no answer.
pub(super) enum Break {
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
        let mut host = ScriptHost { options, executor: None, file: None, declared: None, exports: None };
        host.spawn().await?;
        Ok(host)
    }

    /// Evaluates the module `file` (a name inside the modules: `client.js`).
    ///
    /// # Errors
    /// Any [`ScriptError`]; the next call starts afresh.
    pub async fn load(&mut self, file: &str, ops: &dyn HostOps) -> Result<Exports, ScriptError> {
        self.file = Some(file.to_owned());
        self.make_fresh();
        self.load_again(Mode::Client, ops).await
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
        let needed = if args.contains(&Arg::Handle) { State::Initialized } else { State::Loaded };
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.prepare(needed, Mode::Client, ops).await?;
            let target = Target::Hook(hook.to_owned());
            match self.call_target(target, args.clone(), Mode::Client, ops).await {
                Err(Break::Idled) if attempt == 1 => self.stop(),
                Err(Break::Idled) => return Err(self.gone_error(Some(format!("{hook}()")))),
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

    pub(super) fn state(&self) -> Option<State> {
        self.executor.as_ref().map(|executor| executor.state)
    }

    /// An executor holds one module graph: a second load takes another.
    pub(super) fn make_fresh(&mut self) {
        if self.state().is_some_and(|state| state != State::Fresh) {
            self.stop();
        }
    }

    /// Makes sure that an executor is there that is loaded and, if so much is needed, has called init().
    pub(super) async fn prepare(&mut self, needed: State, mode: Mode, ops: &dyn HostOps) -> Result<(), ScriptError> {
        if self.state() == Some(State::Working) {
            self.stop();
        }
        if self.state().is_none_or(|state| state == State::Fresh) {
            self.load_again(mode, ops).await?;
        }
        if needed >= State::Initialized && self.state() == Some(State::Loaded) {
            match self.call_target(Target::Hook("init".to_owned()), Vec::new(), mode, ops).await {
                Ok(_) => {}
                // It idled out this very moment. The call that follows finds out as well, and tries once more.
                Err(Break::Idled) => {}
                Err(Break::Error(e)) => return Err(e),
            }
        }
        Ok(())
    }

    async fn load_again(&mut self, mode: Mode, ops: &dyn HostOps) -> Result<Exports, ScriptError> {
        let file = self.file.clone().expect("load() or for_cluster() set it");
        let bounds = self.bounds(mode, Some(self.options.limits.init));
        let mut attempt = 0;
        loop {
            attempt += 1;
            if self.executor.is_none() {
                self.spawn().await?;
            }
            match self.exchange(ToChild::Load { file: file.clone(), mode }, bounds, None, ops).await {
                Ok(ToHost::Loaded { hooks }) => {
                    self.set_state(State::Loaded);
                    let exports = Exports { hooks };
                    self.exports = Some(exports.clone());
                    return Ok(exports);
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

    pub(super) async fn call_target(&mut self, target: Target, args: Vec<Arg>, mode: Mode, ops: &dyn HostOps) -> Result<Value, Break> {
        let label = match &target {
            Target::Hook(name) => format!("{name}()"),
            Target::Configure => "configure()".to_owned(),
            Target::Registered(number) => self.label(*number),
            Target::Expression { .. } => "eval".to_owned(),
        };
        let before = self.state().unwrap_or(State::Fresh);
        let (whole, after) = match (&target, mode) {
            (Target::Hook(name), _) if name == "init" => (Some(self.options.limits.init), State::Initialized),
            (Target::Configure, _) => (Some(self.options.limits.configure), State::Configured),
            (_, Mode::Client) => (None, before),
            _ => (Some(self.options.limits.hook), before),
        };
        let bounds = self.bounds(mode, whole);
        match self.exchange(ToChild::Call { target, args, mode }, bounds, Some(label.clone()), ops).await {
            Ok(ToHost::Done { value }) => {
                self.set_state(after);
                Ok(value)
            }
            Ok(_) => Err(Break::Error(self.senseless(Some(label)))),
            Err(Break::Error(e @ ScriptError::Failed { .. })) => {
                self.set_state(before);
                Err(Break::Error(e))
            }
            Err(other) => Err(other),
        }
    }

    /// Sends a request and serves the executor until it answers or has to be stopped.
    async fn exchange(&mut self, request: ToChild, bounds: Bounds, hook: Option<String>, ops: &dyn HostOps) -> Result<ToHost, Break> {
        let place = self.place(hook);
        let Some(executor) = self.executor.as_mut() else { return Err(Break::Idled) };
        executor.state = State::Working;
        let mut clock = Clock::new(bounds, executor.look());
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

    pub(super) async fn spawn(&mut self) -> Result<(), ScriptError> {
        let failed = |source| ScriptError::Start { exe: self.options.exe.display().to_string(), source };
        let limits = &self.options.limits;
        let start = ToChild::Start {
            modules: self.options.modules.clone(),
            memory_bytes: limits.memory_bytes,
            idle_ms: u64::try_from(limits.idle.as_millis()).unwrap_or(u64::MAX),
            commands_max: limits.commands_max,
            rehearsal: self.options.rehearsal,
        };
        let mut executor = Executor::spawn(&self.options).map_err(failed)?;
        if let Err(e) = executor.greet(&start).await {
            let (status, words) = executor.bury();
            return Err(failed(io::Error::new(e.kind(), format!("{e} ({status}) {words}"))));
        }
        self.executor = Some(executor);
        Ok(())
    }

    fn bounds(&self, mode: Mode, whole: Option<Duration>) -> Bounds {
        Bounds { busy: self.options.limits.busy, total: self.options.limits.total, whole, asking_counts: mode != Mode::Client }
    }

    fn set_state(&mut self, state: State) {
        if let Some(executor) = &mut self.executor {
            executor.state = state;
        }
    }

    fn place(&self, hook: Option<String>) -> Place {
        Place { file: self.file.clone().unwrap_or_default(), hook }
    }

    fn senseless(&mut self, hook: Option<String>) -> ScriptError {
        self.stop();
        ScriptError::Talk { place: self.place(hook), source: io::Error::new(io::ErrorKind::InvalidData, "an answer to something else") }
    }

    pub(super) fn gone_error(&mut self, hook: Option<String>) -> ScriptError {
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
