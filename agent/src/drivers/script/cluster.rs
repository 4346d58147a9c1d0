//! cluster.js, as a node calls it: configure, then hooks and what was registered.
//!
//! Between two calls the executor may have gone away, and with it the functions that `every` and `on` were given. The
//! next call makes another one, lets the module register them again (silently, and what it declares meanwhile is not
//! looked at), and finds them by number. A script that registers something else the second time cannot be called.

use std::{pin::Pin, time::Duration};

use serde_json::Value;

use super::{
    declared::Declared,
    error::{Place, ScriptError, seconds},
    executor::State,
    frame::{Arg, Mode, Target},
    host::{Break, HostOps, ScriptHost, ScriptOptions},
};
use crate::model::script::RegistrationKind;

pub const FILE: &str = "cluster.js";

impl ScriptHost {
    /// A host for cluster.js. No process is started yet.
    pub fn for_cluster(options: ScriptOptions) -> ScriptHost {
        ScriptHost { options, executor: None, file: Some(FILE.to_owned()), declared: None, exports: None }
    }

    /// Evaluates the modules anew and calls init() and configure(). What they register replaces what was before.
    /// The name: of the cluster that init() returned.
    ///
    /// # Errors
    /// Any [`ScriptError`].
    pub async fn configure(&mut self, ops: &dyn HostOps) -> Result<(String, Declared), ScriptError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.make_fresh();
            match self.configure_once(ops).await {
                Err(Break::Idled) if attempt == 1 => self.stop(),
                Err(Break::Idled) => return Err(self.gone_error(Some("configure()".into()))),
                Err(Break::Error(e)) => return Err(e),
                Ok((name, declared)) => {
                    self.declared = Some(declared.clone());
                    return Ok((name, declared));
                }
            }
        }
    }

    /// Calls `leader(cluster, node)` or another hook; there need be none of that name.
    ///
    /// # Errors
    /// Any [`ScriptError`].
    pub async fn hook(&mut self, name: &str, argument: Value, ops: &dyn HostOps) -> Result<(), ScriptError> {
        if self.exports.as_ref().is_some_and(|exports| !exports.has(name)) {
            // Known without starting a process for it.
            return Ok(());
        }
        let args = vec![Arg::Handle, Arg::Json(argument)];
        self.live(Target::Hook(name.to_owned()), args, State::Configured, ops).await.map(drop)
    }

    /// Calls what was registered as `number` with this argument.
    ///
    /// # Errors
    /// Any [`ScriptError`].
    pub async fn registered(&mut self, number: u32, argument: Value, ops: &dyn HostOps) -> Result<(), ScriptError> {
        let is_timer = matches!(self.kind(number), Some(RegistrationKind::Every { .. }));
        let args = if is_timer { Vec::new() } else { vec![Arg::Json(argument)] };
        self.live(Target::Registered(number), args, State::Configured, ops).await.map(drop)
    }

    /// Evaluates an expression (or statements) and prints its value. Without cluster.js there is a `cluster` of this name.
    ///
    /// # Errors
    /// Any [`ScriptError`].
    pub async fn evaluate(&mut self, text: &str, cluster: &str, ops: &dyn HostOps) -> Result<String, ScriptError> {
        let target = Target::Expression { text: text.to_owned(), cluster: cluster.to_owned() };
        let needed = if self.options.modules.has(FILE) { State::Initialized } else { State::Fresh };
        let value = self.live(target, Vec::new(), needed, ops).await?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    async fn live(&mut self, target: Target, args: Vec<Arg>, needed: State, ops: &dyn HostOps) -> Result<Value, ScriptError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let outcome = match self.get_ready(needed, ops).await {
                Ok(()) => self.call_target(target.clone(), args.clone(), Mode::Live, ops).await,
                Err(why) => Err(why),
            };
            match outcome {
                Err(Break::Idled) if attempt == 1 => self.stop(),
                Err(Break::Idled) => return Err(self.gone_error(None)),
                Err(Break::Error(e)) => return Err(e),
                Ok(value) => return Ok(value),
            }
        }
    }

    /// An executor that knows the modules, and as much of them as is needed.
    async fn get_ready(&mut self, needed: State, ops: &dyn HostOps) -> Result<(), Break> {
        let quiet = Quiet(ops);
        if needed == State::Fresh {
            if self.state().is_none_or(|state| state == State::Working) {
                self.stop();
                self.spawn().await.map_err(Break::Error)?;
            }
            return Ok(());
        }
        if self.state().is_some_and(|state| state == State::Working) {
            self.stop();
        }
        if needed < State::Configured {
            return self.prepare(needed, Mode::Recording, &quiet).await.map_err(Break::Error);
        }
        if self.state() == Some(State::Configured) {
            return Ok(());
        }
        // Something ran in it that configure() would follow: what it registered then is not known any more.
        self.make_fresh();
        let (_, declared) = self.configure_once(&quiet).await?;
        let known = self.declared.get_or_insert_with(|| declared.clone());
        if known.registrations == declared.registrations {
            return Ok(());
        }
        self.stop();
        let place = Place { file: FILE.to_owned(), hook: Some("configure()".to_owned()) };
        Err(Break::Error(ScriptError::Failed { place, message: DIFFERENT.to_owned(), stack: String::new() }))
    }

    async fn configure_once(&mut self, ops: &dyn HostOps) -> Result<(String, Declared), Break> {
        self.prepare(State::Loaded, Mode::Recording, ops).await.map_err(Break::Error)?;
        let options = self.call_target(Target::Hook("init".to_owned()), Vec::new(), Mode::Recording, ops).await?;
        let value = self.call_target(Target::Configure, vec![Arg::Handle], Mode::Recording, ops).await?;
        let declared = Declared::read(&value, &options).map_err(|message| {
            let place = Place { file: FILE.to_owned(), hook: Some("configure()".to_owned()) };
            Break::Error(ScriptError::Failed { place, message, stack: String::new() })
        })?;
        Ok((options["name"].as_str().unwrap_or_default().to_owned(), declared))
    }

    fn kind(&self, number: u32) -> Option<&RegistrationKind> {
        self.declared.as_ref()?.registrations.get(number as usize)?.as_ref()
    }

    /// What a person wrote to have `number` called.
    pub(super) fn label(&self, number: u32) -> String {
        match self.kind(number) {
            Some(RegistrationKind::Every { interval_ms }) => format!("every({})", seconds(Duration::from_millis(*interval_ms))),
            Some(RegistrationKind::On { event }) => format!("on(\"{event}\")"),
            Some(RegistrationKind::Key { name }) => format!("key(\"{name}\").on(\"change\")"),
            None => format!("registration {number}"),
        }
    }
}

const DIFFERENT: &str = "it registers other functions than the last time (every, on): \
    the executor went away meanwhile, and finds them again by their order, so that must not depend on anything that changes";

/// What a script says while it only registers its functions again, people have read before.
struct Quiet<'a>(&'a dyn HostOps);

impl HostOps for Quiet<'_> {
    fn call<'a>(&'a self, op: &'a str, args: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        self.0.call(op, args)
    }

    fn console(&self, _: &str, _: &str) {}
}
