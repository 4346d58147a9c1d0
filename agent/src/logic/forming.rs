//! Whether a node that finds no cluster begins one.
//!
//! It looks for one first, for a while. Nodes that see each other in the same state leave it to the lowest of them, and look
//! on for the cluster that it makes. A cluster that answers and lets nobody in now (it has no leader, or no room) is a
//! cluster all the same: who has seen it makes no second one, however long it takes.

use crate::model::ids::NodeId;

pub struct Forming {
    node: NodeId,
    window_ms: u64,
    deadline: u64,
    /// Somebody with a lower id was seen in this window.
    yields: bool,
    found: bool,
}

/// What a look at every seed showed that let this node in nowhere.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Nodes that are in no cluster either.
    pub unformed: Vec<NodeId>,
    /// A cluster of the CA that this node trusts answered, with "not now".
    pub formed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    LookAgain,
    Originate,
}

impl Forming {
    /// `window_ms`: how long to look for others.
    pub fn new(node: NodeId, window_ms: u64, now: u64) -> Forming {
        Forming { node, window_ms, deadline: now + window_ms, yields: false, found: false }
    }

    /// After each look; `now` is its end.
    pub fn looked(&mut self, seen: &Seen, now: u64) -> Next {
        self.found |= seen.formed;
        self.yields |= seen.unformed.iter().any(|id| *id < self.node);
        if self.found || now < self.deadline {
            return Next::LookAgain;
        }
        if !self.yields {
            return Next::Originate;
        }
        // The lowest of those will; if it goes away instead, the next window shows it.
        self.yields = false;
        self.deadline = now + self.window_ms;
        Next::LookAgain
    }
}
