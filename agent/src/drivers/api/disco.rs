//! The service for people: administrators and managers only.

use super::{Api, activity::Work, convert, logs, refusal, refusal::refuse, unsigned, watch};
use crate::model::query::{Answer, Principal, Query, Request as Ask, View};
use futures_lite::Stream;
use proto::v1::{self, disco_server::Disco, forward_reply::Reply, forward_request::Request as Wire};
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status};

pub struct DiscoService(pub Arc<Api>);

#[tonic::async_trait]
impl Disco for DiscoService {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteReply>, Status> {
        let principal = self.0.gate.person(&request, "change the cluster")?;
        self.0.activity.note(Work::Asked);
        match self.0.settle(principal, Wire::Write(request.into_inner())).await? {
            Reply::Write(reply) => Ok(Response::new(reply)),
            _ => Err(wrong_reply()),
        }
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadReply>, Status> {
        let principal = self.0.gate.person(&request, "read the cluster's state")?;
        self.0.activity.note(Work::Asked);
        match self.0.settle(principal, Wire::Read(request.into_inner())).await? {
            Reply::Read(reply) => Ok(Response::new(reply)),
            _ => Err(wrong_reply()),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::ReadReply, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.gate.person(&request, watch::WHAT)?;
        let changes = self.0.changes.subscribe().ok_or_else(|| refuse("busy", "this node has all the watchers it can take"))?;
        let (caller, question) = super::apart(request);
        let stream = watch::stream(self.0.clone(), caller, question, changes);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanReply>, Status> {
        let principal = self.0.gate.person(&request, "plan changes")?;
        self.0.activity.note(Work::Asked);
        match self.0.settle(principal, Wire::Plan(request.into_inner())).await? {
            Reply::Plan(reply) => Ok(Response::new(reply)),
            _ => Err(wrong_reply()),
        }
    }

    async fn eval(&self, request: Request<v1::EvalRequest>) -> Result<Response<v1::EvalReply>, Status> {
        let principal = self.0.gate.person(&request, "evaluate expressions")?;
        self.0.activity.note(Work::Asked);
        match self.0.settle(principal, Wire::Eval(request.into_inner())).await? {
            Reply::Eval(reply) => Ok(Response::new(reply)),
            _ => Err(wrong_reply()),
        }
    }

    async fn recover(&self, request: Request<v1::RecoverRequest>) -> Result<Response<v1::RecoverReply>, Status> {
        self.0.gate.person(&request, "recover the cluster")?;
        let lost = request.into_inner().lost.iter().map(|id| convert::node_id(id)).collect::<Result<_, _>>()?;
        match self.0.door.ask(Principal::Admin, Ask::Recover { lost }).await {
            Answer::Recover(view) => Ok(Response::new(convert::recover_reply(*view))),
            Answer::Written { index, .. } => Ok(Response::new(v1::RecoverReply { index, ..Default::default() })),
            other => Err(refusal::unwished(other)),
        }
    }

    type LogsStream = logs::Lines;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let principal = self.0.gate.person(&request, "read logs")?;
        self.0.activity.note(Work::Asked);
        let (api, (caller, wanted)) = (self.0.clone(), super::apart(request));
        let allowed = move || api.gate.person(&caller, "read logs").map(drop);
        Ok(Response::new(logs::while_allowed(logs::merged(self.0.clone(), principal, wanted).await?, allowed)))
    }

    async fn issue_admin(&self, request: Request<v1::IssueAdminRequest>) -> Result<Response<v1::IssueAdminReply>, Status> {
        self.0.gate.person(&request, "issue administrators' certificates")?;
        let certificate = self.0.trust.issue_admin(&request.get_ref().csr).map_err(unsigned)?;
        let known = self.0.trust.held().map(|(known, _)| known.trusted).unwrap_or_default();
        let authorities = known.into_iter().map(|ca| ca.0).collect();
        let mut reply = v1::IssueAdminReply { certificate, ca: self.0.trust.ca(), authorities, ..Default::default() };
        let status = Ask::Read { stale: true, query: Query::Status };
        if let Answer::Read { view: View::Status(view), .. } = self.0.door.ask(Principal::Admin, status).await {
            reply.cluster_id = view.cluster.to_string();
            reply.cluster = view.cluster_name;
            reply.addresses = view.nodes.into_iter().map(|node| node.address).collect();
        }
        Ok(Response::new(reply))
    }
}

pub(super) fn wrong_reply() -> Status {
    refuse("internal", "another question was answered")
}
