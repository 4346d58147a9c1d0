//! What is to be done, parsed.

use agent::model::instance::InstanceDesired;
use agent::model::node::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What is to be done, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The words typed before `--help`: empty for the whole.
    Help(Vec<String>),
    Version,
    /// `image`: what a machine image needs, instead of a folder to start from. `provider`: `local`, `aws` or `hosts`.
    Init {
        image: bool,
        provider: String,
    },
    Bootstrap {
        yes: bool,
    },
    Status {
        watch: bool,
        stale: bool,
    },
    Scale(u32),
    NodeLs {
        stale: bool,
    },
    NodeInspect {
        node: String,
        stale: bool,
    },
    NodeRm {
        node: String,
        yes: bool,
    },
    InstanceLs {
        stale: bool,
    },
    InstanceSet {
        id: String,
        desired: InstanceDesired,
        /// To terminate it without asking.
        yes: bool,
    },
    TokenCreate {
        role: Role,
        ttl_ms: u64,
        uses: u32,
    },
    TokenLs {
        stale: bool,
    },
    TokenRotate(String),
    /// `folder`: whose `.disco/` gets certificate, key and addresses.
    CaIssue {
        folder: String,
    },
    /// `force`: nodes that are not there are left behind, once they were waited for.
    CaRotate {
        force: bool,
        wait_ms: u64,
        yes: bool,
    },
    /// `consent`: the cluster's name, typed by whoever states that the lost managers are gone.
    Recover {
        consent: Option<String>,
    },
    TokenRevoke(String),
    KvGet {
        key: String,
        raw: bool,
        stale: bool,
    },
    /// `value` `None`: read it from standard input.
    KvSet {
        key: String,
        value: Option<String>,
    },
    KvDel(String),
    KvLs {
        prefix: String,
        stale: bool,
    },
    KvWatch(String),
    Events {
        follow: bool,
        stale: bool,
    },
    Plan,
    Apply {
        yes: bool,
        rollback: bool,
        wait: bool,
    },
    ServiceLs {
        stale: bool,
    },
    ServiceInspect {
        name: String,
        stale: bool,
    },
    ServiceScale {
        name: String,
        replicas: u32,
        wait: bool,
    },
    ServiceRestart {
        name: String,
        wait: bool,
    },
    ServiceRollback {
        name: String,
        wait: bool,
    },
    ServiceRm {
        name: String,
        yes: bool,
    },
    /// `since_ms`: how long ago.
    Logs {
        service: String,
        task: Option<String>,
        follow: bool,
        since_ms: Option<u64>,
        tail: Option<u32>,
    },
    Eval(String),
    Repl,
    /// `off`: it takes tasks again.
    NodeDrain {
        node: String,
        off: bool,
        wait: bool,
    },
    /// A person wants it to vote, or not to.
    NodePrefer {
        node: String,
        role: Role,
    },
    Destroy {
        yes: bool,
    },
    Completions(Shell),
}
