//! Desired against observed, on the leader: what to propose and what to do next.
//!
//! Every decision is derived again from the replicated state and what this leader has observed, so a new leader
//! carries on where the last one stopped. Nothing here remembers an intention: if it is not in the log or in flight,
//! it is not.

mod changes;
mod instances;
mod liveness;
mod members;
mod minimum;
mod observed;
pub mod placement;
pub mod score;
mod services;

pub use changes::changes;
pub use members::partner;
pub use observed::{CallKey, Found, Known, Observed};
pub use services::{TASKS_MOVE_AFTER_MS, Unplaced, unplaced};

use super::{
    raft::{Change, Membership},
    state::State,
};
use crate::model::{
    command::Command,
    ids::{MemberId, NodeId, Now, OperationId},
    node::{NodeRecord, NodeState},
};

/// What the leader sees when it plans.
pub struct Sight<'a> {
    pub state: &'a State,
    pub membership: &'a Membership,
    pub observed: &'a Observed,
    pub me: NodeId,
    pub now: Now,
    pub lost_after_ms: u64,
    pub swap_after_ms: u64,
    pub has_provider: bool,
    /// Whether this member holds nearly all of the log.
    pub caught_up: &'a dyn Fn(MemberId) -> bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Propose(Command),
    Change(Change),
    Transfer(MemberId),
    Call(Call),
}

/// Something that takes time, with at most one of a kind under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Launch(OperationId),
    Describe,
    Start {
        operation: OperationId,
        id: String,
    },
    Stop {
        operation: OperationId,
        id: String,
    },
    Terminate {
        operation: OperationId,
        id: String,
    },
    /// The public address follows the leader.
    Attach {
        id: String,
        address: String,
    },
    Enlist {
        node: NodeId,
        member: MemberId,
    },
    Discharge {
        node: NodeId,
        member: MemberId,
    },
}

impl Call {
    pub fn key(&self) -> CallKey {
        match self {
            Call::Launch(operation) => CallKey::Launch(*operation),
            Call::Describe => CallKey::Describe,
            Call::Start { operation, .. } => CallKey::Start(*operation),
            Call::Stop { operation, .. } => CallKey::Stop(*operation),
            Call::Terminate { operation, .. } => CallKey::Terminate(*operation),
            Call::Attach { .. } => CallKey::Attach,
            Call::Enlist { member, .. } => CallKey::Enlist(*member),
            Call::Discharge { member, .. } => CallKey::Discharge(*member),
        }
    }
}

/// Everything to be done now, in this order.
pub fn decide(sight: &Sight) -> Vec<Decision> {
    let mut decisions = Vec::new();
    liveness::decide(sight, &mut decisions);
    minimum::decide(sight, &mut decisions);
    members::decide(sight, &mut decisions);
    if sight.has_provider {
        instances::decide(sight, &mut decisions);
    }
    services::decide(sight, &mut decisions);
    decisions
}

/// Why the cluster is not as wanted, one sentence each.
pub fn problems(sight: &Sight) -> Vec<String> {
    let mut problems = Vec::new();
    for node in sight.state.nodes.values().filter(|n| n.state == NodeState::Lost) {
        problems.push(format!("node {} is lost: {}", node.name, node.reason));
    }
    for instance in sight.state.instances.values().filter(|i| !i.problem.is_empty()) {
        let name = instance.id.clone().unwrap_or_else(|| instance.pending_name());
        problems.push(format!("instance {name}: {}", instance.problem));
    }
    problems.extend(minimum::problem(sight));
    if let Some(rotation) = &sight.state.rotation {
        let waits = sight.state.ca_waits_for();
        let who = if waits.is_empty() { "`disco ca rotate` goes on with it".into() } else { format!("waiting for {}", waits.join(", ")) };
        problems.push(format!("the CA is being replaced ({}): {who}", rotation.stage.as_str()));
    }
    services::problems(sight, &mut problems);
    if !sight.state.script.error.is_empty() {
        let first = sight.state.script.error.lines().next().unwrap_or_default();
        problems.push(format!("the script failed: {first}"));
    }
    if sight.has_provider && instances::missing(sight) > 0 {
        let brake = sight.state.brake(sight.stamp_ms());
        problems.extend(brake.map(|why| {
            format!("{} of {} nodes are missing and none is launched: {why}", instances::missing(sight), sight.state.desired_nodes)
        }));
    }
    problems
}

impl Sight<'_> {
    /// The leader's wall clock, never behind what was stamped already.
    pub fn stamp_ms(&self) -> u64 {
        self.now.wall.max(self.state.stamp_ms)
    }

    /// How long a node has been lost or on its way, milliseconds: by the stamps, or as long as this leader has waited.
    fn ailing_ms(&self, node: &NodeRecord) -> u64 {
        let stamped = self.stamp_ms().saturating_sub(node.since_ms);
        let since = self.observed.ailing_since(node.id).unwrap_or(self.now.mono);
        stamped.max(self.now.mono.saturating_sub(since))
    }

    fn is_ready(&self, node: &NodeRecord) -> bool {
        matches!(node.state, NodeState::Ready | NodeState::Draining)
    }
}
