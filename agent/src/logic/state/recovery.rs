//! What the state becomes when a node goes on without the lost majority.

use super::State;
use crate::model::ids::{MemberId, NodeId};

/// How far the numbers of seats, tasks and steps of the CA jump: farther than a lost majority can have counted without this
/// node's knowing. What it gave out with them may still be there: a seat on a survivor's disk, a process on a worker.
const NUMBERS_JUMP: u64 = 1 << 20;

impl State {
    /// `me` alone votes, in a new seat; the lost managers are removed for good, the others keep their place and get new seats.
    /// Answers the new seat.
    pub fn recover(&mut self, me: NodeId, lost: &[NodeId], from_index: u64) -> MemberId {
        self.epoch += 1;
        let member = MemberId(self.next_member + NUMBERS_JUMP);
        self.next_member = member.0 + 1;
        self.last_task += NUMBERS_JUMP;
        self.ca_version += NUMBERS_JUMP;
        for node in self.nodes.values_mut() {
            (node.member, node.seated) = (None, false);
        }
        if let Some(node) = self.nodes.get_mut(&me) {
            (node.member, node.seated, node.leaving) = (Some(member), true, false);
        }
        let name = |id: &NodeId| self.nodes.get(id).map_or_else(|| id.to_string(), |n| n.name.clone());
        let text = format!("goes on alone from log index {from_index}; lost: {}", lost.iter().map(name).collect::<Vec<_>>().join(", "));
        let survivor = name(&me);
        for id in lost {
            // Without a seat it goes at once.
            self.node_remove(*id);
        }
        self.event("cluster.recovered", &survivor, &text);
        member
    }
}
