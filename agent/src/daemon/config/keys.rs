//! Every key, once: from this table come its flag, its variable, its line of help, and what an error says is allowed.

use super::super::telemetry::FILTER_ALLOWED;
use std::fmt::Write;

pub struct Key {
    /// As in `disco.toml`; `provider.kind` is `kind` in the section `[provider]`.
    pub name: &'static str,
    /// Placeholder of its value in help; none for a switch.
    value: &'static str,
    help: &'static str,
    pub allowed: &'static str,
}

const fn row(name: &'static str, value: &'static str, help: &'static str, allowed: &'static str) -> Key {
    Key { name, value, help, allowed }
}

pub const KEYS: &[Key] = &[
    row("data_dir", "DIR", "where this node keeps its identity and state", "a path"),
    row("name", "NAME", "what people call this node (default: the machine's name)", NAME),
    row(
        "listen",
        "IP:PORT",
        "the one port for everything (default 0.0.0.0:5080)",
        "an IP address and a port, like 0.0.0.0:5080 or [::]:5080",
    ),
    row("advertise", "HOST:PORT", "where others reach this node", "a host that others can reach and a port, like 10.0.0.5:5080"),
    row("bind_interface", "NAME", "advertise this network interface's address", "the name of a network interface, like eth0"),
    row(
        "seeds",
        "HOST:PORT,…",
        "nodes to ask when joining, or lists of them",
        "at most 64 of host or host:port, like 10.0.0.5:5080, or https://… or file:///… of a list",
    ),
    row("token", "TOKEN", "lets this node in, from `disco token create`", TOKEN),
    row("token_file", "FILE", "a file that holds the token", "a path"),
    row("originate", "", "start a new cluster, unless this node is in one or a seed lets it in", "true or false"),
    row("originate_after", "TIME", "with seeds: look for a formed cluster this long first (default 10s)", "1s to 3600s"),
    row("image", "DIR", "what `disco init --image` wrote: nodes that hold it form one cluster", "a path"),
    row("labels", "KEY=VALUE,…", "what placement may ask for", "at most 16 of key=value, each part at most 64 of A-Z a-z 0-9 . _ -"),
    row("cluster_name", "NAME", "name of the cluster it originates", NAME),
    row("cluster_id", "ID", "id of the cluster it originates (default: random)", "16 lower-case hex digits"),
    row("heartbeat_interval", "TIME", "the leader's (default 200ms)", "50ms to 5s"),
    row("election_timeout_min", "TIME", "silence before an election (default 1000ms)", "200ms to 60s"),
    row("election_timeout_max", "TIME", "at most (default 2000ms)", "200ms to 60s"),
    row("lost_after", "TIME", "the leader takes a node that is silent this long for lost (default 5s)", "1s to 600s"),
    row("on_stop", "WHAT", "SIGTERM: whether this node's tasks go on, keep or stop (default keep)", "keep or stop"),
    row("external_commands_max", "N", "programs that scripts may run at once (default 16)", "1 to 16"),
    row("log", "FILTER", "what to say on stderr (default info)", FILTER_ALLOWED),
    row("instance", "ID", "the provider's name of this machine", NAME),
    row("provider.kind", "KIND", "where new machines come from", "local or aws"),
    row("provider.root", "DIR", "local: the project's .disco folder", "a path"),
    row("provider.binary", "FILE", "local: the discod that new instances get a copy of", "a path"),
    row("provider.region", "NAME", "aws: where machines are made", "a region, like eu-central-1"),
    row("provider.endpoint", "URL", "aws: whom to ask instead of Amazon", "http://… or https://…"),
];

const NAME: &str = "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit";
const TOKEN: &str = "a join token, DISCO1-…";

/// The key of this name.
pub fn key_named(name: &str) -> &'static Key {
    KEYS.iter().find(|key| key.name == name).expect("config asks only for names of the table")
}

impl Key {
    pub fn flag(&self) -> String {
        self.name.replace(['_', '.'], "-")
    }

    pub fn variable(&self) -> String {
        format!("DISCO_{}", self.name.replace('.', "_").to_uppercase())
    }

    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    pub fn is_secret(&self) -> bool {
        self.name == "token"
    }
}

/// `discod --help`.
pub fn help() -> String {
    let mut text = String::from(
        "discod: one node of a Disco cluster\n\n\
         usage: discod --data-dir DIR [--config FILE] [flags]\n\n\
         Every flag is also a key of FILE (--heartbeat-interval: heartbeat_interval; --provider-kind: kind in\n\
         [provider]) and a variable (DISCO_HEARTBEAT_INTERVAL). A flag wins over a variable, a variable over FILE.\n\
         Paths in FILE count from its folder.\n\n",
    );
    let mut line = |flag: &str, help: &str| {
        let _ = writeln!(text, "  {flag:<34}{help}");
    };
    for key in KEYS {
        line(format!("--{} {}", key.flag(), key.value).trim_end(), key.help);
    }
    line("--config FILE", "the file to read (DISCO_CONFIG)");
    line("--detach", "go on in the background and print the pid");
    line("-h, --help", "this text");
    line("-V, --version", "the version");
    text.push_str(
        "\nSIGTERM hands leadership on and ends the agent (tasks: on_stop). SIGHUP (systemctl reload disco) reads `log`\n\
         again and, where the node leads, runs cluster.js again; other keys take effect at the next start.\n",
    );
    text
}
