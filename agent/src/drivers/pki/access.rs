//! Turns a caller into a `Principal`.
//!
//! TLS has proved that the caller holds its certificate's key and that the cluster's authority signed it, when the
//! connection began. Whether that node is still one of us is in the replicated node list, a copy of which lies here; whether
//! an administrator's authority is still the cluster's, is asked again each time.

use super::{
    identity::{Identity, Subject},
    trust::Trust,
    wall_ms,
};
use crate::model::{
    ids::{ClusterId, NodeId},
    io::Access,
    query::Principal,
};
use proto::Caller;
use std::sync::{Arc, PoisonError, RwLock};

/// Knows who may come in, as of the last change of the state.
pub struct Doorkeeper {
    cluster: ClusterId,
    /// Which authorities administrators may come from.
    trust: Arc<Trust>,
    /// Whose processes may use `control.sock`, besides root's.
    own_uid: u32,
    access: RwLock<Arc<Access>>,
}

/// A caller who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// As whom it asks.
    pub principal: Principal,
    /// A node that is a manager now.
    pub manager: bool,
}

/// A caller who may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was one of us.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// Not in the node list, or with another key.
    #[error("node {0} is not a node of this cluster")]
    Unknown(NodeId),
    /// The node is known by another key.
    #[error("node {0} is known by another key")]
    OtherKey(NodeId),
    /// Past its time: a connection may outlive the certificate it began with.
    #[error("the administrator's certificate has expired")]
    Expired,
    /// A certificate that says nothing we know.
    #[error(transparent)]
    Certificate(#[from] super::PkiError),
    /// At the socket file.
    #[error("user {0} may not administer this node; its own user and root may")]
    OtherUser(u32),
}

impl Doorkeeper {
    /// Knows nobody yet but administrators, joiners and the users at `control.sock`: root and `own_uid`.
    pub fn new(cluster: ClusterId, trust: Arc<Trust>, own_uid: u32) -> Doorkeeper {
        Doorkeeper { cluster, trust, own_uid, access: RwLock::default() }
    }

    /// Takes a new list (`Effect::Changed`).
    pub fn update(&self, access: Arc<Access>) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// The list of the moment.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who calls, and whether as a manager.
    ///
    /// # Errors
    /// The caller may do nothing at all here.
    pub fn check(&self, caller: &Caller) -> Result<Admitted, Refusal> {
        if let Some(uid) = caller.uid {
            return match uid == 0 || uid == self.own_uid {
                true => Ok(Admitted { principal: Principal::Admin, manager: false }),
                false => Err(Refusal::OtherUser(uid)),
            };
        }
        let Some(certificate) = &caller.certificate else {
            return Ok(Admitted { principal: Principal::Joiner, manager: false });
        };
        let identity = Identity::read(certificate)?;
        if identity.cluster != self.cluster {
            return Err(super::PkiError::OtherCluster { found: identity.cluster, expected: self.cluster }.into());
        }
        match identity.subject {
            Subject::Admin(_) if !identity.is_valid_at(wall_ms()) => Err(Refusal::Expired),
            Subject::Admin(_) => {
                self.trust.vouch_for_admin(certificate, wall_ms())?;
                Ok(Admitted { principal: Principal::Admin, manager: false })
            }
            Subject::Node(node) => self.check_node(node, &identity.public_key),
        }
    }

    fn check_node(&self, node: NodeId, key: &[u8]) -> Result<Admitted, Refusal> {
        let access = self.access();
        match access.nodes.iter().find(|(known, _, _)| *known == node) {
            Some((_, known, manager)) if known == key => Ok(Admitted { principal: Principal::Node(node), manager: *manager }),
            Some(_) => Err(Refusal::OtherKey(node)),
            None if access.removed.contains(&node) => Err(Refusal::Removed(node)),
            None => Err(Refusal::Unknown(node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        drivers::pki::{Authority, new_key, public_key},
        model::authority::{Authorities, Certificate},
    };

    const CLUSTER: ClusterId = ClusterId(1);

    fn caller(certificate: Option<Vec<u8>>, uid: Option<u32>) -> Caller {
        Caller { certificate: certificate.map(Arc::from), address: "127.0.0.1:1".into(), uid }
    }

    #[test]
    fn each_caller_comes_in_as_what_it_is_or_not_at_all() {
        let authority = Authority::create(CLUSTER, wall_ms());
        let other = Authority::create(ClusterId(2), wall_ms());
        let key = public_key(&new_key()).expect("just made");
        let other_key = public_key(&new_key()).expect("just made");
        let trust = Trust::new();
        let secret = new_key();
        let shown = authority.sign_node(NodeId(9), &public_key(&secret).expect("just made"), 1).expect("32 bytes");
        trust.install(&shown, &secret, authority.certificate()).expect("a pair");
        let door = Doorkeeper::new(CLUSTER, trust, 1000);
        let node = |id: u64, key: &[u8]| Some(authority.sign_node(NodeId(id), key, 1).expect("32 bytes"));
        let admin = |now_ms| Some(authority.sign_admin(&key, now_ms).expect("32 bytes"));
        door.update(Arc::new(Access {
            nodes: vec![(NodeId(1), key.clone(), true), (NodeId(2), key.clone(), false)],
            removed: vec![NodeId(3)],
            leader: None,
            ..Access::default()
        }));
        let admitted = |principal, manager| Ok(Admitted { principal, manager });
        let table = [
            (caller(None, None), admitted(Principal::Joiner, false)),
            (caller(None, Some(0)), admitted(Principal::Admin, false)),
            (caller(None, Some(1000)), admitted(Principal::Admin, false)),
            (caller(None, Some(1001)), Err("user 1001 may not administer this node; its own user and root may")),
            (caller(node(1, &key), None), admitted(Principal::Node(NodeId(1)), true)),
            (caller(node(2, &key), None), admitted(Principal::Node(NodeId(2)), false)),
            (caller(node(2, &other_key), None), Err("node 0000000000000002 is known by another key")),
            (caller(node(3, &key), None), Err("node 0000000000000003 was removed from the cluster")),
            (caller(node(4, &key), None), Err("node 0000000000000004 is not a node of this cluster")),
            (caller(admin(wall_ms()), None), admitted(Principal::Admin, false)),
            (caller(admin(1), None), Err("the administrator's certificate has expired")),
            (
                caller(Some(other.sign_admin(&key, wall_ms()).expect("32 bytes")), None),
                Err("the certificate is of cluster 0000000000000002, this is cluster 0000000000000001"),
            ),
        ];
        for (caller, expected) in table {
            assert_eq!(door.check(&caller).map_err(|refusal| refusal.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn an_administrator_of_a_dropped_authority_is_out_though_its_connection_is_open() {
        let (old, new) = (Authority::create(CLUSTER, wall_ms()), Authority::create(CLUSTER, wall_ms()));
        let secret = new_key();
        let key = public_key(&secret).expect("just made");
        let by = |authority: &Authority| authority.sign_node(NodeId(9), &key, 1).expect("32 bytes");
        let trusted = |some: &[&Authority]| some.iter().map(|ca| Certificate(ca.certificate().to_vec())).collect();
        let trust = Trust::new();
        let both = Authorities { version: 1, trusted: trusted(&[&old, &new]), ..Authorities::default() };
        trust.install_all(&[by(&old), by(&new)], &secret, both).expect("pairs");
        let door = Doorkeeper::new(CLUSTER, Arc::clone(&trust), 1000);
        let admin = |authority: &Authority| caller(Some(authority.sign_admin(&key, wall_ms()).expect("32 bytes")), None);
        let (yesterdays, todays) = (admin(&old), admin(&new));
        for _ in 0..2 {
            assert_eq!([&yesterdays, &todays].map(|admin| door.check(admin).is_ok()), [true; 2]);
        }
        trust.learn(&Authorities { version: 2, trusted: trusted(&[&new]), ..Authorities::default() }).expect("it has a certificate of it");
        assert_eq!([&yesterdays, &todays].map(|admin| door.check(admin).is_ok()), [false, true]);
    }
}
