//! What a node answers that is in no cluster yet: its id, to whoever wants to join.

use super::refusal::refuse;
use crate::model::ids::NodeId;
use proto::{Routes, ServerLimits, v1};
use std::sync::Arc;
use tonic::{Request, Response, Status};

struct Unformed(NodeId);

/// The one service of such a node.
pub fn routes(node: NodeId, limits: &ServerLimits) -> Routes {
    Routes::new(limits).join(Arc::new(Unformed(node)))
}

#[tonic::async_trait]
impl v1::join_server::Join for Unformed {
    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        Err(refuse("unformed", format!("node {} is in no cluster yet", self.0)))
    }
}

/// The id in such an answer.
pub fn id_in(status: &Status) -> Option<NodeId> {
    status.message().split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_carries_the_id() {
        let answer = smol::block_on(v1::join_server::Join::join(&Unformed(NodeId(0xab)), Request::new(v1::JoinRequest::default())));
        assert_eq!(id_in(&answer.expect_err("it lets nobody in")), Some(NodeId(0xab)));
    }
}
