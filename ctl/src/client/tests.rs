//! Against a false node behind a socket file: what it is asked, and what comes of its answers.

use super::*;
use crate::out::now_ms;
use agent::drivers::pki::{Authority, check_csr};
use proto::v1::{self, disco_server::Disco, write_request};
use proto::{Listener, Routes, ServerLimits};
use std::collections::VecDeque;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tonic::Request;

/// Answers writes as it was told, in order, and notes who asked what.
#[derive(Clone, Default)]
pub struct FalseNode {
    answers: Arc<Mutex<VecDeque<Result<u64, Status>>>>,
    asked: Arc<Mutex<Vec<(u64, u64)>>>,
    /// What plans and expressions are answered, in order.
    scripted: Arc<Mutex<VecDeque<Result<&'static str, Status>>>>,
    /// Signs administrators, if it is there.
    pub authority: Arc<Mutex<Option<Authority>>>,
}

#[tonic::async_trait]
impl Disco for FalseNode {
    type WatchStream = Pin<Box<dyn futures_lite::Stream<Item = Result<v1::ReadReply, Status>> + Send>>;
    type LogsStream = Pin<Box<dyn futures_lite::Stream<Item = Result<v1::LogLine, Status>> + Send>>;

    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteReply>, Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push((request.client, request.sequence));
        let answer = self.answers.lock().unwrap().pop_front().expect("no more writes than answers");
        answer.map(|index| Response::new(v1::WriteReply { index, result: None }))
    }
    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<v1::ReadReply>, Status> {
        Ok(Response::new(v1::ReadReply::default()))
    }
    async fn watch(&self, _: Request<v1::ReadRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
    async fn plan(&self, _: Request<v1::PlanRequest>) -> Result<Response<v1::PlanReply>, Status> {
        let change = |subject: &str| v1::PlannedChange { sign: "+".into(), subject: subject.into(), ..Default::default() };
        self.next_scripted().map(|subject| Response::new(v1::PlanReply { changes: vec![change(subject)], error: String::new() }))
    }
    async fn eval(&self, request: Request<v1::EvalRequest>) -> Result<Response<v1::EvalReply>, Status> {
        assert!(request.metadata().contains_key("grpc-timeout"), "it may take longer than other requests");
        self.next_scripted().map(|value| Response::new(v1::EvalReply { value: value.into(), error: String::new() }))
    }
    async fn recover(&self, _: Request<v1::RecoverRequest>) -> Result<Response<v1::RecoverReply>, Status> {
        Err(Status::unimplemented("not here"))
    }
    async fn logs(&self, _: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
    async fn issue_admin(&self, request: Request<v1::IssueAdminRequest>) -> Result<Response<v1::IssueAdminReply>, Status> {
        let authority = self.authority.lock().unwrap();
        let Some(authority) = authority.as_ref() else { return Err(Status::permission_denied("user 7 may not administer this node")) };
        let key = check_csr(&request.into_inner().csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(v1::IssueAdminReply {
            certificate: authority.sign_admin(&key, now_ms()).expect("the key was checked"),
            ca: authority.certificate().to_vec(),
            cluster_id: authority.cluster().to_string(),
            ..Default::default()
        }))
    }
}

impl FalseNode {
    fn next_scripted(&self) -> Result<&'static str, Status> {
        self.scripted.lock().unwrap().pop_front().expect("not asked more often than told")
    }
}

/// A refusal with the code that nodes give programs.
fn coded(status: Status, code: &'static str) -> Status {
    let mut status = status;
    status.metadata_mut().insert("disco-code", code.parse().unwrap());
    status
}

fn scale() -> write_request::Op {
    write_request::Op::Scale(v1::ScaleRequest { nodes: 3 })
}

/// Runs `play` with a client whose doors are a dead socket and then a living one.
pub fn with_node<T>(answers: Vec<Result<u64, Status>>, play: impl AsyncFnOnce(&mut Client, &FalseNode) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let executor = Arc::new(smol::Executor::new());
    let spawner = Spawner(executor.clone());
    let node = FalseNode { answers: Arc::new(Mutex::new(answers.into())), ..FalseNode::default() };
    smol::block_on(executor.run(async {
        let path = dir.path().join("live.sock");
        let listener = Listener::unix(&path).unwrap();
        let service = Routes::new(&ServerLimits::default()).disco(Arc::new(node.clone()));
        let serving = executor.spawn(proto::serve(spawner.clone(), listener, service, ServerLimits::default()));
        let door = |path: &Path| {
            let channel = Channel::unix(spawner.clone(), path.to_owned(), ChannelLimits::default());
            Door { address: channel.address().to_owned(), grpc: channel.disco() }
        };
        let doors = vec![door(&dir.path().join("dead.sock")), door(&path)];
        let mut client = Client::new(&spawner, Key::Socket, doors);
        let result = play(&mut client, &node).await;
        drop(serving);
        result
    }))
}

#[test]
fn a_write_is_retried_elsewhere_under_the_same_name() {
    let answers = vec![Err(Status::unavailable("no leader now")), Err(Status::resource_exhausted("busy")), Ok(7), Ok(8)];
    with_node(answers, async |client, node| {
        assert_eq!(client.write(scale()).await.unwrap().index, 7);
        assert_eq!(client.write(scale()).await.unwrap().index, 8);
        let asked = node.asked.lock().unwrap().clone();
        let me = asked[0].0;
        assert_eq!(asked, [(me, 1), (me, 1), (me, 1), (me, 2)]);
        assert_eq!(client.good, 1, "the door that answered is asked first");
    });
}

#[test]
fn an_expression_is_evaluated_once_whatever_becomes_of_the_answer() {
    with_node(vec![], async |client, node| {
        let busy = || Err(coded(Status::resource_exhausted("too much to do"), "busy"));
        *node.scripted.lock().unwrap() = [busy(), busy(), Ok("2")].into();
        assert_eq!(client.eval("1 + 1").await.unwrap().value, "2", "who was not let in may ask again");
        let lost = Err(coded(Status::unavailable("this node is no longer the leader; ask again"), "unavailable"));
        *node.scripted.lock().unwrap() = [lost, Ok("never asked")].into();
        let error = client.eval("1 + 1").await.expect_err("it may have been evaluated");
        assert_eq!(error.failure("cannot evaluate").in_one_line(), "cannot evaluate: this node is no longer the leader; ask again");
        assert_eq!(node.scripted.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_plan_is_asked_for_until_there_is_one() {
    with_node(vec![], async |client, node| {
        *node.scripted.lock().unwrap() = [Err(Status::unavailable("no leader now")), Ok("service web")].into();
        assert_eq!(client.plan(v1::PlanRequest::default()).await.unwrap().changes[0].subject, "service web");
    });
}

#[test]
fn a_no_is_final() {
    with_node(vec![Err(Status::failed_precondition("there are never more than 16 instances"))], async |client, node| {
        let error = client.write(scale()).await.expect_err("it was refused");
        let text = error.failure("cannot scale to 99").render(crate::render::Paint::off());
        assert_eq!(text, "error: cannot scale to 99\n  caused by: there are never more than 16 instances\n");
        assert_eq!(node.asked.lock().unwrap().len(), 1);
    });
}

#[test]
fn what_may_help_depends_on_why_nobody_answered() {
    let tried = |why: &str| {
        vec![("127.0.0.1:1".to_owned(), "connection refused (nothing listens there)".to_owned()), ("b:1".to_owned(), why.to_owned())]
    };
    for (socket, why, remedy) in [
        (false, "no answer in time", Remedy::Start),
        (false, "its certificate is refused: expired", Remedy::Certificate),
        (false, "lost the connection to b:1: it refuses our certificate", Remedy::Certificate),
        (true, "this node is a worker; ask node 1 at a:1, which leads", Remedy::OtherDoor),
    ] {
        assert_eq!(Remedy::of(socket, &tried(why)), remedy, "{why}");
    }
}

#[test]
fn a_workers_own_door_is_not_asked_again_for_long() {
    let worker = || Err(coded(Status::unavailable("this node is a worker"), "not_a_manager"));
    with_node(vec![worker(), worker(), worker(), worker(), worker()], async |client, node| {
        client.set_patience(Patience { answered: Duration::from_secs(3600), unreached: Duration::from_millis(200) });
        client.write(scale()).await.expect_err("it does not become a manager");
        assert!(!node.asked.lock().unwrap().is_empty());
    });
}

#[test]
fn when_nobody_answers_every_address_and_its_reason_is_named() {
    with_node(vec![], async |client, _| {
        client.doors.remove(1);
        let dead = client.doors[0].address.clone();
        client.set_patience(Patience { answered: Duration::from_secs(10), unreached: Duration::ZERO });
        let error = client.write(scale()).await.expect_err("nobody is there");
        assert!(error.is_unanswered());
        let text = error.failure("cannot scale to 3").render(crate::render::Paint::off());
        assert_eq!(
            text,
            format!(
                "error: cannot scale to 3\n  caused by: {dead}: no such file\nhint: --socket names the control.sock of a running discod, of a manager for most questions\n"
            )
        );
    });
}
