//! What is done with a project folder.

use super::{STALE, YES, switch};
use crate::args::{Command, Flag, Spec};

const PROVIDER: Flag = Flag {
    long: "provider",
    short: None,
    value: Some("KIND"),
    choices: &["local", "aws", "hosts"],
    required: false,
    help: "where machines come from (default: local)",
};
pub(super) const NO_WAIT: Flag = switch("no-wait", "return as soon as the cluster has taken it");

pub const SPECS: &[Spec] = &[
    Spec {
        words: &["init"],
        operands: &[],
        flags: &[PROVIDER, switch("image", "write image/ instead: what a machine image needs to form a cluster by starting")],
        summary: "write a starting folder",
        about: "Writes client.js, cluster.js, what they import, disco.d.ts and .gitignore. Refuses to overwrite a file. With --image:\na new CA, a token for workers and a disco.toml to bake in (docs/membership.md).",
        parse: |w| Ok(Command::Init { image: w.switch("image"), provider: w.value("provider").unwrap_or("local").to_owned() }),
    },
    Spec {
        words: &["bootstrap"],
        operands: &[],
        flags: &[YES],
        summary: "make the cluster that client.js describes",
        about: "Runs init() and bootstrap(cluster) of client.js, then gives the cluster cluster.js with the modules it imports and\nwaits until what it declares runs. Run it again to continue after an interruption,\nor to start the stopped instances after a reboot.",
        parse: |w| Ok(Command::Bootstrap { yes: w.switch("yes") }),
    },
    Spec {
        words: &["status"],
        operands: &[],
        flags: &[switch("watch", "show it again at every change"), STALE],
        summary: "leader, nodes, services, problems, last events",
        about: "Exits 1 when the cluster cannot be reached or is not as wanted.",
        parse: |w| Ok(Command::Status { watch: w.switch("watch"), stale: w.switch("stale") }),
    },
    Spec {
        words: &["plan"],
        operands: &[],
        flags: &[],
        summary: "show what applying cluster.js would change",
        about: "The leader runs configure(cluster) of this folder's cluster.js on a recording cluster and changes nothing.\nExits 0 when there is nothing to change, 2 when there is, 1 when the script fails or nobody answers.\nBefore the first bootstrap it says what client.js would make and, on aws, the price a month. On aws it also shows drift.",
        parse: |_| Ok(Command::Plan),
    },
    Spec {
        words: &["apply"],
        operands: &[],
        flags: &[YES, switch("rollback", "go back to the modules applied before"), NO_WAIT],
        summary: "load cluster.js and the modules it imports",
        about: "Shows the plan and asks, then waits until every changed service runs as declared or cannot; exit 1 names all\nthat cannot, also when the same is applied again. An interrupted wait leaves the cluster at it. A script that fails\nchanges nothing: exit 1.",
        parse: |w| Ok(Command::Apply { yes: w.switch("yes"), rollback: w.switch("rollback"), wait: !w.switch("no-wait") }),
    },
];

/// What ends it all, listed after everything else.
pub const LAST: &[Spec] = &[Spec {
    words: &["destroy"],
    operands: &[],
    flags: &[YES],
    summary: "end the cluster: every instance and all its data",
    about: "Runs destroy(cluster) of client.js first, if it is exported. Your own files stay.",
    parse: |w| Ok(Command::Destroy { yes: w.switch("yes") }),
}];
