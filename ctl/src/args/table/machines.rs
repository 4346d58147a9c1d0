//! Nodes, instances, and the tokens with which nodes join.

use super::{STALE, YES, needs, switch, valued};
use crate::args::{Command, Flag, Spec, Words, units};
use crate::message::Failure;
use agent::model::instance::InstanceDesired;
use agent::model::limits;
use agent::model::node::Role;

const ROLE: Flag = Flag {
    long: "role",
    short: None,
    value: Some("ROLE"),
    choices: &["manager", "worker"],
    required: true,
    help: "what the joiner may become: manager or worker",
};

pub const SPECS: &[Spec] = &[
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
        words: &["node", "drain"],
        operands: &[needs("NODE")],
        flags: &[switch("off", "let it take tasks again"), super::folder::NO_WAIT],
        summary: "move a node's tasks to others and place none on it",
        about: "It stays a member. Returns when its last task has ended.",
        parse: |w| Ok(Command::NodeDrain { node: w.required(0), off: w.switch("off"), wait: !w.switch("no-wait") }),
    },
    Spec {
        words: &["node", "promote"],
        operands: &[needs("NODE")],
        flags: &[],
        summary: "make a node a manager, now and in future",
        about: "It takes the seat of another manager, which becomes a worker. Exits 1 if none can give way. The cluster\nchooses its managers by itself; this is for when you know better.",
        parse: |w| Ok(Command::NodePrefer { node: w.required(0), role: Role::Manager }),
    },
    Spec {
        words: &["node", "demote"],
        operands: &[needs("NODE")],
        flags: &[],
        summary: "make a node a worker, now and in future",
        about: "Another node takes its seat. Exits 1 if none can.",
        parse: |w| Ok(Command::NodePrefer { node: w.required(0), role: Role::Worker }),
    },
    Spec {
        words: &["node", "rm"],
        operands: &[needs("NODE")],
        flags: &[YES],
        summary: "take a node out of the cluster for good",
        about: "Its certificate is refused from then on, and its instance, if a provider made it, is terminated.",
        parse: |w| Ok(Command::NodeRm { node: w.required(0), yes: w.switch("yes") }),
    },
    Spec {
        words: &["recover"],
        operands: &[],
        flags: &[valued("consent", "CLUSTER", "the cluster's name: I state that the lost managers never come back")],
        summary: "go on without a majority of managers that is lost for good",
        about: "The manager with the newest log goes on alone; what only the lost ones had is lost, and they are removed.\nAsks for consent unless the provider confirms that they are gone. Start stopped machines first if you can.",
        parse: |w| Ok(Command::Recover { consent: w.value("consent").map(str::to_owned) }),
    },
    Spec {
        words: &["ca", "issue"],
        operands: &[needs("DIR")],
        flags: &[],
        summary: "let another folder administer the cluster, or let it in again",
        about: "Writes an administrator's certificate, its key and the nodes' addresses into DIR/.disco: for a colleague, another\nmachine, or a folder whose certificate ended with the old authority (`disco ca rotate`) or after a year without use.\nOn a node, --socket D/control.sock needs no certificate. Keep DIR/.disco as secret as a password.",
        parse: |w| Ok(Command::CaIssue { folder: w.required(0) }),
    },
    Spec {
        words: &["ca", "rotate"],
        operands: &[],
        flags: &[
            valued("wait", "TIME", "how long to wait for nodes that are not there (default: 60s)"),
            switch("force", "leave nodes behind that are not there after that time: they must join anew"),
            YES,
        ],
        summary: "replace the cluster's certificate authority, while everything goes on",
        about: "For when somebody who should not may have its key: a manager that was removed, a stolen disk. Every node and this\nfolder get new certificates before the old authority is dropped; run it again if it was interrupted. Join tokens that\nare out end with the old one.",
        parse: |w| {
            let wait_ms = w.value("wait").map_or(Ok(60_000), units::duration)?;
            Ok(Command::CaRotate { force: w.switch("force"), wait_ms, yes: w.switch("yes") })
        },
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
        flags: &[YES],
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
        words: &["token", "rotate"],
        operands: &[needs("TOKEN")],
        flags: &[],
        summary: "replace a token with a new one like it",
        about: "Prints the new token: same role, lifetime and uses left. The old one is revoked; nodes that it let in stay.",
        parse: |w| Ok(Command::TokenRotate(w.required(0))),
    },
    Spec {
        words: &["token", "revoke"],
        operands: &[needs("ID")],
        flags: &[],
        summary: "make a token worthless",
        about: "",
        parse: |w| Ok(Command::TokenRevoke(w.required(0))),
    },
];

fn instance(words: &Words, desired: InstanceDesired) -> Result<Command, Failure> {
    Ok(Command::InstanceSet { id: words.required(0), desired, yes: words.switch("yes") })
}

fn token_create(words: &Words) -> Result<Command, Failure> {
    let role = match words.value("role") {
        Some("manager") => Role::Manager,
        Some(_) => Role::Worker,
        None => return Err(Failure::broke("`disco token create` needs --role").hint(format!("it is one of: {}", ROLE.choices.join(", ")))),
    };
    let ttl_ms = match words.value("ttl") {
        None => limits::TOKEN_TTL_DEFAULT_MS,
        Some(text) => units::duration(text)?,
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
