//! `discod`: one node of a Disco cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "__script") {
        agent::drivers::script::child_main();
    }
    agent::daemon::run::main()
}
