//! What happened, for people and scripts. Names are those of `disco.d.ts` (`EventName`).

use alloc::string::String;
use minicbor::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// Counts up; the same on every node.
    #[n(0)]
    pub id: u64,
    #[n(1)]
    pub at_ms: u64,
    /// As in `disco.d.ts`, e.g. `node.lost`.
    #[n(2)]
    pub name: String,
    /// The node, instance or service it is about.
    #[n(3)]
    pub subject: String,
    #[n(4)]
    pub text: String,
}
