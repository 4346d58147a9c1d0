//! Services: what runs, what it says, and the script that declares it.

use super::folder::NO_WAIT;
use super::{FOLLOW, STALE, YES, needs, valued};
use crate::args::{Command, Spec, Words, units};
use crate::message::Failure;
use agent::model::limits;

pub const SPECS: &[Spec] = &[
    Spec {
        words: &["service", "ls"],
        operands: &[],
        flags: &[STALE],
        summary: "list the services",
        about: "",
        parse: |w| Ok(Command::ServiceLs { stale: w.switch("stale") }),
    },
    Spec {
        words: &["service", "inspect"],
        operands: &[needs("SERVICE")],
        flags: &[STALE],
        summary: "a service and each of its tasks",
        about: "",
        parse: |w| Ok(Command::ServiceInspect { name: w.required(0), stale: w.switch("stale") }),
    },
    Spec {
        words: &["service", "scale"],
        operands: &[needs("SERVICE"), needs("N")],
        flags: &[NO_WAIT],
        summary: "set how many tasks a service runs, until the next apply",
        about: "Returns when that many run. `disco status` marks the service as scaled by hand.",
        parse: |w| Ok(Command::ServiceScale { name: w.required(0), replicas: replicas(w)?, wait: !w.switch("no-wait") }),
    },
    Spec {
        words: &["service", "restart"],
        operands: &[needs("SERVICE")],
        flags: &[NO_WAIT],
        summary: "replace a service's tasks, a few at a time",
        about: "Rolls as an update does: it stops at the first new task that does not stay up.",
        parse: |w| Ok(Command::ServiceRestart { name: w.required(0), wait: !w.switch("no-wait") }),
    },
    Spec {
        words: &["service", "rollback"],
        operands: &[needs("SERVICE")],
        flags: &[NO_WAIT],
        summary: "run a service's previous version again, until the next apply",
        about: "",
        parse: |w| Ok(Command::ServiceRollback { name: w.required(0), wait: !w.switch("no-wait") }),
    },
    Spec {
        words: &["service", "rm"],
        operands: &[needs("SERVICE")],
        flags: &[YES],
        summary: "stop a service and forget it, until the next apply",
        about: "A service that cluster.js declares comes back with the next `disco apply`.",
        parse: |w| Ok(Command::ServiceRm { name: w.required(0), yes: w.switch("yes") }),
    },
    Spec {
        words: &["logs"],
        operands: &[needs("SERVICE")],
        flags: &[
            FOLLOW,
            valued("since", "TIME", "only lines of the last TIME, e.g. 5m"),
            valued("task", "ID", "only this task: web.3, or 3"),
            valued("tail", "N", "only the newest N lines of each task"),
        ],
        summary: "what a service's tasks print, of all nodes, by time",
        about: "Each line begins with its task and node: `web.3@n2 | …`. Exits 1 when a node cannot be read.",
        parse: logs,
    },
    Spec {
        words: &["eval"],
        operands: &[needs("EXPR")],
        flags: &[],
        summary: "evaluate an expression against the live cluster",
        about: "The leader evaluates it with `cluster` in reach, in the module that cluster.js is: `disco eval 'cluster.nodes()'`.\nA promise is waited for. An EXPR that begins with a dash goes after `--`.",
        parse: |w| Ok(Command::Eval(w.required(0))),
    },
    Spec {
        words: &["repl"],
        operands: &[],
        flags: &[],
        summary: "evaluate line by line, with history and completion",
        about: "Each line is an expression as for `disco eval`. Without a terminal, lines are read from standard input.\nA line that begins with a space is not kept in the history. Ctrl-D ends it.",
        parse: |_| Ok(Command::Repl),
    },
];

fn replicas(words: &Words) -> Result<u32, Failure> {
    let text = words.required(1);
    let many = text.parse::<u32>().ok().filter(|n| *n as usize <= limits::TASKS_MAX);
    many.ok_or_else(|| {
        Failure::broke(format!("`{text}` is not a number of tasks")).hint(format!("give a whole number from 0 to {}", limits::TASKS_MAX))
    })
}

fn logs(words: &Words) -> Result<Command, Failure> {
    let since = words.value("since").map(units::duration).transpose()?;
    let tail = words.value("tail").map(|text| {
        let lines = text.parse::<u32>().ok().filter(|n| *n > 0);
        lines.ok_or_else(|| Failure::broke(format!("`{text}` is not a number of lines")).hint("give a whole number from 1 on"))
    });
    Ok(Command::Logs {
        service: words.required(0),
        task: words.value("task").map(str::to_owned),
        follow: words.switch("follow"),
        since_ms: since,
        tail: tail.transpose()?,
    })
}
