//! What `new Cluster({...})` may say, replicated.

use alloc::{collections::BTreeMap, string::String};
use minicbor::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Voters to aim for: 1, 3, 5 or 7.
    #[n(0)]
    pub managers: u32,
    #[n(1)]
    pub min_nodes: u32,
    /// Spending brake: never more instances than this.
    #[n(2)]
    pub max_nodes: u32,
    #[n(3)]
    pub max_launches_per_hour: u32,
    /// A lost node's instance is replaced after this long; `None`: never.
    #[n(4)]
    pub replace_after_ms: Option<u64>,
    #[n(5)]
    pub below_min: BelowMin,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            managers: 3,
            min_nodes: 1,
            max_nodes: 16,
            max_launches_per_hour: 10,
            replace_after_ms: Some(120_000),
            below_min: BelowMin::Keep,
        }
    }
}

/// What happens to running services when live nodes fall under `min_nodes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BelowMin {
    #[n(0)]
    Stop,
    #[n(1)]
    Pause,
    #[n(2)]
    Keep,
}

impl BelowMin {
    pub fn as_str(self) -> &'static str {
        match self {
            BelowMin::Stop => "stop",
            BelowMin::Pause => "pause",
            BelowMin::Keep => "keep",
        }
    }
}

/// The fields a caller gave; absent ones keep their value. `replace_after_ms` 0 means never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SettingsChange {
    #[n(0)]
    pub managers: Option<u32>,
    #[n(1)]
    pub min_nodes: Option<u32>,
    #[n(2)]
    pub max_nodes: Option<u32>,
    #[n(3)]
    pub max_launches_per_hour: Option<u32>,
    #[n(4)]
    pub replace_after_ms: Option<u64>,
    #[n(5)]
    pub below_min: Option<BelowMin>,
    /// What launches are made of from now on, all of it; none: as before (kind 4).
    #[n(6)]
    pub launch: Option<BTreeMap<String, String>>,
}
