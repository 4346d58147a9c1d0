//! Who asks, and may they? Each method of each service passes here first.
//!
//! TLS has settled that the caller holds the key of its certificate; the doorkeeper knows whether that is still one of
//! us, and as what. A manager counts as an administrator: it holds the keys to make itself one.

use super::refusal::refuse;
use crate::{
    drivers::pki::{Admitted, Doorkeeper, Refusal},
    model::{ids::NodeId, io::Access, query::Principal},
};
use proto::{Caller, Standing};
use std::sync::Arc;
use tonic::{Request, Status};

pub struct Gate {
    doorkeeper: Doorkeeper,
}

impl Gate {
    pub fn new(doorkeeper: Doorkeeper) -> Gate {
        Gate { doorkeeper }
    }

    /// Takes the newest list of who is who.
    pub fn learn(&self, access: Arc<Access>) {
        self.doorkeeper.update(access);
    }

    /// Who leads and where, as far as this node knows.
    pub fn leader(&self) -> Option<(NodeId, String)> {
        self.doorkeeper.access().leader.clone()
    }

    /// Whether a node is a manager, as far as this node knows.
    pub fn is_manager(&self, node: NodeId) -> bool {
        self.doorkeeper.access().nodes.iter().any(|(known, _, manager)| *known == node && *manager)
    }

    /// Where the leader is, for a node of this cluster that this one does not know: it was a manager once, which is all
    /// that the other one remembers, and is a worker now. That is told, and nothing else; the leader knows who may stay.
    pub fn way_for_stranger<T>(&self, request: &Request<T>) -> Option<(NodeId, String)> {
        let caller = request.extensions().get::<Caller>()?;
        matches!(self.doorkeeper.check(caller), Err(Refusal::Unknown(_))).then(|| self.leader())?
    }

    /// An administrator or a manager. `what` completes "only administrators and managers may …".
    ///
    /// # Errors
    /// `denied`, or why the caller is nobody here.
    pub fn person<T>(&self, request: &Request<T>, what: &str) -> Result<Principal, Status> {
        let admitted = self.check(request)?;
        match admitted.principal {
            Principal::Admin => Ok(Principal::Admin),
            Principal::Node(_) if admitted.manager => Ok(Principal::Admin),
            Principal::Node(node) => Err(denied(format!("node {node} is a worker; only administrators and managers may {what}"))),
            Principal::Joiner | Principal::Script { .. } => Err(stranger(format!("only administrators and managers may {what}"))),
        }
    }

    /// Any node of the cluster.
    ///
    /// # Errors
    /// `denied`, or why the caller is nobody here.
    pub fn node<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        match self.check(request)?.principal {
            Principal::Node(node) => Ok(node),
            Principal::Admin => Err(denied("only nodes may do this, not administrators")),
            Principal::Joiner | Principal::Script { .. } => Err(stranger("only nodes of the cluster may do this")),
        }
    }

    /// Any node of the cluster, and the raw key it proved to hold.
    ///
    /// # Errors
    /// As `node`.
    pub fn node_and_key<T>(&self, request: &Request<T>) -> Result<(NodeId, Vec<u8>), Status> {
        let node = self.node(request)?;
        let access = self.doorkeeper.access();
        let key = access.nodes.iter().find(|(known, _, _)| *known == node).map(|(_, key, _)| key.clone());
        Ok((node, key.ok_or_else(|| stranger(format!("node {node} is not a node of this cluster")))?))
    }

    /// A manager. `what` completes "only managers may …".
    ///
    /// # Errors
    /// `denied`, or why the caller is nobody here.
    pub fn manager<T>(&self, request: &Request<T>, what: &str) -> Result<NodeId, Status> {
        match self.check(request)? {
            Admitted { principal: Principal::Node(node), manager: true } => Ok(node),
            Admitted { principal: Principal::Node(node), .. } => Err(denied(format!("node {node} is a worker; only managers may {what}"))),
            Admitted { principal: Principal::Admin, .. } => Err(denied(format!("only managers may {what}, not administrators"))),
            Admitted { principal: Principal::Joiner | Principal::Script { .. }, .. } => Err(stranger(format!("only managers may {what}"))),
        }
    }

    fn check<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        let caller = request.extensions().get::<Caller>().expect("proto's server says of each request who calls");
        let admitted = self.doorkeeper.check(caller);
        if let Some(standing) = request.extensions().get::<Standing>() {
            // A good certificate of somebody who was removed must keep nobody else out.
            standing.set(admitted.as_ref().is_ok_and(|admitted| admitted.principal != Principal::Joiner));
        }
        admitted.map_err(|refusal| match refusal {
            Refusal::Removed(_) => refuse("removed", refusal.to_string()),
            other => stranger(other.to_string()),
        })
    }
}

pub(super) fn denied(why: impl Into<String>) -> Status {
    refuse("denied", why)
}

fn stranger(why: impl Into<String>) -> Status {
    refuse("unauthenticated", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        drivers::{
            api::refusal::code_of,
            pki::{Authority, Trust, new_key, public_key},
        },
        model::ids::ClusterId,
    };

    #[test]
    fn each_door_opens_for_its_own_only() {
        let authority = Authority::create(ClusterId(1), 1_700_000_000_000);
        let key = public_key(&new_key()).expect("just made");
        let gate = Gate::new(Doorkeeper::new(ClusterId(1), Trust::new(), 1000));
        gate.learn(Arc::new(Access {
            nodes: vec![(NodeId(1), key.clone(), true), (NodeId(2), key.clone(), false)],
            removed: vec![NodeId(3)],
            leader: None,
            ..Access::default()
        }));
        let from = |node: Option<u64>, uid| {
            let certificate = node.map(|id| Arc::from(authority.sign_node(NodeId(id), &key, 1).expect("32 bytes")));
            let mut request = Request::new(());
            request.extensions_mut().insert(Caller { certificate, address: "127.0.0.1:1".into(), uid });
            request
        };
        let code = |result: Result<(), Status>| result.err().map_or("ok".to_owned(), |status| code_of(&status).to_owned());
        // caller, then the codes of: person, node, manager
        let table = [
            (from(None, Some(0)), ["ok", "denied", "denied"]),
            (from(None, Some(1001)), ["unauthenticated"; 3]),
            (from(None, None), ["unauthenticated"; 3]),
            (from(Some(1), None), ["ok", "ok", "ok"]),
            (from(Some(2), None), ["denied", "ok", "denied"]),
            (from(Some(3), None), ["removed"; 3]),
            (from(Some(4), None), ["unauthenticated"; 3]),
        ];
        for (request, expected) in table {
            let found = [
                code(gate.person(&request, "test").map(drop)),
                code(gate.node(&request).map(drop)),
                code(gate.manager(&request, "test").map(drop)),
            ];
            assert_eq!(found, expected, "{request:?}");
        }
    }
}
