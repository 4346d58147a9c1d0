//! A node that wants in asks a seed: the words on the wire, and what each answer means for whoever asked.

use crate::{
    drivers::{
        api::{refusal::code_of, unformed},
        pki::PkiError,
    },
    model::{command::KINDS_KNOWN, ids::NodeId, query::Way},
};
use proto::{Channel, ChannelLimits, Spawner, v1};
use rustls::ClientConfig;
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Code, Status};

/// What a node says of itself when it asks.
pub struct Plea {
    /// Empty: it only looks who is there.
    pub token_secret: String,
    /// PKCS#10 DER; its key becomes the node's identity.
    pub csr: Vec<u8>,
    pub name: String,
    /// `host:port`
    pub address: String,
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    pub labels: BTreeMap<String, String>,
    /// The provider's name of the machine, if it was launched.
    pub instance: Option<String>,
}

/// What a node gets that is let in; nothing of it is checked yet.
pub struct LetIn {
    /// The id that was let in, as it was written.
    pub node: String,
    pub cluster_name: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// DER.
    pub ca: Vec<u8>,
    pub managers: Vec<Way>,
}

pub enum Answer {
    LetIn(Box<LetIn>),
    /// That node is in no cluster yet either.
    Unformed(Option<NodeId>),
    /// The same request will never be let in, and why.
    Never(String),
    /// It shows another CA than the one asked for: nothing was said to it.
    OtherCa,
    /// A node of the cluster answered: perhaps later, and why not now.
    NotNow(String),
    /// Nobody answered, and why.
    Silent(String),
}

/// Asks once.
pub async fn ask(spawner: &Spawner, address: &str, tls: Arc<ClientConfig>, plea: &Plea) -> Answer {
    let request = v1::JoinRequest {
        token_secret: plea.token_secret.clone(),
        csr: plea.csr.clone(),
        name: plea.name.clone(),
        address: plea.address.clone(),
        cpus: plea.cpus,
        memory: plea.memory,
        labels: plea.labels.clone().into_iter().collect(),
        instance: plea.instance.clone().unwrap_or_default(),
        commands_known: KINDS_KNOWN,
    };
    let channel = Channel::tcp(spawner.clone(), address.to_owned(), tls, ChannelLimits::default());
    match channel.join().join(request).await {
        Ok(reply) => Answer::LetIn(Box::new(let_in(reply.into_inner()))),
        Err(status) => refused(&status),
    }
}

fn let_in(reply: v1::JoinReply) -> LetIn {
    // An id that is none is no reason to stay out: its address is tried all the same.
    let way = |peer: v1::PeerAddress| Way { node: peer.node.parse().ok(), address: peer.address };
    let managers = reply.peers.into_iter().map(way).collect();
    LetIn { node: reply.node, cluster_name: reply.cluster, certificate: reply.certificate, ca: reply.ca, managers }
}

fn refused(status: &Status) -> Answer {
    match code_of(status) {
        "unformed" => Answer::Unformed(unformed::id_in(status)),
        _ if is_final(status) => Answer::Never(status.message().to_owned()),
        _ if status.message().contains(&PkiError::OtherCa.to_string()) => Answer::OtherCa,
        "" => Answer::Silent(status.message().to_owned()),
        _ => Answer::NotNow(status.message().to_owned()),
    }
}

/// Whether the same request will never be let in: the token is no good, or the node or its build is not wanted.
/// A server with another CA refuses nothing (we never spoke); a full cluster may have room later.
fn is_final(status: &Status) -> bool {
    matches!(code_of(status), "token_unknown" | "token_expired" | "token_used" | "denied" | "invalid" | "removed" | "taken" | "too_old")
        || matches!(status.code(), Code::InvalidArgument | Code::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::api::refusal::refuse;

    #[test]
    fn only_what_stays_no_is_taken_for_a_no() {
        for code in ["token_expired", "token_used", "token_unknown", "removed", "taken", "too_old", "invalid"] {
            assert!(is_final(&refuse(code, "no")), "{code}");
        }
        for code in ["busy", "limit", "unavailable", "elsewhere", "internal"] {
            assert!(!is_final(&refuse(code, "not now")), "{code}");
        }
        assert!(!is_final(&Status::unavailable("cannot reach 127.0.0.1:1")));
        assert!(!is_final(&Status::deadline_exceeded("slow")));
    }
}
