//! What a leader decides, seen from outside: a cluster in a few words, and the decisions that must follow.

mod instances;

use agent::logic::{
    plan::{self, Call, Decision, Known, Observed, Sight},
    raft::{Change, Membership},
    state::State,
};
use agent::model::{
    command::{Command, Joiner, KINDS_KNOWN},
    ids::{ClusterId, MemberId, NodeId, Now, OperationId},
    instance::{InstanceDesired, InstanceRecord, InstanceSeen, InstanceState, parameter},
    node::{NodeRecord, NodeState, Role},
    settings::BelowMin,
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
        preference: None,
        papers: Default::default(),
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
            parameters: BTreeMap::new(),
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
        self.with_sight(plan::decide)
    }

    fn partner(&self, id: u64, role: Role) -> Result<(), String> {
        self.with_sight(|sight| plan::partner(sight, NodeId(id), role))
    }

    fn with_sight<T>(&self, f: impl Fn(&Sight) -> T) -> T {
        let caught_up = |m: MemberId| !self.lagging.contains(&m);
        f(&Sight {
            state: &self.state,
            membership: &self.group,
            observed: &self.observed,
            me: NodeId(1),
            now: NOW,
            lost_after_ms: 5_000,
            swap_after_ms: 60_000,
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
    play3.state.nodes.get_mut(&NodeId(3)).expect("there").since_ms = NOW.wall - 59_000;
    assert!(!votes(&play3), "nobody to replace it with, and it may come back");
    play3.state.nodes.get_mut(&NodeId(3)).expect("there").since_ms = NOW.wall - 61_000;
    assert!(play3.decide().contains(&joint(&[], &[2], &[3])), "two that are left are one voter and one learner");

    let mut play4 = play(&[three[0], three[1], three[2], (4, READY, Some(4))], &[1, 2, 3], &[4]);
    play4.state.settings.replace_after_ms = None;
    assert!(play4.decide().contains(&joint(&[4], &[], &[3])));
    play4.state.nodes.get_mut(&NodeId(3)).expect("there").since_ms = NOW.wall - 1_000;
    assert!(!votes(&play4), "lost only just now: it may come back");
}

#[test]
fn those_lost_can_never_keep_the_chosen_from_deciding() {
    // 2 is leaving and 1 was demoted by hand: the one voter is 1 all the same, not 3 who has just been lost.
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, LOST, Some(3))], &[1, 2, 3], &[]);
    play.state.nodes.get_mut(&NodeId(3)).expect("there").since_ms = NOW.wall - 1_000;
    play.state.nodes.get_mut(&NodeId(2)).expect("there").leaving = true;
    prefer(&mut play, 1, Role::Worker);
    assert!(play.decide().contains(&joint(&[], &[3], &[2])));
}

#[test]
fn a_new_leader_counts_on_nobody_it_has_not_heard_itself() {
    // 4 and 5 were cut off for long; they came back when 2 and 3 died, of which the record says nothing yet.
    let five = [(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3)), (4, LOST, Some(4)), (5, LOST, Some(5))];
    let mut play = play(&five, &[1, 2, 3, 4, 5], &[]);
    play.state.settings.managers = 5;
    for id in [4, 5] {
        play.state.nodes.get_mut(&NodeId(id)).expect("there").since_ms = NOW.wall - 61_000;
    }
    play.observed = Observed::new(NOW.mono);
    play.observed.described(&[], &[], NOW.mono);
    play.observed.hear(NodeId(4), NOW.mono);
    play.observed.hear(NodeId(5), NOW.mono);
    let shrinks = |play: &Play| play.decide().contains(&joint(&[], &[], &[4, 5]));
    assert!(!shrinks(&play), "1, 2 and 3 could not decide without 2 and 3");
    play.observed.hear(NodeId(2), NOW.mono);
    assert!(shrinks(&play), "two of the three are there");
}

fn prefer(play: &mut Play, id: u64, role: Role) {
    play.state.nodes.get_mut(&NodeId(id)).expect("in the play").preference = Some(role);
}

#[test]
fn whom_a_person_promotes_takes_a_seat_and_whom_a_person_demotes_gives_it_up() {
    let four = [(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3)), (4, READY, Some(4))];
    let calm = || play(&four, &[1, 2, 3], &[4]);
    assert!(!calm().decide().iter().any(|d| matches!(d, Decision::Change(Change::Joint { .. }))), "nothing to gain");

    let mut promoted = calm();
    promoted.state.nodes.get_mut(&NodeId(2)).expect("there").memory = 4 << 30;
    prefer(&mut promoted, 4, Role::Manager);
    assert_eq!(promoted.decide(), vec![joint(&[4], &[], &[3])], "the worse one gives way");

    let mut demoted = calm();
    prefer(&mut demoted, 2, Role::Worker);
    assert_eq!(demoted.decide(), vec![joint(&[4], &[], &[2])]);
    demoted.state.nodes.get_mut(&NodeId(4)).expect("there").state = LOST;
    demoted.state.settings.replace_after_ms = None;
    assert!(!demoted.decide().iter().any(|d| matches!(d, Decision::Change(Change::Joint { .. }))), "a wish costs no seat");

    let mut leader = calm();
    prefer(&mut leader, 1, Role::Worker);
    assert_eq!(leader.decide(), vec![Decision::Transfer(MemberId(2))], "it hands on before it goes");
}

#[test]
fn the_only_manager_can_be_swapped_too() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2))], &[1], &[2]);
    prefer(&mut play, 1, Role::Worker);
    assert_eq!(play.decide(), vec![joint(&[2], &[1], &[])]);
    play.group = Membership { voters: vec![MemberId(2)], learners: vec![MemberId(1)], outgoing: vec![MemberId(1)], pending: false };
    assert_eq!(play.decide(), vec![Decision::Transfer(MemberId(2))], "whoever leaves the joint configuration must be of the new one");
}

#[test]
fn a_wish_without_a_partner_is_refused_with_the_reason() {
    let mut three = play(&[(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3))], &[1, 2, 3], &[]);
    assert!(three.partner(2, Role::Worker).unwrap_err().contains("no node can take the seat of n2"));
    assert_eq!(three.partner(2, Role::Manager), Ok(()));

    three.state.nodes.insert(NodeId(4), node(4, READY, None));
    assert_eq!(three.partner(2, Role::Worker), Ok(()));
    assert_eq!(three.partner(4, Role::Manager), Ok(()));
    (1..=3).for_each(|id| prefer(&mut three, id, Role::Manager));
    assert!(three.partner(4, Role::Manager).unwrap_err().contains("no manager can give its seat to n4"));
    three.state.nodes.get_mut(&NodeId(4)).expect("there").admitted = Role::Worker;
    assert_eq!(
        three.partner(4, Role::Manager),
        Err("no manager can give its seat to n4: each was promoted by hand; demote one first".into())
    );
    assert!(three.partner(2, Role::Worker).is_err(), "one that never votes is no partner");
    let four = three.state.nodes.get_mut(&NodeId(4)).expect("there");
    (four.admitted, four.state) = (Role::Manager, LOST);
    assert!(three.partner(4, Role::Manager).unwrap_err().contains("n4 is lost"));
}

/// Three voters and a fourth node that is ready; the voters have been these for a minute and more.
fn calm_four() -> Play {
    let four = [(1, READY, Some(1)), (2, READY, Some(2)), (3, READY, Some(3)), (4, READY, None)];
    let mut play = play(&four, &[1, 2, 3], &[]);
    play.state.nodes.values_mut().for_each(|n| n.memory = 1 << 30);
    play.observed.watch_voters(play.group.voters.clone(), NOW.mono - 60_000);
    play
}

#[test]
fn a_clearly_better_node_takes_the_seat_of_the_worst_voter_when_all_is_calm() {
    let assign = vec![Decision::Propose(Command::MemberAssign(NodeId(4)))];
    let gains = |change: &dyn Fn(&mut Play)| {
        let mut play = calm_four();
        change(&mut play);
        play.decide()
    };
    let bigger = |play: &mut Play, id: u64, memory: u64| play.state.nodes.get_mut(&NodeId(id)).expect("there").memory = memory;
    assert_eq!(gains(&|_| {}), vec![], "as good as the others");
    assert_eq!(gains(&|p| bigger(p, 4, 2 << 30)), assign);
    assert_eq!(gains(&|p| bigger(p, 4, (2 << 30) - (64 << 20))), vec![], "better, but not clearly");
    assert_eq!(gains(&|p| bigger(p, 1, 1 << 28)), vec![], "a leader keeps its seat");
    let unsettled = |p: &mut Play| {
        bigger(p, 4, 2 << 30);
        p.observed.watch_voters(vec![MemberId(1)], NOW.mono - 59_000);
    };
    assert_eq!(gains(&unsettled), vec![], "the voters changed lately");
    let fresh = |p: &mut Play| {
        bigger(p, 4, 2 << 30);
        p.state.nodes.get_mut(&NodeId(4)).expect("there").since_ms = NOW.wall - 59_000;
    };
    assert_eq!(gains(&fresh), vec![], "it came lately");
    let far = |p: &mut Play| {
        bigger(p, 4, 2 << 30);
        p.observed.took(NodeId(4), 40);
    };
    assert_eq!(gains(&far), vec![], "it is far away");
    let zoned = |p: &mut Play| {
        for (id, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            p.state.nodes.get_mut(&NodeId(id)).expect("there").labels.insert("zone".into(), zone.into());
        }
    };
    assert_eq!(gains(&zoned), assign, "two voters would fail together");
    let chosen = |p: &mut Play| {
        bigger(p, 4, 2 << 30);
        (2..=3).for_each(|id| prefer(p, id, Role::Manager));
    };
    assert_eq!(gains(&chosen), vec![], "a person chose the voters");
}

#[test]
fn a_swap_ends_with_the_worst_voter_out_and_nothing_more_to_gain() {
    let mut play = calm_four();
    let nodes = &mut play.state.nodes;
    nodes.get_mut(&NodeId(3)).expect("there").memory = 1 << 29;
    let fourth = nodes.get_mut(&NodeId(4)).expect("there");
    (fourth.memory, fourth.member, fourth.seated) = (2 << 30, Some(MemberId(4)), true);
    play.group.learners = vec![MemberId(4)];
    assert_eq!(play.decide(), vec![joint(&[4], &[], &[3])]);
    play.group = Membership { voters: [1, 2, 4].map(MemberId).to_vec(), ..Membership::default() };
    play.state.nodes.get_mut(&NodeId(3)).expect("there").member = None;
    play.observed.watch_voters(play.group.voters.clone(), NOW.mono - 60_000);
    assert_eq!(play.decide(), vec![]);
}

#[test]
fn free_seats_go_to_the_best_in_different_zones() {
    let five = [(1, READY, Some(1)), (2, READY, None), (3, READY, None), (4, READY, None), (5, READY, None)];
    let mut play = play(&five, &[1], &[]);
    for (id, zone, memory) in [(1, "a", 1 << 30), (2, "a", 1 << 30), (3, "b", 1 << 29), (4, "b", 1 << 30), (5, "a", 2 << 30)] {
        let node = play.state.nodes.get_mut(&NodeId(id)).expect("there");
        node.labels.insert("zone".into(), zone.into());
        node.memory = memory;
    }
    let assigned: Vec<u64> = play
        .decide()
        .into_iter()
        .filter_map(|d| if let Decision::Propose(Command::MemberAssign(node)) = d { Some(node.0) } else { None })
        .collect();
    assert_eq!(assigned, [4, 5], "another zone first, then the larger one");
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
fn a_leader_that_is_to_be_removed_makes_the_learner_a_voter_and_then_hands_on() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2))], &[1], &[2]);
    assert_eq!(play.decide(), vec![], "all is well");
    play.observed.stand_aside(NOW.mono);
    assert_eq!(play.decide(), vec![joint(&[2], &[1], &[])]);

    (play.group.voters, play.group.learners, play.group.outgoing) = (vec![MemberId(2)], vec![], vec![MemberId(1)]);
    assert_eq!(play.decide(), vec![Decision::Transfer(MemberId(2))]);

    // Nobody asked again: the wish is over.
    (play.group.voters, play.group.learners, play.group.outgoing) = (vec![MemberId(1)], vec![MemberId(2)], vec![]);
    play.observed.stand_aside(NOW.mono - 10_000);
    assert_eq!(play.decide(), vec![]);
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
    let seen = InstanceSeen {
        id: "i-2".into(),
        operation: Some(operation),
        address: String::new(),
        state: InstanceState::Stopped,
        public_address: String::new(),
    };
    play.observed.described(&[seen], &[Known { operation, id: Some("i-2".into()), expected: true }], NOW.mono - 100);
    assert_eq!(lost(&play), Some((2, "its machine is stopped".into())));
}

#[test]
fn the_minimum_counts_nodes_that_are_there() {
    let mut play = play(&[(1, READY, Some(1)), (2, NodeState::Draining, Some(2)), (3, LOST, Some(3))], &[1, 2, 3], &[]);
    play.state.settings.replace_after_ms = None;
    let says = |play: &Play| {
        play.decide().into_iter().find_map(|d| match d {
            Decision::Propose(Command::MinNodes { below, live }) => Some((below, live)),
            _ => None,
        })
    };
    assert_eq!(says(&play), None, "without a minimum there is nothing to say");
    play.state.settings.min_nodes = 3;
    assert_eq!(says(&play), Some((true, 2)));
    play.state.below_min = true;
    assert_eq!(says(&play), None, "it is said once");
    play.state.settings.below_min = BelowMin::Pause;
    let problems = play.with_sight(plan::problems);
    assert!(problems.contains(&"2 of at least 3 nodes live: services stand still until there are enough".to_string()), "{problems:?}");
    let third = play.state.nodes.get_mut(&NodeId(3)).expect("there");
    third.state = READY;
    play.observed.hear(NodeId(3), NOW.mono);
    assert_eq!(says(&play), Some((false, 3)));
}
