//! What the replicated state lets happen: tokens, joins, brakes and bounds, command by command.

use agent::logic::state::{Outcome, State};
use agent::model::{
    command::{Command, Joiner, KINDS_KNOWN, Proposal},
    ids::{ClusterId, NodeId, OperationId, RequestId},
    instance::{InstanceDesired, InstanceState},
    limits::{CLIENTS_MAX, EVENT_TEXT_BYTES_MAX, EVENTS_KEPT, KV_BYTES_MAX, REFUSAL_TEXT_BYTES_MAX, TOKENS_MAX},
    node::{NodeState, Role},
    service::{PortSpec, ServiceSpec},
    settings::SettingsChange,
    task::TaskState,
    token::Credential,
};
use std::collections::BTreeMap;

const HOUR: u64 = 3_600_000;

struct Log {
    state: State,
    index: u64,
    stamp: u64,
}

fn joiner(id: u64) -> Joiner {
    Joiner {
        id: NodeId(id),
        name: format!("n{id}"),
        address: format!("127.0.0.{id}:5080"),
        public_key: vec![id as u8; 32],
        cpus: 1,
        memory: 1 << 30,
        labels: BTreeMap::new(),
        instance: None,
        commands_known: KINDS_KNOWN,
    }
}

impl Log {
    fn new() -> Log {
        let mut first = joiner(1);
        first.instance = Some("i-1".into());
        Log { state: State::genesis(ClusterId(1), "c".into(), vec![9], first, 1_000), index: 1, stamp: 1_000 }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.apply_as(None, command)
    }

    fn apply_as(&mut self, request: Option<RequestId>, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, 1, Proposal { stamp_ms: self.stamp, term: 1, request, command, fence: None }).1
    }

    fn join(&mut self, token: &str, node: Joiner) -> Outcome {
        self.apply(Command::Join { credential: Credential::Token(token.into()), node: Box::new(node) })
    }

    fn token(&mut self, id: &str, ttl_ms: u64, uses: u32) -> Outcome {
        self.apply(Command::TokenCreate { id: id.into(), hash: vec![1], role: Role::Manager, ttl_ms, uses })
    }
}

fn code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Refused { code, .. } => code,
        _ => "ok",
    }
}

#[test]
fn a_token_lets_in_as_many_keys_as_it_has_uses_and_the_same_key_again_until_ready() {
    let mut log = Log::new();
    log.token("t", HOUR, 1);
    let first = log.join("t", joiner(2));
    assert!(matches!(first, Outcome::Joined { .. }));
    assert_eq!(log.join("t", joiner(2)), first, "a lost reply must not strand a joiner");
    assert_eq!(code(&log.join("t", joiner(3))), "token_used");

    log.apply(Command::NodeState { node: NodeId(2), state: NodeState::Ready, reason: String::new() });
    assert_eq!(code(&log.join("t", joiner(2))), "taken", "ready: nobody joins in its name any more");
    let mut thief = joiner(2);
    thief.public_key = vec![77; 32];
    assert_eq!(code(&log.join("t", thief)), "taken");
}

#[test]
fn tokens_that_expired_were_revoked_or_never_were_let_nobody_in() {
    let mut log = Log::new();
    log.token("short", 10, 5);
    log.token("gone", HOUR, 5);
    log.apply(Command::TokenRevoke("gone".into()));
    log.stamp += 11;
    for (token, expected) in [("short", "token_expired"), ("gone", "token_unknown"), ("other", "token_unknown")] {
        assert_eq!(code(&log.join(token, joiner(2))), expected, "{token}");
    }
    assert_eq!(log.state.nodes.len(), 1);
}

#[test]
fn a_removed_node_stays_out_and_malformed_joiners_are_named() {
    let mut log = Log::new();
    log.token("t", HOUR, 9);
    log.join("t", joiner(2));
    log.apply(Command::NodeRemove(NodeId(2)));
    assert_eq!(code(&log.join("t", joiner(2))), "removed");

    type Spoil = fn(&mut Joiner);
    let cases: [(&str, Spoil); 4] = [
        ("invalid", |j| j.public_key = vec![1; 31]),
        ("invalid", |j| j.address = "nowhere".into()),
        ("invalid", |j| j.name = "x".repeat(65)),
        ("too_old", |j| j.commands_known = 0),
    ];
    for (expected, spoil) in cases {
        let mut node = joiner(3);
        spoil(&mut node);
        assert_eq!(code(&log.join("t", node)), expected);
    }
    assert_eq!(log.state.tokens["t"].uses_left, 8, "a refused join costs no use");
}

#[test]
fn a_leaders_word_that_a_node_is_there_says_nothing_of_draining() {
    let mut log = Log::new();
    log.token("t", HOUR, 1);
    log.join("t", joiner(2));
    let node = NodeId(2);
    // The leader's word and the person's are under way at the same time: whichever comes last, the person's counts.
    for (drain, seen, comes_to) in [(true, NodeState::Ready, NodeState::Draining), (false, NodeState::Draining, NodeState::Ready)] {
        log.apply(Command::NodeState { node, state: NodeState::Lost, reason: "silent for 6.0 s".into() });
        log.apply(Command::NodeDrain { node, drain });
        assert_eq!(log.state.nodes[&node].state, NodeState::Lost);
        log.apply(Command::NodeState { node, state: seen, reason: "heard again".into() });
        assert_eq!(log.state.nodes[&node].state, comes_to);
    }
}

#[test]
fn launches_stop_at_the_brakes() {
    let mut log = Log::new();
    log.apply(Command::Configure(SettingsChange { max_nodes: Some(3), max_launches_per_hour: Some(4), ..SettingsChange::default() }));
    let launch = |log: &mut Log| {
        let ordinal = log.state.next_ordinal;
        let outcome = log.apply(Command::Launch { ordinal, parameters: BTreeMap::new() });
        (code(&outcome), OperationId { cluster: ClusterId(1), epoch: 0, index: log.index })
    };
    let (first, operation) = launch(&mut log);
    assert_eq!(first, "ok");
    assert_eq!(launch(&mut log).0, "ok");
    assert_eq!(launch(&mut log).0, "limit", "max_nodes");

    let ended = |operation| Command::InstanceSeen {
        operation,
        id: None,
        address: String::new(),
        state: InstanceState::Terminated,
        problem: String::new(),
    };
    log.apply(ended(operation));
    let (third, operation) = launch(&mut log);
    assert_eq!(third, "ok");
    log.apply(ended(operation));
    let (fourth, operation) = launch(&mut log);
    assert_eq!(fourth, "ok");
    log.apply(ended(operation));
    assert_eq!(launch(&mut log).0, "limit", "max_launches_per_hour");
    log.stamp += HOUR + 1;
    assert_eq!(launch(&mut log).0, "ok");
    log.apply(Command::Destroy);
    assert_eq!(launch(&mut log).0, "limit", "destroying");
}

#[test]
fn a_launch_token_is_for_one_node_and_dies_with_its_instance() {
    let mut log = Log::new();
    log.apply(Command::Launch { ordinal: 2, parameters: BTreeMap::new() });
    let operation = OperationId { cluster: ClusterId(1), epoch: 0, index: log.index };
    let join = |log: &mut Log, id| {
        let outcome = log.apply(Command::Join { credential: Credential::Launch(operation), node: Box::new(joiner(id)) });
        code(&outcome)
    };
    assert_eq!(join(&mut log, 2), "ok");
    assert_eq!(join(&mut log, 2), "ok", "again, with the same key");
    assert_eq!(join(&mut log, 3), "token_used");
    log.apply(Command::InstanceSeen {
        operation,
        id: Some("i-2".into()),
        address: "a:1".into(),
        state: InstanceState::Running,
        problem: String::new(),
    });
    assert_eq!(log.state.nodes[&NodeId(2)].instance.as_deref(), Some("i-2"), "whichever comes first");

    log.apply(Command::Launch { ordinal: 3, parameters: BTreeMap::new() });
    let operation = OperationId { cluster: ClusterId(1), epoch: 0, index: log.index };
    log.apply(Command::InstanceSet { id: "launch-3".into(), desired: InstanceDesired::Terminated });
    let outcome = log.apply(Command::Join { credential: Credential::Launch(operation), node: Box::new(joiner(4)) });
    assert_eq!(code(&outcome), "token_expired");
}

#[test]
fn a_retried_request_changes_nothing_and_gets_the_first_answer() {
    let mut log = Log::new();
    let first = RequestId { client: 5, sequence: 1 };
    let id = Some(first);
    log.apply_as(id, Command::KvSet { key: "k".into(), value: vec![1] });
    log.apply(Command::KvSet { key: "k".into(), value: vec![2] });
    assert_eq!(log.apply_as(id, Command::KvSet { key: "k".into(), value: vec![1] }), Outcome::Done);
    assert_eq!(log.state.kv["k"].value, vec![2]);

    for client in 10..10 + 2 * CLIENTS_MAX as u64 {
        log.apply_as(Some(RequestId { client, sequence: 1 }), Command::KvDelete("none".into()));
    }
    assert!(log.state.clients.answer(first).is_none(), "the client silent for longest is forgotten");
}

#[test]
fn what_outsiders_can_grow_is_bounded() {
    let mut log = Log::new();
    let value = vec![0; 60_000];
    let refused =
        (0..100).map(|n| log.apply(Command::KvSet { key: format!("k{n}"), value: value.clone() })).filter(|o| code(o) == "limit").count();
    assert!(refused > 0 && log.state.kv_bytes as usize <= KV_BYTES_MAX);
    let bytes: usize = log.state.kv.iter().map(|(k, r)| k.len() + r.value.len()).sum();
    assert_eq!(log.state.kv_bytes as usize, bytes);
    for n in 0..100 {
        log.apply(Command::KvDelete(format!("k{n}")));
    }
    assert_eq!(log.state.kv_bytes, 0);

    let live = (0..TOKENS_MAX + 5).map(|n| log.token(&format!("t{n}"), HOUR, 1)).filter(|o| code(o) == "limit").count();
    assert_eq!((live, log.state.tokens.len()), (5, TOKENS_MAX));
    log.stamp += HOUR + 1;
    assert_eq!(code(&log.token("fresh", HOUR, 1)), "ok", "spent tokens give way");

    for n in 1..=2 * EVENTS_KEPT as u32 {
        log.apply(Command::Scale(1 + n % 2));
    }
    assert_eq!(log.state.events.len(), EVENTS_KEPT);
}

#[test]
fn an_answer_is_remembered_no_longer_than_it_may_be_however_long_the_question_was() {
    let mut log = Log::new();
    let id = RequestId { client: 7, sequence: 1 };
    let asked = Command::InstanceSet { id: "i".repeat(300_000), desired: InstanceDesired::Stopped };
    let before = log.state.encode().len();
    let Outcome::Refused { code: "not_found", why } = log.apply_as(Some(id), asked.clone()) else { panic!("there is none") };
    assert_eq!(why.len(), REFUSAL_TEXT_BYTES_MAX);
    assert!(log.state.encode().len() < before + 2 * REFUSAL_TEXT_BYTES_MAX);
    assert_eq!(log.apply_as(Some(id), asked), Outcome::Refused { code: "not_found", why }, "a retry gets the same one");
}

#[test]
fn of_a_task_no_more_is_kept_than_its_service_asks_for() {
    let mut log = Log::new();
    let spec =
        ServiceSpec { command: vec!["a".into()], ports: vec![PortSpec { port: 80, public: None, udp: false }], ..ServiceSpec::default() };
    log.apply(Command::NodeState { node: NodeId(1), state: NodeState::Ready, reason: String::new() });
    log.apply(Command::ServiceSet { name: "web".into(), spec: Box::new(spec) });
    let version = log.state.services["web"].version;
    assert_eq!(code(&log.apply(Command::TaskPlace { service: "web".into(), version, node: NodeId(1) })), "ok");
    let mut seen = log.state.tasks.values().next().expect("just placed").seen.clone();
    (seen.state, seen.error) = (TaskState::Running, "e".repeat(100_000));
    seen.ports = (1..=60_000).map(|port| (port, port)).collect();
    let node = NodeId(1);
    assert_eq!(log.state.news_of(node, std::slice::from_ref(&seen)).len(), 1);
    log.apply(Command::TaskSeen { node, tasks: vec![seen.clone()] });
    let kept = &log.state.tasks[&seen.number].seen;
    assert_eq!((kept.ports.clone(), kept.error.len()), (BTreeMap::from([(80, 80)]), EVENT_TEXT_BYTES_MAX));
    assert_eq!(log.state.news_of(node, &[seen]), [], "the same again is no news");
}

#[test]
fn what_launches_are_made_of_is_kept_with_each_of_them() {
    let mut log = Log::new();
    let made_of = |image: &str| BTreeMap::from([("image".to_owned(), image.to_owned())]);
    let set = |launch| Command::Configure(SettingsChange { launch, ..SettingsChange::default() });
    assert_eq!((set(Some(made_of("a"))).kind(), set(None).kind()), (4, 1), "an older build would launch something else");
    log.apply(set(Some(made_of("a"))));
    log.apply(Command::Launch { ordinal: 2, parameters: log.state.launch.clone() });
    log.apply(set(Some(made_of("b"))));
    log.apply(set(None));
    assert_eq!(log.state.launch, made_of("b"));
    let launched = log.state.instances.values().find(|i| i.ordinal == 2).expect("just launched");
    assert_eq!(launched.parameters, made_of("a"), "whoever repeats this launch asks for the very same");
    assert_eq!(State::decode(&log.state.encode()).as_ref(), Ok(&log.state));
}

#[test]
fn a_snapshot_gives_back_the_same_state() {
    let mut log = Log::new();
    log.token("t", HOUR, 2);
    log.join("t", joiner(2));
    log.apply_as(Some(RequestId { client: 1, sequence: 1 }), Command::KvSet { key: "k".into(), value: vec![1, 2, 3] });
    log.apply(Command::Launch { ordinal: 2, parameters: BTreeMap::new() });
    let again = State::decode(&log.state.encode()).expect("its own bytes");
    assert_eq!(again, log.state);
    assert_eq!(again.digest(), log.state.digest());
    for cut in [0, 1, 10] {
        assert!(State::decode(&log.state.encode()[..cut]).is_err());
    }
}
