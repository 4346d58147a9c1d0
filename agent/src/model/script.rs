//! What the cluster knows of its script: its modules, what it declared and what it registered.

use super::{service::ServiceSpec, settings::SettingsChange};
use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use minicbor::{Decode, Encode};

/// The folder's modules as pushed by `disco apply` or bootstrap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ModuleSet {
    /// Log index of the push.
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub pushed_ms: u64,
    /// Path inside the folder to source. `cluster.js` is the entry.
    #[n(2)]
    pub files: BTreeMap<String, String>,
}

/// The replicated record of scripting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ScriptRecord {
    /// Newest last, at most `limits::MODULE_SETS_KEPT`.
    #[n(0)]
    pub sets: VecDeque<ModuleSet>,
    /// Version in force; 0: none.
    #[n(1)]
    pub version: u64,
    /// Version whose `configure` was last carried out, and the digest of what it declared.
    #[n(2)]
    pub applied: u64,
    #[n(3)]
    pub digest: u64,
    /// Why the script's newest run failed, with file and line; empty when it did not.
    #[n(4)]
    pub error: String,
    /// Highest term in which `leader()` completed.
    #[n(5)]
    pub led_term: u64,
    /// Keys last declared by `configure`.
    #[n(6)]
    pub keys: BTreeMap<String, String>,
}

impl ScriptRecord {
    pub fn current(&self) -> Option<&ModuleSet> {
        self.sets.iter().find(|s| s.version == self.version)
    }

    /// What a rollback goes back to.
    pub fn before(&self) -> Option<&ModuleSet> {
        let at = self.sets.iter().position(|set| set.version == self.version)?;
        self.sets.get(at.checked_sub(1)?)
    }
}

/// What `configure` declared on a recording cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Declaration {
    #[n(0)]
    pub services: BTreeMap<String, ServiceSpec>,
    #[n(1)]
    pub keys: BTreeMap<String, String>,
    /// The options of the cluster that `init()` returned: they win over client.js.
    #[n(2)]
    #[cbor(default)]
    pub settings: SettingsChange,
}

/// A function that the script left with the daemon, by the order in which it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub number: u32,
    pub kind: RegistrationKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationKind {
    /// `every(interval, …)`.
    Every { interval_ms: u64 },
    /// `cluster.on(event, …)`.
    On { event: String },
    /// `cluster.key(name).on("change", …)`.
    Key { name: String },
}

/// One call of the script, made by the leader (follower: by the node that stepped down).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptCall {
    pub modules: alloc::sync::Arc<ModuleSet>,
    /// Its writes carry this term: `apply` rejects those whose entry is of another.
    pub term: u64,
    pub hook: Hook,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// init() and configure() on a recording cluster; answers with `ScriptReport::declared` and registrations.
    Configure,
    Leader,
    Follower,
    /// A registered function; `argument` is JSON (an event, or a key's new value).
    Registered {
        number: u32,
        argument: String,
    },
    /// An expression from `disco eval`; answers with `value`.
    Eval {
        expression: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptReport {
    pub declared: Option<Declaration>,
    pub registrations: Vec<Registration>,
    /// Numbers of the `every` whose `stop()` was called: they end with this call.
    pub stopped: Vec<u32>,
    /// JSON (or, for `eval`, a printed form).
    pub value: String,
}
