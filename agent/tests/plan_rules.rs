//! What a leader decides, seen from outside: a cluster in a few words, and the decisions that must follow.

use agent::logic::{
    plan::{self, Call, Decision, Known, Observed, Sight},
    raft::{Change, Membership},
    state::State,
};
use agent::model::{
    command::{Command, Joiner, KINDS_KNOWN},
    ids::{ClusterId, MemberId, NodeId, Now, OperationId},
    instance::{InstanceDesired, InstanceRecord, InstanceSeen, InstanceState},
    node::{NodeRecord, NodeState, Role},
};
use std::collections::BTreeMap;

const NOW: Now = Now { mono: 100_000, wall: 10_000_000 };

struct Play {
    state: State,
    group: Membership,
    observed: Observed,
    lagging: Vec<MemberId>,
}

fn node(id: u64, state: NodeState, member: Option<u64>) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        name: format!("n{id}"),
        address: format!("127.0.0.{id}:5080"),
        public_key: vec![id as u8; 32],
        state,
        member: member.map(MemberId),
        cpus: 1,
        memory: 1,
        labels: BTreeMap::new(),
        instance: Some(format!("i-{id}")),
        joined_ms: id,
        reason: String::new(),
        commands_known: KINDS_KNOWN,
        admitted: Role::Manager,
        since_ms: 9_000_000,
        seated: member.is_some(),
        leaving: false,
        drained: false,
    }
}

/// Nodes are (id, state, member); node 1 leads and is member 1. Each has its own running instance.
fn play(nodes: &[(u64, NodeState, Option<u64>)], voters: &[u64], learners: &[u64]) -> Play {
    let first = Joiner {
        id: NodeId(1),
        name: "n1".into(),
        address: "127.0.0.1:5080".into(),
        public_key: vec![1; 32],
        cpus: 1,
        memory: 1,
        labels: BTreeMap::new(),
        instance: None,
        commands_known: KINDS_KNOWN,
    };
    let mut state = State::genesis(ClusterId(1), "c".into(), vec![], first, 1_000);
    let mut observed = Observed::new(0);
    for (id, node_state, member) in nodes {
        state.nodes.insert(NodeId(*id), node(*id, *node_state, *member));
        let operation = OperationId { cluster: ClusterId(1), epoch: 0, index: *id };
        let instance = InstanceRecord {
            operation,
            ordinal: *id as u32,
            id: Some(format!("i-{id}")),
            address: String::new(),
            state: InstanceState::Running,
            desired: InstanceDesired::Running,
            node: Some(NodeId(*id)),
            launched_ms: 1_000,
            problem: String::new(),
            since_ms: 1_000,
        };
        state.instances.insert(operation, instance);
        if *node_state != NodeState::Lost {
            observed.hear(NodeId(*id), NOW.mono);
        }
    }
    state.desired_nodes = nodes.len() as u32;
    state.next_ordinal = nodes.len() as u32 + 1;
    state.next_member = 50;
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    let group = Membership { voters: ids(voters), learners: ids(learners), outgoing: vec![], pending: false };
    let seen: Vec<InstanceSeen> = Vec::new();
    observed.described(&seen, &[], NOW.mono);
    Play { state, group, observed, lagging: vec![] }
}

impl Play {
    fn decide(&self) -> Vec<Decision> {
        let caught_up = |m: MemberId| !self.lagging.contains(&m);
        plan::decide(&Sight {
            state: &self.state,
            membership: &self.group,
            observed: &self.observed,
            me: NodeId(1),
            now: NOW,
            lost_after_ms: 5_000,
            has_provider: true,
            caught_up: &caught_up,
        })
    }

    fn instance(&mut self, id: u64) -> &mut InstanceRecord {
        self.state.instances.values_mut().find(|i| i.ordinal == id as u32).expect("in the play")
    }
}

const READY: NodeState = NodeState::Ready;
const LOST: NodeState = NodeState::Lost;

fn joint(voters: &[u64], learners: &[u64], remove: &[u64]) -> Decision {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    Decision::Change(Change::Joint { voters: ids(voters), learners: ids(learners), remove: ids(remove) })
}

#[test]
fn one_node_alone_needs_nothing() {
    assert_eq!(play(&[(1, READY, Some(1))], &[1], &[]).decide(), vec![]);
}

#[test]
fn a_second_node_gets_a_seat_is_enlisted_and_learns() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, None)], &[1], &[]);
    assert_eq!(play.decide(), vec![Decision::Propose(Command::MemberAssign(NodeId(2)))]);

    let second = play.state.nodes.get_mut(&NodeId(2)).expect("there");
    second.member = Some(MemberId(50));
    assert_eq!(play.decide(), vec![Decision::Call(Call::Enlist { node: NodeId(2), member: MemberId(50) })]);

    play.observed.enlisted(MemberId(50));
    assert_eq!(play.decide(), vec![Decision::Change(Change::AddLearner(MemberId(50)))]);

    play.state.nodes.get_mut(&NodeId(2)).expect("there").seated = true;
    play.group.learners = vec![MemberId(50)];
    assert_eq!(play.decide(), vec![], "two nodes are one voter and one learner");
}

#[test]
fn three_nodes_vote_once_the_learners_have_caught_up() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3))], &[1], &[2, 3]);
    play.lagging = vec![MemberId(3)];
    assert_eq!(play.decide(), vec![]);
    play.lagging.clear();
    assert_eq!(play.decide(), vec![joint(&[2, 3], &[], &[])]);
    play.group.outgoing = vec![MemberId(1)];
    assert_eq!(play.decide(), vec![Decision::Change(Change::LeaveJoint)]);
}

#[test]
fn a_dead_voter_keeps_its_seat_until_somebody_can_take_it() {
    let three = [(1, READY, Some(1)), (2, READY, Some(2)), (3, LOST, Some(3))];
    let votes = |play: &Play| play.decide().into_iter().any(|d| matches!(d, Decision::Change(Change::Joint { .. })));
    let mut play3 = play(&three, &[1, 2, 3], &[]);
    play3.state.settings.replace_after_ms = None;
    assert!(!votes(&play3), "nobody to replace it with");

    let mut play4 = play(&[three[0], three[1], three[2], (4, READY, Some(4))], &[1, 2, 3], &[4]);
    play4.state.settings.replace_after_ms = None;
    assert!(play4.decide().contains(&joint(&[4], &[], &[3])));
    play4.state.nodes.get_mut(&NodeId(3)).expect("there").since_ms = NOW.wall - 1_000;
    assert!(!votes(&play4), "lost only just now: it may come back");
}

#[test]
fn scaling_down_takes_nodes_out_of_the_group_before_it_ends_them() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3))], &[1, 2, 3], &[]);
    play.state.desired_nodes = 1;
    let end = |id: &str| Decision::Propose(Command::InstanceSet { id: id.into(), desired: InstanceDesired::Terminated });
    assert_eq!(play.decide(), vec![end("i-3"), end("i-2")], "never the leader's own");

    play.instance(2).desired = InstanceDesired::Terminated;
    play.instance(3).desired = InstanceDesired::Terminated;
    let decisions = play.decide();
    assert_eq!(decisions, vec![joint(&[], &[], &[2, 3])]);

    play.group.voters = vec![MemberId(1)];
    let clear = |id| Decision::Propose(Command::MemberClear(NodeId(id)));
    assert_eq!(&play.decide()[..2], &[clear(2), clear(3)], "the seat first");

    play.state.nodes.values_mut().filter(|n| n.id != NodeId(1)).for_each(|n| n.member = None);
    let remove = |id| Decision::Propose(Command::NodeRemove(NodeId(id)));
    let decisions = play.decide();
    assert_eq!(&decisions[..2], &[remove(2), remove(3)]);
    assert!(!decisions.iter().any(|d| matches!(d, Decision::Call(Call::Terminate { .. }))), "not while they are nodes");

    play.state.nodes.retain(|id, _| *id == NodeId(1));
    let ended = play.decide().into_iter().filter(|d| matches!(d, Decision::Call(Call::Terminate { .. }))).count();
    assert_eq!(ended, 2);
}

#[test]
fn a_leader_whose_instance_is_to_end_hands_leadership_on_first() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3))], &[1, 2, 3], &[]);
    play.instance(1).desired = InstanceDesired::Terminated;
    play.lagging = vec![MemberId(2)];
    assert!(play.decide().contains(&Decision::Transfer(MemberId(3))));
    assert!(!play.decide().iter().any(|d| matches!(d, Decision::Change(_))));
}

#[test]
fn a_node_out_of_the_group_gives_its_seat_up_before_it_gets_another() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2))], &[1], &[]);
    assert_eq!(play.decide(), vec![Decision::Call(Call::Discharge { node: NodeId(2), member: MemberId(2) })]);
    play.observed.discharged(MemberId(2));
    assert_eq!(play.decide(), vec![Decision::Propose(Command::MemberClear(NodeId(2)))]);
}

#[test]
fn silence_makes_a_node_lost_late_and_the_providers_word_at_once() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3))], &[1, 2, 3], &[]);
    let lost = |play: &Play| {
        play.decide().into_iter().find_map(|d| match d {
            Decision::Propose(Command::NodeState { node, state: NodeState::Lost, reason }) => Some((node.0, reason)),
            _ => None,
        })
    };
    play.observed.hear(NodeId(2), NOW.mono - 5_000);
    assert_eq!(lost(&play), None);
    play.observed.hear(NodeId(2), NOW.mono - 5_001);
    assert_eq!(lost(&play), Some((2, "silent for 5.0 s".into())));

    play.observed.hear(NodeId(2), NOW.mono - 200);
    let operation = play.instance(2).operation;
    let seen = InstanceSeen { id: "i-2".into(), operation: Some(operation), address: String::new(), state: InstanceState::Stopped };
    play.observed.described(&[seen], &[Known { operation, id: Some("i-2".into()), expected: true }], NOW.mono - 100);
    assert_eq!(lost(&play), Some((2, "its machine is stopped".into())));
}

#[test]
fn a_stopped_instance_is_started_again_unless_a_person_stopped_it() {
    let mut play = play(&[(1, READY, Some(1)), (2, LOST, Some(2))], &[1], &[2]);
    play.state.settings.replace_after_ms = None;
    play.instance(2).state = InstanceState::Stopped;
    let starts = |play: &Play| play.decide().into_iter().any(|d| matches!(d, Decision::Call(Call::Start { .. })));
    assert!(starts(&play));
    play.instance(2).desired = InstanceDesired::Stopped;
    assert!(!starts(&play));
    play.instance(2).desired = InstanceDesired::Running;
    play.state.destroying = true;
    assert!(!starts(&play));
}

#[test]
fn what_is_missing_is_launched_up_to_the_brakes_and_what_stays_lost_is_replaced() {
    let mut play = play(&[(1, READY, Some(1)), (2, LOST, Some(2))], &[1], &[2]);
    play.state.desired_nodes = 4;
    play.state.settings.max_nodes = 3;
    let launches = |play: &Play| play.decide().into_iter().filter(|d| matches!(d, Decision::Propose(Command::Launch { .. }))).count();
    assert_eq!(launches(&play), 2, "apply refuses the one past max_nodes");
    play.state.settings.max_nodes = 2;
    assert_eq!(launches(&play), 0);

    play.state.settings.max_nodes = 5;
    play.state.desired_nodes = 2;
    let replaced = |play: &Play| {
        let end = Decision::Propose(Command::InstanceSet { id: "i-2".into(), desired: InstanceDesired::Terminated });
        play.decide().contains(&end)
    };
    assert!(replaced(&play), "lost for longer than replace_after");
    play.state.settings.replace_after_ms = Some(2_000_000);
    assert!(!replaced(&play));
}
