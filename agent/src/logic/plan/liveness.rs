//! Decides when a silent node is lost.
//!
//! Messages are late for two reasons: the node is gone, or the network is slow. We cannot tell which, so silence
//! counts only after `lost_after_ms`. The provider's word "stopped" is better evidence and counts at once.

use super::{Decision, Sight};
use crate::model::{
    command::Command,
    instance::InstanceState,
    node::{NodeRecord, NodeState},
};

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    for node in sight.state.nodes.values() {
        let (state, reason) = judge(sight, node);
        if state != node.state {
            decisions.push(Decision::Propose(Command::NodeState { node: node.id, state, reason }));
        }
    }
}

fn judge(sight: &Sight, node: &NodeRecord) -> (NodeState, String) {
    let alive = if node.drained { NodeState::Draining } else { NodeState::Ready };
    if node.id == sight.me {
        return (alive, String::new());
    }
    let heard = sight.observed.heard_at(node.id);
    let silent_ms = sight.now.mono.saturating_sub(heard);
    if let Some(gone) = machine_gone(sight, node) {
        return (NodeState::Lost, gone.into());
    }
    if silent_ms > sight.lost_after_ms {
        return match node.state {
            // Not heard yet at all: it is on its way; the instance's own repair looks after it.
            NodeState::Joining => (NodeState::Joining, String::new()),
            NodeState::Lost => (NodeState::Lost, node.reason.clone()),
            _ => (NodeState::Lost, format!("silent for {:.1} s", silent_ms as f64 / 1000.0)),
        };
    }
    match node.state {
        NodeState::Joining | NodeState::Lost if sight.observed.has_heard(node.id) && !sight.observed.is_unreachable(node.id) => {
            (alive, if node.state == NodeState::Lost { "heard again".into() } else { "ready".into() })
        }
        state => (state, node.reason.clone()),
    }
}

/// The provider says that the machine does not run (and nothing was heard from it since it said so).
fn machine_gone(sight: &Sight, node: &NodeRecord) -> Option<&'static str> {
    let instance = sight.state.instance_of(node.id).filter(|i| i.id.is_some())?;
    let said = sight.observed.found(instance.operation).and_then(|f| f.state)?;
    let described = sight.observed.described_at()?;
    if sight.observed.has_heard(node.id) && sight.observed.heard_at(node.id) > described {
        return None;
    }
    match said {
        InstanceState::Stopped | InstanceState::Stopping => Some("its machine is stopped"),
        InstanceState::Terminated => Some("its machine is gone"),
        _ => None,
    }
}
