//! The commands there are. Only what works is listed.

use super::{Command, Flag, Operand, Shell, Spec, Words, units};
use crate::message::Failure;
use agent::model::instance::InstanceDesired;
use agent::model::limits;
use agent::model::node::Role;

const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: None, choices: &[], help }
}
const fn valued(long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), choices: &[], help }
}
const fn needs(name: &'static str) -> Operand {
    Operand { name, required: true }
}
const fn may_have(name: &'static str) -> Operand {
    Operand { name, required: false }
}

const STALE: Flag = switch("stale", "answer from the asked node's own copy, even without a leader");
const YES: Flag = switch("yes", "answer yes to every question");
const FOLLOW: Flag = Flag { long: "follow", short: Some('f'), value: None, choices: &[], help: "go on printing as things happen" };
const ROLE: Flag = Flag {
    long: "role",
    short: None,
    value: Some("ROLE"),
    choices: &["manager", "worker"],
    help: "what the joiner may become: manager or worker",
};
const PROVIDER: Flag =
    Flag { long: "provider", short: None, value: Some("KIND"), choices: &["local"], help: "where machines come from (default: local)" };

/// Flags every command takes.
pub const GLOBAL: &[Flag] = &[
    valued("dir", "D", "the project folder (default: $DISCO_DIR, or the current one)"),
    valued("socket", "PATH", "ask a node on this machine through its control.sock"),
    valued("discod", "PATH", "the discod program (default: $DISCO_DISCOD, or the one beside disco)"),
    switch("json", "print JSON (docs/json.md)"),
];

pub const COMMANDS: &[Spec] = &[
    Spec {
        words: &["init"],
        operands: &[],
        flags: &[PROVIDER],
        summary: "write a starting folder",
        about: "Writes client.js, cluster.js, disco.d.ts and .gitignore. Refuses to overwrite a file.",
        parse: |_| Ok(Command::Init),
    },
    Spec {
        words: &["bootstrap"],
        operands: &[],
        flags: &[YES],
        summary: "make the cluster that client.js describes",
        about: "Runs init() and bootstrap(cluster) of client.js. Run it again to continue after an interruption,\nor to start the stopped instances after a reboot.",
        parse: |w| Ok(Command::Bootstrap { yes: w.switch("yes") }),
    },
    Spec {
        words: &["status"],
        operands: &[],
        flags: &[switch("watch", "show it again at every change"), STALE],
        summary: "leader, nodes, instances, problems, last events",
        about: "Exits 1 when the cluster cannot be reached or is not as wanted.",
        parse: |w| Ok(Command::Status { watch: w.switch("watch"), stale: w.switch("stale") }),
    },
    Spec {
        words: &["scale"],
        operands: &[needs("N")],
        flags: &[],
        summary: "set how many nodes the cluster keeps",
        about: "Returns when that many are ready.",
        parse: |w| {
            let text = w.required(0);
            match text.parse::<u32>() {
                Ok(n) if (1..=limits::NODES_MAX as u32).contains(&n) => Ok(Command::Scale(n)),
                _ => Err(Failure::broke(format!("`{text}` is not a number of nodes"))
                    .hint(format!("give a whole number from 1 to {}", limits::NODES_MAX))),
            }
        },
    },
    Spec {
        words: &["node", "ls"],
        operands: &[],
        flags: &[STALE],
        summary: "list the nodes",
        about: "",
        parse: |w| Ok(Command::NodeLs { stale: w.switch("stale") }),
    },
    Spec {
        words: &["node", "inspect"],
        operands: &[needs("NODE")],
        flags: &[STALE],
        summary: "all that is known of one node",
        about: "NODE is a name, an id, or the beginning of an id that no other node shares.",
        parse: |w| Ok(Command::NodeInspect { node: w.required(0), stale: w.switch("stale") }),
    },
    Spec {
        words: &["node", "rm"],
        operands: &[needs("NODE")],
        flags: &[],
        summary: "take a node out of the cluster for good",
        about: "Its certificate is refused from then on, and its instance, if a provider made it, is terminated.",
        parse: |w| Ok(Command::NodeRm(w.required(0))),
    },
    Spec {
        words: &["instance", "ls"],
        operands: &[],
        flags: &[STALE],
        summary: "list the instances",
        about: "When the cluster does not answer, shows what the provider sees.",
        parse: |w| Ok(Command::InstanceLs { stale: w.switch("stale") }),
    },
    Spec {
        words: &["instance", "start"],
        operands: &[needs("INSTANCE")],
        flags: &[],
        summary: "want an instance running",
        about: "",
        parse: |w| instance(w, InstanceDesired::Running),
    },
    Spec {
        words: &["instance", "stop"],
        operands: &[needs("INSTANCE")],
        flags: &[],
        summary: "want an instance stopped; the cluster does not repair it",
        about: "",
        parse: |w| instance(w, InstanceDesired::Stopped),
    },
    Spec {
        words: &["instance", "terminate"],
        operands: &[needs("INSTANCE")],
        flags: &[],
        summary: "end an instance and delete its data",
        about: "The cluster launches another one if it has too few nodes then.",
        parse: |w| instance(w, InstanceDesired::Terminated),
    },
    Spec {
        words: &["token", "create"],
        operands: &[],
        flags: &[
            ROLE,
            valued("ttl", "TIME", "how long it is valid, e.g. 30m (default: 1h)"),
            valued("uses", "N", "how many nodes may join with it (default: 1)"),
        ],
        summary: "make a join token; it is shown once",
        about: "",
        parse: token_create,
    },
    Spec {
        words: &["token", "ls"],
        operands: &[],
        flags: &[STALE],
        summary: "list the tokens, without their secrets",
        about: "",
        parse: |w| Ok(Command::TokenLs { stale: w.switch("stale") }),
    },
    Spec {
        words: &["token", "revoke"],
        operands: &[needs("ID")],
        flags: &[],
        summary: "make a token worthless",
        about: "",
        parse: |w| Ok(Command::TokenRevoke(w.required(0))),
    },
    Spec {
        words: &["kv", "get"],
        operands: &[needs("KEY")],
        flags: &[switch("raw", "the value's bytes only, without a line end"), STALE],
        summary: "print a key's value",
        about: "Exits 1 when there is no such key.",
        parse: |w| Ok(Command::KvGet { key: w.required(0), raw: w.switch("raw"), stale: w.switch("stale") }),
    },
    Spec {
        words: &["kv", "set"],
        operands: &[needs("KEY"), needs("VALUE")],
        flags: &[],
        summary: "set a key",
        about: "VALUE `-` reads it from standard input. A VALUE that begins with a dash goes after `--`.",
        parse: |w| Ok(Command::KvSet { key: w.required(0), value: Some(w.required(1)).filter(|v| v != "-") }),
    },
    Spec {
        words: &["kv", "del"],
        operands: &[needs("KEY")],
        flags: &[],
        summary: "delete a key",
        about: "Exits 1 when there was no such key.",
        parse: |w| Ok(Command::KvDel(w.required(0))),
    },
    Spec {
        words: &["kv", "ls"],
        operands: &[may_have("PREFIX")],
        flags: &[STALE],
        summary: "list keys and values",
        about: "",
        parse: |w| Ok(Command::KvLs { prefix: w.operand(0).unwrap_or_default().to_owned(), stale: w.switch("stale") }),
    },
    Spec {
        words: &["kv", "watch"],
        operands: &[needs("KEY")],
        flags: &[],
        summary: "print a key's value now and at every change",
        about: "",
        parse: |w| Ok(Command::KvWatch(w.required(0))),
    },
    Spec {
        words: &["events"],
        operands: &[],
        flags: &[FOLLOW, STALE],
        summary: "what happened",
        about: "",
        parse: |w| Ok(Command::Events { follow: w.switch("follow"), stale: w.switch("stale") }),
    },
    Spec {
        words: &["destroy"],
        operands: &[],
        flags: &[YES],
        summary: "end the cluster: every instance and all its data",
        about: "Runs destroy(cluster) of client.js first, if it is exported. Your own files stay.",
        parse: |w| Ok(Command::Destroy { yes: w.switch("yes") }),
    },
    Spec {
        words: &["completions"],
        operands: &[needs("SHELL")],
        flags: &[],
        summary: "print the completion script for bash, zsh or fish",
        about: "bash: disco completions bash > ~/.local/share/bash-completion/completions/disco\nzsh:  disco completions zsh > a folder of $fpath, as _disco\nfish: disco completions fish > ~/.config/fish/completions/disco.fish",
        parse: |w| match w.required(0).as_str() {
            "bash" => Ok(Command::Completions(Shell::Bash)),
            "zsh" => Ok(Command::Completions(Shell::Zsh)),
            "fish" => Ok(Command::Completions(Shell::Fish)),
            other => Err(Failure::broke(format!("there are no completions for `{other}`")).hint("they exist for bash, zsh and fish")),
        },
    },
    Spec {
        words: &["help"],
        operands: &[may_have("COMMAND"), may_have("SUBCOMMAND")],
        flags: &[],
        summary: "explain a command",
        about: "",
        parse: |w| {
            let words: Vec<String> = w.operands.clone();
            if words.is_empty() || find(&words).is_some() || is_group(&words) {
                Ok(Command::Help(words))
            } else {
                Err(super::unknown_command(&words))
            }
        },
    },
];

fn instance(words: &Words, desired: InstanceDesired) -> Result<Command, Failure> {
    Ok(Command::InstanceSet { id: words.required(0), desired })
}

fn token_create(words: &Words) -> Result<Command, Failure> {
    let role = match words.value("role") {
        Some("manager") => Role::Manager,
        Some(_) => Role::Worker,
        None => return Err(Failure::broke("`disco token create` needs --role").hint(format!("it is one of: {}", ROLE.choices.join(", ")))),
    };
    let ttl_ms = match words.value("ttl") {
        None => limits::TOKEN_TTL_DEFAULT_MS,
        Some(text) => units::duration_ms(text)
            .filter(|ms| *ms > 0)
            .ok_or_else(|| Failure::broke(format!("`{text}` is not a duration")).hint("write it as 250ms, 30s, 5m, 1h or 7d"))?,
    };
    let uses = match words.value("uses") {
        None => 1,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| Failure::broke(format!("`{text}` is not a number of uses")).hint("give a whole number from 1 on"))?,
    };
    Ok(Command::TokenCreate { role, ttl_ms, uses })
}

/// The command of exactly these words.
pub fn find(words: &[String]) -> Option<&'static Spec> {
    COMMANDS.iter().find(|s| s.words.iter().eq(words.iter()))
}

/// Whether these words begin longer commands, as `node` does.
pub fn is_group(words: &[String]) -> bool {
    COMMANDS.iter().any(|s| s.words.len() > words.len() && s.words.iter().zip(words).all(|(a, b)| a == b))
}

/// The command's own flags, then the global ones.
pub fn flags(spec: Option<&'static Spec>) -> impl Iterator<Item = &'static Flag> {
    spec.map_or(&[][..], |s| s.flags).iter().chain(GLOBAL)
}

pub fn flag(spec: Option<&'static Spec>, is: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    flags(spec).find(|f| is(f))
}
