//! Gets a request answered: here if this node leads, otherwise by the leader.
//!
//! A manager that follows passes the request on as it came, naming for whom; the leader answers it itself or says that
//! it leads no more. Then, and when the leader cannot be reached, we look again until the request's time is over.

use super::{Api, convert, refusal};
use crate::model::{
    ids::NodeId,
    limits::{REQUEST_TIMEOUT_MS, SCRIPT_CONFIGURE_MS_MAX, SCRIPT_HOOK_MS_MAX, SCRIPT_INIT_MS_MAX},
    query::{Answer, Principal, Request},
};
use futures_lite::FutureExt;
use proto::v1::{self, forward_reply::Reply, forward_request::Request as Wire};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Between two looks for a leader that moved.
const PAUSE: Duration = Duration::from_millis(100);
/// What the replica may take beyond the time it promises.
const GRACE: Duration = Duration::from_secs(2);

impl Api {
    /// The answer, wherever it comes from.
    ///
    /// # Errors
    /// The refusal, or `UNAVAILABLE` when nobody who leads could be asked in time.
    pub async fn settle(&self, principal: Principal, request: Wire) -> Result<Reply, Status> {
        let deadline = Instant::now() + Duration::from_millis(REQUEST_TIMEOUT_MS);
        loop {
            let moved = match self.try_once(&principal, &request).await {
                Err(status) if is_worth_another_look(&status) => status,
                settled => return settled,
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(refusal::refuse("unavailable", format!("no leader took the request in time: {}", moved.message())));
            }
            async_io::Timer::after(PAUSE).await;
        }
    }

    async fn try_once(&self, principal: &Principal, request: &Wire) -> Result<Reply, Status> {
        let answer = self.ask_here(principal, request).await?;
        let Answer::Elsewhere { leader, address } = answer else { return self.reply(answer) };
        if leader == self.node {
            return Err(refusal::unwished(Answer::Elsewhere { leader, address }));
        }
        if !self.gate.is_manager(self.node) {
            // A worker speaks for nobody: if it could, whoever breaks into one would be an administrator.
            return Err(refusal::refuse("not_a_manager", format!("this node is a worker; ask node {leader} at {address}, which leads")));
        }
        self.ask_there(leader, &address, principal, request).await
    }

    /// What a leader does with a request that a manager passed on: it answers, or says who leads.
    ///
    /// # Errors
    /// The refusal; code `elsewhere` if another node leads.
    pub async fn settle_here(&self, principal: &Principal, request: &Wire) -> Result<Reply, Status> {
        let answer = self.ask_here(principal, request).await?;
        self.reply(answer)
    }

    async fn ask_here(&self, principal: &Principal, request: &Wire) -> Result<Answer, Status> {
        let patience_ms = match request {
            // A script runs, and others may be before it.
            Wire::Plan(_) => 2 * (SCRIPT_INIT_MS_MAX + SCRIPT_CONFIGURE_MS_MAX),
            Wire::Eval(_) => SCRIPT_HOOK_MS_MAX,
            _ => REQUEST_TIMEOUT_MS,
        };
        let request = match request.clone() {
            Wire::Write(write) => {
                let (id, op) = convert::write(write, || self.trust.new_keys().map_err(super::unsigned))?;
                Request::Write { id, op }
            }
            Wire::Read(read) => Request::Read { stale: read.stale, query: convert::query(read)? },
            Wire::Plan(plan) if plan.rollback && !plan.files.is_empty() => {
                return Err(refusal::refuse("invalid", "`rollback` goes with no `files`"));
            }
            Wire::Plan(plan) => Request::Plan { modules: (!plan.rollback).then(|| plan.files.into_iter().collect()) },
            Wire::Eval(eval) => Request::Eval { expression: eval.expression },
            Wire::Join(v1::JoinForward { request }) => {
                let request = request.ok_or_else(|| refusal::refuse("invalid", "`request` is missing"))?;
                self.joining(request)?
            }
        };
        let answer = async { Ok(self.door.ask(principal.clone(), request).await) };
        let patience = Duration::from_millis(patience_ms) + GRACE;
        let late = async move {
            async_io::Timer::after(patience).await;
            Err(refusal::refuse("unavailable", "this node did not answer in time; the outcome is unknown"))
        };
        answer.or(late).await
    }

    async fn ask_there(&self, leader: NodeId, address: &str, principal: &Principal, request: &Wire) -> Result<Reply, Status> {
        let forward = v1::ForwardRequest { principal: convert::principal_text(principal), request: Some(request.clone()) };
        let answer = self.peers.forward(leader, address, forward);
        // A leader that stands still or was cut off says nothing, and nothing tells us so, until somebody else leads.
        let reply = if may_be_repeated(request) { answer.or(self.until_another_leads(leader)).await } else { answer.await };
        reply.map_err(not_the_askers_fault)?.reply.ok_or_else(|| refusal::refuse("internal", "the leader sent an empty answer"))
    }

    async fn until_another_leads(&self, asked: NodeId) -> Result<v1::ForwardReply, Status> {
        loop {
            async_io::Timer::after(PAUSE).await;
            if self.gate.leader().is_some_and(|(leader, _)| leader != asked) {
                return Err(refusal::refuse("elsewhere", format!("node {asked} did not answer while it led")));
            }
        }
    }

    fn reply(&self, answer: Answer) -> Result<Reply, Status> {
        match answer {
            Answer::Written { index, result } => Ok(Reply::Write(convert::write_reply(index, result))),
            Answer::Read { index, view } => Ok(Reply::Read(convert::read_reply(index, view))),
            Answer::Planned { changes, error } => Ok(Reply::Plan(convert::plan_reply(changes, error))),
            Answer::Evaluated { value, error } => Ok(Reply::Eval(v1::EvalReply { value, error })),
            Answer::Joined(admission) => Ok(Reply::Join(self.certify(admission)?)),
            other => Err(refusal::unwished(other)),
        }
    }
}

/// The leader moved or could not be reached. Asking again does no harm: the state recognises a write by its id, and all else
/// may happen twice.
fn is_worth_another_look(status: &Status) -> bool {
    let not_taken = refusal::code_of(status) == "elsewhere";
    let lost = status.code() == Code::Unavailable && refusal::code_of(status).is_empty();
    not_taken || lost
}

/// Asked of a second leader too it still happens once: reads and joins, and writes that the state recognises.
fn may_be_repeated(request: &Wire) -> bool {
    match request {
        Wire::Read(_) | Wire::Join(_) | Wire::Write(_) => true,
        Wire::Plan(_) | Wire::Eval(_) => false,
    }
}

/// A leader to which this node is a manager no more, or nobody, refuses us and not whoever asked: they find another node.
fn not_the_askers_fault(status: Status) -> Status {
    if refusal::is_of_the_messenger(&status) || matches!(refusal::code_of(&status), "removed" | "unauthenticated") {
        return refusal::refuse("not_a_manager", format!("this node speaks for nobody any more: {}", status.message()));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_or_demoted_node_sends_the_asker_to_another() {
        let refused = not_the_askers_fault(refusal::refuse("removed", "node 7 was removed from the cluster"));
        assert_eq!((refusal::code_of(&refused), refused.code()), ("not_a_manager", Code::Unavailable));
        assert!(refused.message().ends_with("node 7 was removed from the cluster"));
        assert_eq!(refusal::code_of(&not_the_askers_fault(refusal::refuse("not_found", "no such key"))), "not_found");
        let demoted = refusal::of_the_messenger(refusal::refuse("denied", "node 7 is a worker; only managers may pass requests on"));
        assert_eq!(refusal::code_of(&not_the_askers_fault(demoted)), "not_a_manager");
        let denied = refusal::refuse("denied", "services are declared in cluster.js");
        assert_eq!(refusal::code_of(&not_the_askers_fault(denied)), "denied", "that is the asker's");
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_and_a_refusal_is_not() {
        assert!(is_worth_another_look(&Status::unavailable("connection refused")));
        assert!(is_worth_another_look(&refusal::refuse("elsewhere", "")), "it was not taken");
        assert!(!is_worth_another_look(&refusal::refuse("unavailable", "no quorum")), "the replica has waited already");
    }
}
