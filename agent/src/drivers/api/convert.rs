//! Protobuf ↔ `model`. What comes in is parsed once, here; past this file only the model's types exist.
//!
//! Only one direction is needed per kind: requests come in as protobuf, answers go out as protobuf. A forwarded request and
//! its reply pass through a follower as they are.

use super::refusal::refuse;
use crate::model::{
    authority::{Authorities, NextKeys, Papers, Stage},
    codec,
    event::Event,
    ids::{MemberId, NodeId, RequestId},
    instance::{InstanceDesired, InstanceRecord},
    limits,
    node::{NodeRecord, Role},
    query::{Op, Peer, PlannedChange, Principal, Query, RecoverView, Report, ServiceView, StatusView, View, Written},
    service::Roll,
    settings::{BelowMin, SettingsChange},
    task::{Exit, Orders, TaskRecord, TaskState},
};
use proto::v1;
use std::collections::{BTreeMap, HashMap};
use tonic::Status;

// ---------------------------------------------------------------- in

/// The request's id and what it asks for; `new_keys` makes those of a new CA, if it asks for one.
///
/// # Errors
/// `invalid`, naming the field.
pub fn write(request: v1::WriteRequest, new_keys: impl FnOnce() -> Result<NextKeys, Status>) -> Result<(RequestId, Op), Status> {
    use v1::write_request::Op as Wire;
    if request.client == 0 {
        // What a caller that sets nothing sends: two of them would be taken for one that repeats itself.
        return Err(refuse("invalid", "`client` cannot be 0: choose a random number once, and count `sequence` up with each write"));
    }
    let id = RequestId { client: request.client, sequence: request.sequence };
    let op = match request.op.ok_or_else(|| invalid("op", "missing"))? {
        Wire::Scale(scale) => Op::Scale(scale.nodes),
        Wire::Configure(change) => Op::Configure(settings(change)?),
        Wire::KvSet(set) => Op::KvSet { key: set.key, value: set.value },
        Wire::KvDelete(delete) => Op::KvDelete(delete.key),
        Wire::TokenCreate(create) => Op::TokenCreate { role: role(&create.role)?, ttl_ms: create.ttl_ms, uses: create.uses },
        Wire::TokenRevoke(revoke) => Op::TokenRevoke(revoke.id),
        Wire::NodeRemove(remove) => Op::NodeRemove(remove.node),
        Wire::InstanceSet(set) => Op::InstanceSet { id: set.instance, desired: desired(&set.desired)? },
        Wire::Destroy(v1::Destroy {}) => Op::Destroy,
        Wire::ModulesPut(put) => Op::ModulesPut(put.files.into_iter().collect()),
        Wire::ModulesRollback(v1::ModulesRollback {}) => Op::ModulesRollback,
        Wire::ServiceScale(scale) => Op::ServiceScale { name: scale.name, replicas: scale.replicas },
        Wire::ServiceRestart(service) => Op::ServiceRestart(service.name),
        Wire::ServiceRollback(service) => Op::ServiceRollback(service.name),
        Wire::ServiceRemove(service) => Op::ServiceRemove(service.name),
        Wire::NodeDrain(drain) => Op::NodeDrain { node: drain.node, drain: drain.drain },
        Wire::CaRotate(v1::CaRotate {}) => Op::CaRotate(Box::new(new_keys()?)),
        Wire::CaAdvance(advance) => Op::CaAdvance { from: stage(&advance.from)?, force: advance.force },
        Wire::NodePrefer(prefer) => Op::NodePrefer { node: prefer.node, role: role(&prefer.role)? },
    };
    Ok((id, op))
}

/// # Errors
/// `invalid`: no query.
pub fn query(request: v1::ReadRequest) -> Result<Query, Status> {
    use v1::read_request::Query as Wire;
    Ok(match request.query.ok_or_else(|| invalid("query", "missing"))? {
        Wire::Status(v1::StatusQuery {}) => Query::Status,
        Wire::KvGet(get) => Query::KvGet(get.key),
        Wire::KvList(list) => Query::KvList { prefix: list.prefix, after: list.after, limit: list.limit },
        Wire::Tokens(v1::TokenList {}) => Query::Tokens,
        Wire::Events(events) => Query::Events { after: events.after, limit: events.limit },
        Wire::Member(v1::MemberQuery {}) => Query::Member,
    })
}

/// A node's report; `from` is the node of its certificate.
///
/// # Errors
/// `denied` if it reports for another node, `invalid` if it names none.
pub fn report(request: v1::ReportRequest, from: NodeId) -> Result<Report, Status> {
    let node = node_id(&request.node)?;
    if node != from {
        return Err(refuse("denied", format!("node {from} may not report for node {node}")));
    }
    Ok(Report {
        node,
        boot: request.boot,
        address: request.address,
        cpus: request.cpus,
        memory: request.memory,
        commands_known: request.commands_known,
        member: member(request.member),
        tasks: records("tasks", &request.tasks)?,
        round_trip_ms: request.round_trip_ms,
        papers: Papers { believes: request.believes, certified: request.certified, shows: request.shows },
    })
}

/// A list of replicated records, as nodes send them to each other. None is an empty list.
///
/// # Errors
/// `invalid`, naming the field.
pub fn records<T: for<'b> minicbor::Decode<'b, ()> + Default>(field: &str, bytes: &[u8]) -> Result<T, Status> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    codec::decode(bytes).map_err(|why| refuse("invalid", format!("`{field}`: {why}")))
}

/// For whom a manager passes a request on: `admin`, `node:<id>` or `joiner`.
///
/// # Errors
/// `invalid`, naming it.
pub fn principal(text: &str) -> Result<Principal, Status> {
    match text {
        "admin" => Ok(Principal::Admin),
        "joiner" => Ok(Principal::Joiner),
        other => match other.strip_prefix("node:") {
            Some(id) => Ok(Principal::Node(node_id(id)?)),
            None => Err(invalid("principal", other)),
        },
    }
}

/// # Errors
/// `invalid`, naming it.
pub fn node_id(text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(|_| invalid("node", text))
}

/// 0 on the wire is none.
pub fn member(number: u64) -> Option<MemberId> {
    (number != 0).then_some(MemberId(number))
}

/// # Errors
/// `invalid`: an id that is none.
pub fn peers(wire: Vec<v1::PeerAddress>) -> Result<Vec<Peer>, Status> {
    let parse = |peer: v1::PeerAddress| Ok(Peer { node: node_id(&peer.node)?, address: peer.address, public_key: peer.public_key });
    wire.into_iter().take(limits::MANAGERS_MAX * 2).map(parse).collect()
}

fn settings(change: v1::ConfigureRequest) -> Result<SettingsChange, Status> {
    let below_min = match change.below_min.as_deref() {
        None => None,
        Some("stop") => Some(BelowMin::Stop),
        Some("pause") => Some(BelowMin::Pause),
        Some("keep") => Some(BelowMin::Keep),
        Some(other) => return Err(invalid("below_min", other)),
    };
    Ok(SettingsChange {
        managers: change.managers,
        min_nodes: change.min_nodes,
        max_nodes: change.max_nodes,
        max_launches_per_hour: change.max_launches_per_hour,
        replace_after_ms: change.replace_after_ms,
        below_min,
        launch: (!change.launch.is_empty()).then(|| launch(change.launch)).transpose()?,
    })
}

fn launch(wire: HashMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    if wire.len() > limits::LAUNCH_PARAMETERS_MAX {
        return Err(refuse("invalid", format!("a launch has at most {} parameters, not {}", limits::LAUNCH_PARAMETERS_MAX, wire.len())));
    }
    for (name, value) in &wire {
        if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
            return Err(invalid("launch", name));
        }
        if value.len() > limits::LAUNCH_PARAMETER_BYTES_MAX {
            return Err(invalid(name, value));
        }
    }
    Ok(wire.into_iter().collect())
}

fn role(text: &str) -> Result<Role, Status> {
    [Role::Manager, Role::Worker].into_iter().find(|role| role.as_str() == text).ok_or_else(|| invalid("role", text))
}

fn stage(text: &str) -> Result<Stage, Status> {
    [Stage::Introduced, Stage::Certifying, Stage::Showing]
        .into_iter()
        .find(|stage| stage.as_str() == text)
        .ok_or_else(|| invalid("from", text))
}

fn desired(text: &str) -> Result<InstanceDesired, Status> {
    use InstanceDesired::{Running, Stopped, Terminated};
    [Running, Stopped, Terminated].into_iter().find(|desired| desired.as_str() == text).ok_or_else(|| invalid("desired", text))
}

fn invalid(field: &str, value: &str) -> Status {
    let shown: String = value.chars().take(64).collect();
    refuse("invalid", format!("`{field}` cannot be `{shown}`"))
}

// ---------------------------------------------------------------- out

pub fn principal_text(principal: &Principal) -> String {
    match principal {
        Principal::Admin => "admin".into(),
        Principal::Joiner => "joiner".into(),
        Principal::Node(node) => format!("node:{node}"),
        Principal::Script { term } => format!("script:{term}"),
    }
}

pub fn write_reply(index: u64, result: Written) -> v1::WriteReply {
    use v1::write_reply::Result as Wire;
    let result = match result {
        Written::Done => None,
        Written::TokenCreated { id, token } => Some(Wire::TokenCreated(v1::TokenCreated { id, token })),
        Written::Existed(existed) => Some(Wire::Existed(v1::Existed { existed })),
    };
    v1::WriteReply { index, result }
}

pub fn read_reply(index: u64, view: View) -> v1::ReadReply {
    use v1::read_reply::Result as Wire;
    let result = match view {
        View::Status(view) => Wire::Status(status(*view)),
        View::Kv { value, version } => Wire::KvValue(v1::KvValue { value, version }),
        View::KvPage { entries, more } => {
            let entries = entries.into_iter().map(|(key, value, version)| v1::KvEntry { key, value, version }).collect();
            Wire::KvPage(v1::KvPage { entries, more })
        }
        View::Tokens(records) => {
            let tokens = records
                .into_iter()
                .map(|token| v1::TokenInfo {
                    id: token.id,
                    role: token.role.as_str().into(),
                    expires_ms: token.expires_ms,
                    uses_left: token.uses_left,
                    created_ms: token.created_ms,
                })
                .collect();
            Wire::Tokens(v1::Tokens { tokens })
        }
        View::Events(events) => Wire::Events(v1::Events { events: events.into_iter().map(event).collect() }),
        View::Member(view) => Wire::Member(v1::Member {
            member: view.member,
            term: view.term,
            commit: view.commit,
            applied: view.applied,
            digest: view.digest,
            role: view.role.into(),
            leader_member: view.leader_member,
        }),
    };
    v1::ReadReply { index, result: Some(result) }
}

pub fn report_reply(
    leader: NodeId,
    address: String,
    managers: Vec<Peer>,
    removed: Vec<NodeId>,
    orders: &Orders,
    authorities: &Authorities,
) -> v1::ReportReply {
    v1::ReportReply {
        leader: leader.to_string(),
        leader_address: address,
        managers: peers_out(managers),
        removed: removed.into_iter().map(|node| node.to_string()).collect(),
        orders: codec::encode(orders),
        authorities: codec::encode(authorities),
    }
}

pub fn report_out(report: &Report) -> v1::ReportRequest {
    v1::ReportRequest {
        node: report.node.to_string(),
        boot: report.boot,
        address: report.address.clone(),
        cpus: report.cpus,
        memory: report.memory,
        commands_known: report.commands_known,
        member: report.member.map_or(0, |member| member.0),
        applied: 0,
        tasks: codec::encode(&report.tasks),
        round_trip_ms: report.round_trip_ms,
        believes: report.papers.believes,
        certified: report.papers.certified,
        shows: report.papers.shows,
    }
}

pub fn peers_out(peers: Vec<Peer>) -> Vec<v1::PeerAddress> {
    let out = |peer: Peer| v1::PeerAddress { node: peer.node.to_string(), address: peer.address, public_key: peer.public_key };
    peers.into_iter().map(out).collect()
}

fn status(view: StatusView) -> v1::Status {
    let StatusView { leader, voters, .. } = view;
    let addresses: Vec<(NodeId, String)> = view.nodes.iter().map(|node| (node.id, node.address.clone())).collect();
    v1::Status {
        cluster: view.cluster_name,
        cluster_id: view.cluster.to_string(),
        leader: leader.map(|node| node.to_string()),
        desired_nodes: view.desired_nodes,
        managers: view.managers,
        nodes: view.nodes.into_iter().map(|record| node(record, leader, &voters)).collect(),
        instances: view.instances.into_iter().map(instance).collect(),
        events: view.events.into_iter().map(event).collect(),
        term: view.term,
        problems: view.problems,
        answered_by: view.answered_by.to_string(),
        voters: voters.into_iter().map(|member| member.0).collect(),
        learners: view.learners.into_iter().map(|member| member.0).collect(),
        services: view.services.into_iter().map(|service| self::service(service, &addresses)).collect(),
        script_version: view.script_version,
        script_applied: view.script_applied,
        script_error: view.script_error,
        ca: view.rotation.map(|rotation| v1::CaStatus { stage: rotation.stage.as_str().into(), waits_for: rotation.waits_for }),
    }
}

fn service(view: ServiceView, addresses: &[(NodeId, String)]) -> v1::Service {
    let ServiceView { record, desired, tasks, unplaced } = view;
    let running = tasks.iter().filter(|task| task.wanted && task.seen.state == TaskState::Running).count() as u32;
    let (roll, roll_problem) = match &record.roll {
        Roll::Going => ("going", String::new()),
        Roll::Done => ("done", String::new()),
        Roll::Stopped(why) => ("stopped", why.clone()),
    };
    v1::Service {
        desired,
        running,
        healthy: running,
        version: record.version,
        tasks: tasks.into_iter().map(|task| self::task(task, addresses)).collect(),
        roll: roll.into(),
        roll_problem,
        unplaced,
        scaled_by_hand: record.replicas_by_hand.is_some(),
        command: record.spec().command.clone(),
        name: record.name,
    }
}

fn task(record: TaskRecord, addresses: &[(NodeId, String)]) -> v1::Task {
    let host = addresses.iter().find(|(node, _)| *node == record.node).and_then(|(_, address)| address.rsplit_once(':'));
    let (exit_code, exit_signal) = match record.seen.exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        Some(Exit::Unknown) | None => (None, None),
    };
    v1::Task {
        id: format!("{}.{}", record.service, record.number.0),
        node: record.node.to_string(),
        state: record.seen.state.as_str().into(),
        exit_code,
        exit_signal,
        last_error: record.seen.error,
        address: host.map(|(host, _)| host.to_owned()).unwrap_or_default(),
        ports: record.seen.ports.into_iter().map(|(declared, assigned)| (declared.into(), assigned.into())).collect(),
        version: record.version,
        restarts: record.seen.restarts,
        pid: record.seen.pid,
        wanted: record.wanted,
    }
}

pub fn plan_reply(changes: Vec<PlannedChange>, error: String) -> v1::PlanReply {
    let out = |change: PlannedChange| v1::PlannedChange { sign: change.sign.into(), subject: change.subject, detail: change.detail };
    v1::PlanReply { changes: changes.into_iter().map(out).collect(), error }
}

/// A manager is a node that votes; a learner is on its way and still counts as a worker.
fn node(record: NodeRecord, leader: Option<NodeId>, voters: &[MemberId]) -> v1::Node {
    let votes = record.member.is_some_and(|member| voters.contains(&member));
    let role = if votes { Role::Manager } else { Role::Worker };
    v1::Node {
        id: record.id.to_string(),
        name: record.name,
        address: record.address,
        role: role.as_str().into(),
        state: record.state.as_str().into(),
        leader: leader == Some(record.id),
        cpus: record.cpus,
        memory: record.memory,
        labels: record.labels.into_iter().collect(),
        instance: record.instance,
        member: record.member.map_or(0, |member| member.0),
        joined_ms: record.joined_ms,
        since_ms: record.since_ms,
        reason: record.reason,
        preference: record.preference.map(|role| role.as_str().into()).unwrap_or_default(),
    }
}

pub fn recover_reply(view: RecoverView) -> v1::RecoverReply {
    v1::RecoverReply {
        node: view.node.to_string(),
        name: view.name,
        last_index: view.last_index,
        last_term: view.last_term,
        missing: view.missing.into_iter().map(|record| node(record, None, &[])).collect(),
        index: 0,
    }
}

fn instance(record: InstanceRecord) -> v1::Instance {
    v1::Instance {
        id: record.id.unwrap_or_default(),
        private_address: record.address.clone(),
        address: record.address,
        state: record.state.as_str().into(),
        desired: record.desired.as_str().into(),
        node: record.node.map(|node| node.to_string()).unwrap_or_default(),
        problem: record.problem,
    }
}

fn event(event: Event) -> v1::Event {
    v1::Event { id: event.id, at_ms: event.at_ms, name: event.name, subject: event.subject, text: event.text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::api::refusal::code_of;

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        use v1::write_request::Op as Wire;
        let cases = [
            (None, "op"),
            (Some(Wire::TokenCreate(v1::TokenCreate { role: "king".into(), ttl_ms: 1, uses: 1 })), "king"),
            (Some(Wire::InstanceSet(v1::InstanceSet { instance: "i-1".into(), desired: "gone".into() })), "gone"),
            (Some(Wire::Configure(v1::ConfigureRequest { below_min: Some("run".into()), ..Default::default() })), "run"),
        ];
        for (op, named) in cases {
            let status = write(v1::WriteRequest { client: 1, sequence: 2, op }, || unreachable!("none asks for keys"))
                .expect_err("it makes no sense");
            assert_eq!(code_of(&status), "invalid");
            assert!(status.message().contains(named), "{} names {named}", status.message());
        }
        let op = Some(Wire::Destroy(v1::Destroy {}));
        let nobody = write(v1::WriteRequest { client: 0, sequence: 2, op }, || unreachable!("none asks for keys"));
        assert!(nobody.expect_err("nobody knows whose it is").message().contains("`client`"));
        assert!(query(v1::ReadRequest::default()).is_err());
        assert!(principal("node:12").is_err());
    }

    #[test]
    fn a_principal_survives_the_way_through_a_follower() {
        for known in [Principal::Admin, Principal::Joiner, Principal::Node(NodeId(0xabc))] {
            assert_eq!(principal(&principal_text(&known)).expect("made by us"), known);
        }
    }

    #[test]
    fn a_node_reports_only_for_itself() {
        let request = v1::ReportRequest { node: NodeId(1).to_string(), ..Default::default() };
        assert_eq!(code_of(&report(request.clone(), NodeId(2)).expect_err("another node")), "denied");
        assert_eq!(report(request, NodeId(1)).expect("its own").member, None);
    }

    #[test]
    fn a_learner_is_no_manager_yet() {
        let record = NodeRecord {
            id: NodeId(1),
            name: "n1".into(),
            address: "127.0.0.1:5080".into(),
            public_key: vec![],
            state: crate::model::node::NodeState::Ready,
            member: Some(MemberId(7)),
            cpus: 1,
            memory: 1,
            labels: Default::default(),
            instance: None,
            joined_ms: 0,
            reason: String::new(),
            commands_known: 1,
            admitted: Role::Manager,
            since_ms: 0,
            seated: true,
            leaving: false,
            drained: false,
            preference: None,
            papers: Default::default(),
        };
        assert_eq!(node(record.clone(), None, &[]).role, "worker");
        assert_eq!(node(record, None, &[MemberId(7)]).role, "manager");
    }
}
