//! The service between nodes.
//!
//! Who may call what: a report or a renewal comes from any node of the cluster; Raft messages, snapshots, seats and
//! passed-on requests only from managers. A node that has no Raft data yet knows its managers and their keys from the
//! answer to its last report (`Access`), so that it needs to trust no other node's word even then: before the first
//! answer nobody may give it a seat, and it asks about once a second.

use super::{Api, activity::Work, convert, logs, refusal, unsigned};
use crate::model::{
    authority::Authorities,
    codec,
    ids::MemberId,
    io::{Input, Keyring},
    limits::{RAFT_MESSAGE_BYTES_MAX, SNAPSHOT_BYTES_MAX},
    query::{Answer, Principal, Request as Ask},
    task::Orders,
};
use futures_lite::future::or;
use proto::v1::{self, Done, peer_server::Peer};
use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::{Request, Response, Status, Streaming};

/// The sender of a silent stream is looked up this often.
const LOOK: Duration = Duration::from_secs(2);
/// The next piece of a snapshot has to come within this: only one snapshot comes in at a time.
const PIECE_WAIT: Duration = Duration::from_secs(10);

pub struct PeerService(pub Arc<Api>);

#[tonic::async_trait]
impl Peer for PeerService {
    async fn raft(&self, request: Request<Streaming<v1::RaftBatch>>) -> Result<Response<Done>, Status> {
        let from = self.0.gate.manager(&request, "send Raft messages")?;
        let (mut caller, mut stream) = apart(request);
        while let Some(batch) = self.next(&mut stream, &mut caller, "send Raft messages", None).await? {
            if batch.messages.iter().any(|message| message.len() > RAFT_MESSAGE_BYTES_MAX) {
                return Err(refusal::refuse("limit", format!("a Raft message may have {RAFT_MESSAGE_BYTES_MAX} bytes")));
            }
            let to = member(batch.to_member)?;
            self.hand_in(Input::Raft { from, to, messages: batch.messages }).await?;
        }
        Ok(Response::new(Done {}))
    }

    async fn snapshot(&self, request: Request<Streaming<v1::SnapshotChunk>>) -> Result<Response<Done>, Status> {
        let from = self.0.gate.manager(&request, "send a snapshot")?;
        let (mut caller, mut stream) = apart(request);
        let head = self.next(&mut stream, &mut caller, "send a snapshot", Some(PIECE_WAIT)).await?;
        let head = head.ok_or_else(|| refusal::refuse("invalid", "a snapshot has a first chunk"))?;
        let to = member(head.to_member)?;
        let total = usize::try_from(head.total).ok().filter(|total| *total <= SNAPSHOT_BYTES_MAX);
        let total = total.ok_or_else(|| refusal::refuse("limit", format!("a snapshot may have {SNAPSHOT_BYTES_MAX} bytes")))?;
        let _one_at_a_time = self.0.snapshots.try_lock().ok_or_else(|| refusal::refuse("busy", "another snapshot is coming in"))?;
        let mut data = Vec::with_capacity(total);
        while let Some(chunk) = self.next(&mut stream, &mut caller, "send a snapshot", Some(PIECE_WAIT)).await? {
            if data.len() + chunk.data.len() > total {
                return Err(refusal::refuse("invalid", format!("the snapshot is longer than the {total} bytes announced")));
            }
            data.extend_from_slice(&chunk.data);
        }
        if data.len() != total {
            return Err(refusal::refuse("invalid", format!("{} of {total} bytes came", data.len())));
        }
        self.hand_in(Input::Snapshot { from, to, message: head.message, data }).await?;
        self.0.activity.note(Work::Asked);
        Ok(Response::new(Done {}))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportReply>, Status> {
        let from = match self.0.gate.node(&request) {
            Ok(from) => from,
            Err(refused) => {
                let (leader, address) = self.0.gate.way_for_stranger(&request).ok_or(refused)?;
                return Ok(Response::new(convert::report_reply(
                    leader,
                    address,
                    vec![],
                    vec![],
                    &Orders::default(),
                    &Authorities::default(),
                )));
            }
        };
        let report = convert::report(request.into_inner(), from)?;
        match self.0.door.ask(Principal::Node(from), Ask::Report(report)).await {
            Answer::Reported { leader, leader_address, managers, removed, orders, authorities } => {
                Ok(Response::new(convert::report_reply(leader, leader_address, managers, removed, &orders, &authorities)))
            }
            // The reporter goes on to the leader by itself.
            Answer::Elsewhere { leader, address } => {
                Ok(Response::new(convert::report_reply(leader, address, vec![], vec![], &Orders::default(), &Authorities::default())))
            }
            other => Err(refusal::unwished(other)),
        }
    }

    type TaskLogsStream = logs::Lines;

    async fn task_logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::TaskLogsStream>, Status> {
        self.0.gate.manager(&request, "read logs")?;
        let (api, (caller, wanted)) = (self.0.clone(), super::apart(request));
        let allowed = move || api.gate.manager(&caller, "read logs").map(drop);
        Ok(Response::new(logs::while_allowed(logs::here(&self.0, &wanted)?, allowed)))
    }

    async fn enlist(&self, request: Request<v1::EnlistRequest>) -> Result<Response<Done>, Status> {
        let from = self.0.gate.manager(&request, "give out Raft seats")?;
        let request = request.into_inner();
        let member = member(request.member)?;
        let keyring: Keyring = codec::decode(&request.keyring).map_err(|why| refusal::refuse("invalid", format!("keyring: {why}")))?;
        self.settled(self.0.door.put(|ticket| Input::Enlist { ticket, from, member, keyring }).await)
    }

    async fn discharge(&self, request: Request<v1::DischargeRequest>) -> Result<Response<Done>, Status> {
        let from = self.0.gate.manager(&request, "take back Raft seats")?;
        let member = member(request.get_ref().member)?;
        self.settled(self.0.door.put(|ticket| Input::Discharge { ticket, from, member }).await)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        let (node, public_key) = self.0.gate.node_and_key(&request)?;
        let certificate = self.0.trust.renew(node, &public_key, &request.get_ref().csr).map_err(unsigned)?;
        Ok(Response::new(v1::RenewReply { certificate }))
    }

    async fn forward(&self, request: Request<v1::ForwardRequest>) -> Result<Response<v1::ForwardReply>, Status> {
        self.0.gate.manager(&request, "pass requests on").map_err(refusal::of_the_messenger)?;
        let request = request.into_inner();
        let principal = convert::principal(&request.principal)?;
        let wire = request.request.ok_or_else(|| refusal::refuse("invalid", "`request` is missing"))?;
        let reply = self.0.settle_here(&principal, &wire).await?;
        Ok(Response::new(v1::ForwardReply { reply: Some(reply) }))
    }
}

impl PeerService {
    /// What comes next on a manager's stream. The list may change while it lasts: a node that was removed ends here,
    /// whether it speaks or not. `patience`: how long it may be silent.
    async fn next<T>(
        &self,
        stream: &mut Streaming<T>,
        caller: &mut Standing,
        what: &str,
        patience: Option<Duration>,
    ) -> Result<Option<T>, Status> {
        let since = Instant::now();
        let mut next = pin!(stream.message());
        loop {
            let look = async {
                (&mut caller.look).await;
                None
            };
            let came = or(async { Some(next.as_mut().await) }, look).await;
            if came.is_none() {
                caller.look.set_after(LOOK);
            }
            self.0.gate.manager(&caller.request, what)?;
            match came {
                Some(message) => return message,
                None if patience.is_some_and(|patience| since.elapsed() > patience) => {
                    return Err(refusal::refuse("unavailable", "nothing came for too long"));
                }
                None => {}
            }
        }
    }

    async fn hand_in(&self, input: Input) -> Result<(), Status> {
        if self.0.door.hand_in(input).await { Ok(()) } else { Err(refusal::refuse("unavailable", "this node is stopping")) }
    }

    fn settled(&self, answer: Answer) -> Result<Response<Done>, Status> {
        match answer {
            Answer::Written { .. } => Ok(Response::new(Done {})),
            other => Err(refusal::unwished(other)),
        }
    }
}

/// Who calls, to ask about again while the stream lasts. One alarm for all of it: a new one for each message would wake
/// the reactor as often as the message itself.
struct Standing {
    request: Request<()>,
    look: async_io::Timer,
}

fn apart<T>(request: Request<Streaming<T>>) -> (Standing, Streaming<T>) {
    let (request, stream) = super::apart(request);
    (Standing { request, look: async_io::Timer::after(LOOK) }, stream)
}

fn member(number: u64) -> Result<MemberId, Status> {
    convert::member(number).ok_or_else(|| refusal::refuse("invalid", "0 is no Raft member"))
}
