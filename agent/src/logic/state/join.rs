//! Letting nodes in and out: what a credential allows, once.

use super::{State, apply::Outcome};
use crate::model::{
    authority::Papers,
    command::Joiner,
    ids::{NodeId, OperationId},
    instance::InstanceDesired,
    limits::{LABELS_MAX, NAME_BYTES_MAX, NODES_MAX, REMOVED_NODES_KEPT, TOKENS_MAX},
    node::{NodeRecord, NodeState, Role, is_address},
    token::{Credential, TokenRecord},
};

/// Token lifetimes are bounded so that a stamp plus a lifetime cannot overflow: ten years.
const TTL_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;

pub(super) fn record(joiner: Joiner, admitted: Role, stamp_ms: u64) -> NodeRecord {
    NodeRecord {
        id: joiner.id,
        name: joiner.name,
        address: joiner.address,
        public_key: joiner.public_key,
        state: NodeState::Joining,
        member: None,
        cpus: joiner.cpus,
        memory: joiner.memory,
        labels: joiner.labels,
        instance: joiner.instance,
        joined_ms: stamp_ms,
        reason: String::new(),
        commands_known: joiner.commands_known,
        admitted,
        since_ms: stamp_ms,
        seated: false,
        drained: false,
        preference: None,
        papers: Papers::default(),
        leaving: false,
    }
}

impl State {
    pub(super) fn token_create(&mut self, id: String, hash: Vec<u8>, role: Role, ttl_ms: u64, uses: u32) -> Outcome {
        if ttl_ms == 0 || ttl_ms > TTL_MAX_MS {
            return Outcome::refused("invalid", "a token lives between 1 ms and ten years".into());
        }
        if uses == 0 {
            return Outcome::refused("invalid", "a token has at least one use".into());
        }
        if self.tokens.len() >= TOKENS_MAX {
            let stamp = self.stamp_ms;
            let spent = |t: &&TokenRecord| t.uses_left == 0 || t.expires_ms <= stamp;
            let oldest = self.tokens.values().filter(spent).min_by_key(|t| t.created_ms).map(|t| t.id.clone());
            match oldest {
                Some(oldest) => self.tokens.remove(&oldest),
                None => return Outcome::refused("limit", format!("there are {TOKENS_MAX} live tokens already; revoke one")),
            };
        }
        let expires_ms = self.stamp_ms + ttl_ms;
        let record = TokenRecord { id: id.clone(), hash, role, created_ms: self.stamp_ms, expires_ms, uses_left: uses };
        self.tokens.insert(id.clone(), record);
        Outcome::TokenCreated { id }
    }

    pub(super) fn join(&mut self, credential: &Credential, mut joiner: Joiner) -> Outcome {
        if let Err(refused) = well_formed(&joiner) {
            return refused;
        }
        if let Some(known) = self.nodes.get(&joiner.id) {
            // A lost reply must not strand a joiner: the same key may ask again until its node is ready. (Its machine
            // may have stopped meanwhile, which makes it lost.)
            let again = known.public_key == joiner.public_key && matches!(known.state, NodeState::Joining | NodeState::Lost);
            return match again {
                true => Outcome::Joined { node: joiner.id, stamp_ms: known.joined_ms },
                false => Outcome::refused("taken", format!("node {} is in the cluster already", joiner.id)),
            };
        }
        if self.removed.contains(&joiner.id) {
            return Outcome::refused(
                "removed",
                format!("node {} was removed from the cluster; to join as a new one, delete its data dir", joiner.id),
            );
        }
        if self.nodes.values().any(|n| n.public_key == joiner.public_key) {
            return Outcome::refused("taken", "another node has this key".into());
        }
        if self.nodes.len() >= NODES_MAX {
            return Outcome::refused("limit", format!("the cluster has {NODES_MAX} nodes already, the most it takes"));
        }
        if joiner.commands_known < self.kinds_in_use {
            let why = format!("this build understands commands up to {}, the cluster uses {}", joiner.commands_known, self.kinds_in_use);
            return Outcome::refused("too_old", why);
        }
        let admitted = match credential {
            Credential::Token(id) => self.use_token(id),
            Credential::Launch(operation) => self.use_launch(*operation, joiner.id),
        };
        let admitted = match admitted {
            Ok(role) => role,
            Err(refused) => return refused,
        };
        if self.nodes.values().any(|n| n.name == joiner.name) {
            joiner.name = format!("{}-{:.4}", joiner.name, joiner.id.to_string());
        }
        if let Credential::Launch(operation) = credential {
            joiner.instance = self.instances.get(operation).and_then(|i| i.id.clone()).or(joiner.instance);
        }
        let id = joiner.id;
        self.nodes.insert(id, record(joiner, admitted, self.stamp_ms));
        Outcome::Joined { node: id, stamp_ms: self.stamp_ms }
    }

    fn use_token(&mut self, id: &str) -> Result<Role, Outcome> {
        let stamp = self.stamp_ms;
        let Some(token) = self.tokens.get_mut(id) else {
            return Err(Outcome::refused("token_unknown", "the token is not of this cluster, or was revoked".into()));
        };
        if token.expires_ms <= stamp {
            return Err(Outcome::refused("token_expired", format!("token {id} expired")));
        }
        if token.uses_left == 0 {
            return Err(Outcome::refused("token_used", format!("token {id} was used already")));
        }
        token.uses_left -= 1;
        Ok(token.role)
    }

    /// A launch token lives as long as its operation, and lets in one node.
    fn use_launch(&mut self, operation: OperationId, node: NodeId) -> Result<Role, Outcome> {
        let Some(instance) = self.instances.get_mut(&operation) else {
            return Err(Outcome::refused("token_unknown", "the launch this token belongs to is not known".into()));
        };
        if instance.desired == InstanceDesired::Terminated {
            return Err(Outcome::refused("token_expired", "the instance of this token is being terminated".into()));
        }
        if instance.node.is_some() {
            return Err(Outcome::refused("token_used", "the token of this launch was used already".into()));
        }
        instance.node = Some(node);
        Ok(Role::Manager)
    }

    pub(super) fn node_remove(&mut self, id: NodeId) -> Outcome {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Outcome::refused("not_found", format!("no node {id}"));
        };
        if let Some(instance) = self.instances.values_mut().find(|i| i.node == Some(id)) {
            instance.desired = InstanceDesired::Terminated;
        }
        // The majority that lets a voter go may need its vote: it stays one of us until it is out of the group.
        if node.member.is_some() {
            if !node.leaving {
                node.leaving = true;
                let name = node.name.clone();
                self.event("node.leaving", &name, "gives up its seat first");
            }
            return Outcome::Done;
        }
        let node = self.nodes.remove(&id).expect("just seen");
        self.removed.push_back(id);
        if self.removed.len() > REMOVED_NODES_KEPT {
            self.removed.pop_front();
        }
        self.event("node.left", &node.name, "removed from the cluster");
        Outcome::Done
    }
}

fn well_formed(joiner: &Joiner) -> Result<(), Outcome> {
    let refuse = |why: String| Err(Outcome::refused("invalid", why));
    if joiner.public_key.len() != 32 {
        return refuse(format!("a node's key is an ed25519 key of 32 bytes, this one has {}", joiner.public_key.len()));
    }
    if joiner.name.is_empty() || joiner.name.len() > NAME_BYTES_MAX || joiner.name.chars().any(char::is_control) {
        return refuse(format!("a node's name has 1 to {NAME_BYTES_MAX} printable bytes"));
    }
    if !is_address(&joiner.address) {
        return refuse("a node's address is host:port in plain letters".into());
    }
    let odd = |s: &String| s.len() > NAME_BYTES_MAX || s.chars().any(char::is_control);
    if joiner.labels.len() > LABELS_MAX || joiner.labels.iter().any(|(k, v)| odd(k) || odd(v)) {
        return refuse(format!("at most {LABELS_MAX} labels of {NAME_BYTES_MAX} printable bytes each"));
    }
    if joiner.instance.as_ref().is_some_and(odd) {
        return refuse(format!("an instance id has at most {NAME_BYTES_MAX} printable bytes"));
    }
    Ok(())
}
