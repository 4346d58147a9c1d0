//! Runs client.js. The executor lives only while a hook does.

use super::ops::Ops;
use super::options::Options;
use crate::context::Context;
use crate::message::Failure;
use agent::drivers::{
    script::{Arg, Exports, Modules, ScriptError, ScriptHost, ScriptOptions},
    syscall,
};
use futures_lite::future::or;

const FILE: &str = "client.js";

pub struct Script {
    host: ScriptHost,
    exports: Exports,
}

impl Script {
    pub fn is_there(context: &Context) -> bool {
        context.folder.join(FILE).exists()
    }

    /// # Errors
    /// There is no client.js.
    pub fn must_be_there(context: &Context) -> Result<(), Failure> {
        if Script::is_there(context) {
            return Ok(());
        }
        Err(Failure::broke(format!("there is no client.js in {}", context.folder.display()))
            .hint("`disco init` writes a starting folder; `--dir` names another one"))
    }

    /// # Errors
    /// There is no client.js, or it does not load.
    pub async fn load(context: &Context, ops: &Ops) -> Result<Script, Failure> {
        Script::must_be_there(context)?;
        let mut host = ScriptHost::start(ScriptOptions::new(Modules::Folder(context.folder.clone()))).await.map_err(|e| broke(&e))?;
        let exports = host.load(FILE, ops).await.map_err(|e| broke(&e))?;
        Ok(Script { host, exports })
    }

    pub fn has(&self, hook: &str) -> bool {
        self.exports.has(hook)
    }

    /// # Errors
    /// There is no such export.
    pub fn require(&self, hook: &str, example: &str) -> Result<(), Failure> {
        if self.has(hook) {
            return Ok(());
        }
        Err(Failure::broke(format!("client.js does not export `{hook}`")).hint(format!("it needs `{example}`")))
    }

    /// Calls init(): what cluster is meant.
    ///
    /// # Errors
    /// It throws, is stopped, or returns something else.
    pub async fn init(&mut self, ops: &Ops) -> Result<Options, Failure> {
        self.require("init", "export async function init() { … return new Cluster({ name, provider }); }")?;
        let value = self.host.call("init", Vec::new(), ops).await.map_err(|e| broke(&e))?;
        Options::read(&value).ok_or_else(|| {
            Failure::broke("init() of client.js returned no cluster").hint("it has to `return new Cluster({ name, provider })`")
        })
    }

    /// Calls a hook with the cluster that init() returned.
    ///
    /// # Errors
    /// It throws, or is stopped.
    pub async fn call(&mut self, hook: &str, ops: &Ops) -> Result<(), Failure> {
        let called = or(self.host.call(hook, vec![Arg::Handle], ops), give_memory_back()).await;
        called.map(drop).map_err(|e| {
            ops.take_failure()
                .filter(|f| matches!(&e, ScriptError::Failed { message, .. } if message.contains(f.what())))
                .map_or_else(|| broke(&e), |f| in_script(f, &e))
        })
    }
}

/// A hook may wait for minutes, and code that ran once and what deep calls needed of the stack would lie in memory meanwhile. Never ends.
async fn give_memory_back<T>() -> T {
    loop {
        async_io::Timer::after(syscall::CODE_KEPT).await;
        // It saves memory and nothing else: without it all goes on.
        let _ = syscall::release_stack();
        let _ = syscall::release_code_pages();
    }
}

fn broke(error: &ScriptError) -> Failure {
    match error {
        ScriptError::Failed { place, message, stack } => {
            let failure = Failure::broke(format!("{place} failed"));
            failure.because(format!("{message}\n{}", unindented(stack)))
        }
        other => Failure::broke(other.to_string()).caused_by(std::error::Error::source(other).unwrap_or(other)),
    }
}

/// A step failed and the script let it through: the step's own failure says more than the exception made of it.
fn in_script(failure: Failure, error: &ScriptError) -> Failure {
    match error {
        ScriptError::Failed { stack, .. } if !stack.trim().is_empty() => failure.because(format!("asked for {}", unindented(stack))),
        _ => failure,
    }
}

fn unindented(stack: &str) -> String {
    stack.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
