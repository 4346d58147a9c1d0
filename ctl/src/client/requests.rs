//! What can be asked, a method each.

use super::{CallError, Client, mismatched, worth_another_try};
use agent::drivers::api::refusal::code_of;
use proto::v1::{self, read_reply, read_request, write_request};
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// One attempt at what runs a script, which may take its time: a little more than the node itself gives it.
const PLAN_MAX: Duration = Duration::from_secs(130);
const EVAL_MAX: Duration = Duration::from_secs(310);

impl Client {
    /// Changes something; applied once, however often it is tried.
    ///
    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn write(&mut self, op: write_request::Op) -> Result<v1::WriteReply, CallError> {
        self.sequence += 1;
        let request = v1::WriteRequest { client: self.client, sequence: self.sequence, op: Some(op) };
        self.call(|mut grpc| {
            let request = request.clone();
            async move { grpc.write(request).await }
        })
        .await
    }

    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn read(&mut self, stale: bool, query: read_request::Query) -> Result<read_reply::Result, CallError> {
        let request = v1::ReadRequest { stale, query: Some(query) };
        let reply = self
            .call(|mut grpc| {
                let request = request.clone();
                async move { grpc.read(request).await }
            })
            .await?;
        reply.result.ok_or_else(|| CallError::Refused { code: Code::Internal, why: "the node sent an empty answer".into() })
    }

    /// # Errors
    /// As [`Client::read`].
    pub async fn status(&mut self, stale: bool) -> Result<v1::Status, CallError> {
        match self.read(stale, read_request::Query::Status(v1::StatusQuery {})).await? {
            read_reply::Result::Status(status) => Ok(status),
            _ => Err(mismatched()),
        }
    }

    /// What the asked node would go on from without its majority; with `lost`, it does (and has a leader then, so a
    /// second try is refused).
    ///
    /// # Errors
    /// Refused, or it did not answer.
    pub async fn recover(&mut self, lost: Vec<String>) -> Result<v1::RecoverReply, CallError> {
        self.call(|mut grpc| {
            let request = v1::RecoverRequest { lost: lost.clone() };
            async move { grpc.recover(request).await }
        })
        .await
    }

    /// Opens a stream of answers: one now, one after each change.
    ///
    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn watch(&mut self, stale: bool, query: read_request::Query) -> Result<Streaming<v1::ReadReply>, CallError> {
        let request = v1::ReadRequest { stale, query: Some(query) };
        self.call(|mut grpc| {
            let request = request.clone();
            async move { grpc.watch(request).await }
        })
        .await
    }

    /// What applying these modules, or going back to those before, would change. Asking twice does no harm.
    ///
    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn plan(&mut self, asked: v1::PlanRequest) -> Result<v1::PlanReply, CallError> {
        self.call_for(PLAN_MAX, worth_another_try, |mut grpc| {
            let request = slow(asked.clone(), PLAN_MAX);
            async move { grpc.plan(request).await }
        })
        .await
    }

    /// Evaluates an expression on the leader, once: what it does may not bear being done again.
    ///
    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn eval(&mut self, expression: &str) -> Result<v1::EvalReply, CallError> {
        self.call_for(EVAL_MAX, was_not_taken, |mut grpc| {
            let request = slow(v1::EvalRequest { expression: expression.to_owned() }, EVAL_MAX);
            async move { grpc.eval(request).await }
        })
        .await
    }

    /// Opens a stream of a service's lines.
    ///
    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn logs(&mut self, request: &v1::LogsRequest) -> Result<Streaming<v1::LogLine>, CallError> {
        self.call(|mut grpc| {
            let request = request.clone();
            async move { grpc.logs(request).await }
        })
        .await
    }

    /// # Errors
    /// Refused, or nobody answered within the patience.
    pub async fn issue_admin(&mut self, csr: Vec<u8>) -> Result<v1::IssueAdminReply, CallError> {
        self.call(|mut grpc| {
            let request = v1::IssueAdminRequest { csr: csr.clone() };
            async move { grpc.issue_admin(request).await }
        })
        .await
    }
}

/// Nothing of it was begun.
fn was_not_taken(status: &Status) -> bool {
    let sent_on = matches!(code_of(status), "busy" | "elsewhere" | "not_a_manager");
    status.message().starts_with("cannot reach ") || sent_on
}

/// A request that may take longer than others.
fn slow<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}
