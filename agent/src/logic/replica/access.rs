//! Whom the drivers are to let in, as the newest state (or the last answer to a report) has it.

use super::Replica;
use crate::model::{
    ids::NodeId,
    io::{Access, Effect},
};
use std::sync::Arc;

impl Replica {
    /// Drivers check certificates against the newest list of who is who.
    pub(super) fn refresh_access(&mut self) {
        let access = self.access_now();
        if self.access.as_deref() != Some(&access) {
            let access = Arc::new(access);
            self.access = Some(access.clone());
            self.effects.push_back(Effect::Changed { index: self.applied, access: Some(access) });
        }
    }

    fn access_now(&self) -> Access {
        // A seat that is assigned counts already: a voter that has not yet applied the change which seats it would
        // refuse the votes of a candidate it may have to elect.
        let mut nodes: Vec<(NodeId, Vec<u8>, bool)> =
            self.state.nodes.values().map(|n| (n.id, n.public_key.clone(), n.member.is_some())).collect();
        for peer in self.contact.managers() {
            match nodes.iter_mut().find(|(id, _, _)| *id == peer.node) {
                Some(known) => known.2 = true,
                None => nodes.push((peer.node, peer.public_key.clone(), true)),
            }
        }
        let mut removed: Vec<NodeId> = self.state.removed.iter().copied().collect();
        removed.extend(self.contact.removed().iter().filter(|id| !self.state.removed.contains(id)));
        nodes.retain(|(id, _, _)| !removed.contains(id));
        Access { nodes, removed, leader: self.leader_address(), authorities: self.authorities() }
    }
}
