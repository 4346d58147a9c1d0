//! `disco`: the person's command.
//!
//! It holds no state of its own: a command line becomes a `Command` (`args`), a folder says which cluster is meant
//! (`context`), a `client` asks it, `render` shows the answer, `message` the refusal. Only `bootstrap` and `destroy` run the
//! folder's client.js, in a child process.

mod args;
mod bootstrap;
mod client;
mod commands;
mod context;
mod identity;
mod install;
mod journal;
mod message;
mod modules;
mod out;
mod removal;
mod render;

use message::Failure;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    // Small and short-lived: one arena will do.
    agent::drivers::syscall::tune_memory();
    let mut arguments = std::env::args_os().skip(1);
    // The same binary, started again by itself: the script executor.
    if std::env::args_os().nth(1).is_some_and(|word| word == "__script") {
        agent::drivers::script::child_main();
    }
    let outcome = args::parse(&mut arguments).and_then(|invocation| {
        // One thread: a command waits far more than it works.
        let executor = Arc::new(smol::Executor::new());
        let spawner = proto::Spawner(executor.clone());
        smol::block_on(executor.run(commands::run(invocation, &spawner)))
    });
    let exit = outcome.unwrap_or_else(|failure: Failure| {
        out::Out::new(false).complain(&failure);
        failure.exit()
    });
    ExitCode::from(exit.code())
}
