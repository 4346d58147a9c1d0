//! What client.js stands on: its verbs, as steps that are journaled before they are taken and may be taken again.
//!
//! `script` runs the hooks, `ops` answers what they ask, `project` holds the folder, the journal, the provider and the
//! way to the cluster; `steps` are the verbs themselves, `hosts` the same for machines that exist (`inventory` remembers which, `whose` says what
//! may not be touched), `revive` starts again what was running before a power cut, `load`
//! gives the cluster its script.

pub mod admission;
pub mod aws;
pub mod hosts;
pub mod inventory;
pub mod load;
pub mod ops;
pub mod options;
pub mod prices;
pub mod project;
pub mod rehearsal;
pub mod revive;
pub mod script;
pub mod steps;
pub mod whose;
