//! The gRPC services, and the one place that knows both protobuf and `model`.
//!
//! A request passes the gate (who asks, and may they?), becomes a question at the replica's door, and its answer goes
//! out as protobuf; a follower passes it on to the leader.

pub mod activity;
mod artifact;
pub mod convert;
mod disco;
pub mod door;
pub mod gate;
mod join;
mod logs;
mod peer;
pub mod refusal;
mod settle;
pub mod unformed;
pub mod watch;

use self::{activity::Activity, door::Door, gate::Gate, join::Throttle, watch::Changes};
use crate::{
    drivers::{
        artifacts::Artifacts,
        peers::Peers,
        pki::{Doorkeeper, PkiError, Trust},
        runtime::growth::Logs,
    },
    model::{ids::NodeId, limits::ARTIFACT_FETCHES_MAX},
};
use proto::{Routes, ServerLimits};
use smol::lock::Mutex;
use std::sync::Arc;

/// What the services share.
pub struct Api {
    /// This node.
    pub node: NodeId,
    pub door: Door,
    pub peers: Peers,
    pub gate: Gate,
    pub trust: Arc<Trust>,
    pub changes: Changes,
    pub activity: Activity,
    /// Of this node's tasks.
    pub logs: Arc<Logs>,
    /// Held while a snapshot comes in: each may be megabytes.
    snapshots: Mutex<()>,
    throttle: Throttle,
    artifacts: Artifacts,
    /// Programs that go out.
    fetches: Arc<smol::lock::Semaphore>,
}

impl Api {
    pub fn new(
        node: NodeId,
        door: Door,
        peers: Peers,
        trust: Arc<Trust>,
        doorkeeper: Doorkeeper,
        logs: Arc<Logs>,
        artifacts: Artifacts,
    ) -> Arc<Api> {
        Arc::new(Api {
            node,
            door,
            peers,
            gate: Gate::new(doorkeeper),
            trust,
            changes: Changes::default(),
            activity: Activity::default(),
            logs,
            snapshots: Mutex::new(()),
            throttle: Throttle::default(),
            artifacts,
            fetches: Arc::new(smol::lock::Semaphore::new(ARTIFACT_FETCHES_MAX)),
        })
    }

    /// All three services, and programs; the same on the port and on control.sock.
    pub fn routes(self: &Arc<Api>, limits: &ServerLimits) -> Routes {
        let api = self.clone();
        Routes::new(limits)
            .disco(Arc::new(disco::DiscoService(self.clone())))
            .join(Arc::new(join::JoinService(self.clone())))
            .peer(Arc::new(peer::PeerService(self.clone())))
            .plain(artifact::PATH, move |request| artifact::serve(api.clone(), request))
    }
}

/// Who calls, to be asked about again while a stream lasts, and what for.
fn apart<T>(request: tonic::Request<T>) -> (tonic::Request<()>, T) {
    let (metadata, extensions, asked) = request.into_parts();
    (tonic::Request::from_parts(metadata, extensions, ()), asked)
}

/// A certificate that cannot be made: the request is bad, or this node cannot sign.
fn unsigned(error: PkiError) -> tonic::Status {
    match error {
        PkiError::NoKeyring | PkiError::NoCluster => refusal::refuse("unavailable", format!("{error}; ask a manager")),
        bad => refusal::refuse("invalid", bad.to_string()),
    }
}
