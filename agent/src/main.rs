//! `discod`: one node of a Disco cluster.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(argument) if argument == "__script" => agent::drivers::script::child_main(),
        Some(argument) if argument == "__door" => return agent::daemon::relay::main(arguments.next()),
        _ => {}
    }
    agent::daemon::run::main()
}
