//! How many machines, what they are made of, and which of them end.

use super::*;

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

#[test]
fn a_leader_that_is_to_leave_itself_ends_nobody_who_alone_may_lead_after_it() {
    // n1 leads and n2 is away; beside them two that no provider made, and that only work.
    let mut play = play(&[(1, READY, Some(1)), (2, LOST, Some(2)), (3, READY, None), (4, READY, None)], &[1, 2], &[]);
    for worker in [NodeId(3), NodeId(4)] {
        play.state.nodes.get_mut(&worker).expect("there").admitted = Role::Worker;
        play.state.instances.retain(|_, instance| instance.node != Some(worker));
    }
    play.state.desired_nodes = 2;
    let ends = |play: &Play, id: &str| {
        let end = Decision::Propose(Command::InstanceSet { id: id.into(), desired: InstanceDesired::Terminated });
        play.decide().contains(&end)
    };
    assert!(ends(&play, "i-2"), "who leads stays");
    play.instance(1).desired = InstanceDesired::Terminated;
    assert!(!ends(&play, "i-2"), "it comes back, perhaps");
    play.state.nodes.get_mut(&NodeId(2)).expect("there").state = READY;
    assert!(!ends(&play, "i-2"), "it is to lead");

    // One that is only just launched may be the last of them as well.
    play.state.nodes.remove(&NodeId(2));
    assert!(ends(&play, "i-2"), "its node was removed");
    play.instance(2).node = None;
    assert!(!ends(&play, "i-2"));
}

#[test]
fn a_launch_is_decided_with_all_it_is_made_of_and_a_refused_spot_launch_is_followed_by_another_kind() {
    let mut play = play(&[(1, READY, Some(1)), (2, READY, Some(2))], &[1, 2], &[]);
    play.state.desired_nodes = 3;
    let launched = |play: &Play| {
        play.decide().into_iter().find_map(|d| match d {
            Decision::Propose(Command::Launch { parameters, .. }) => Some(parameters),
            _ => None,
        })
    };
    assert_eq!(launched(&play), Some(BTreeMap::new()), "a provider that needs nothing is told nothing");
    play.state.launch = [("image", "ami-1"), (parameter::SPOT, "true")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let first = launched(&play).expect("one is missing");
    assert_eq!((first["image"].as_str(), first[parameter::SPOT].as_str()), ("ami-1", "true"));
    assert_eq!(first[parameter::SEEDS], "127.0.0.1:5080,127.0.0.2:5080", "whom the new node asks is decided too, the leader first");
    let refused = OperationId { cluster: ClusterId(1), epoch: 0, index: 9 };
    let mut record = play.instance(2).clone();
    (record.operation, record.node, record.state, record.parameters) = (refused, None, InstanceState::Failed, first);
    record.since_ms = NOW.wall;
    play.state.instances.insert(refused, record);
    assert_eq!(launched(&play).expect("one is missing")[parameter::SPOT], "false");
    play.state.instances.get_mut(&refused).expect("just put there").since_ms = NOW.wall - 3_600_000;
    assert_eq!(launched(&play).expect("one is missing")[parameter::SPOT], "true", "an hour later it is tried again");
}

#[test]
fn a_machine_that_was_launched_in_a_life_that_is_over_is_ended() {
    let mut play = play(&[(1, READY, Some(1))], &[1], &[]);
    play.state.epoch = 1;
    let launched = |cluster, epoch| {
        let operation = Some(OperationId { cluster: ClusterId(cluster), epoch, index: 99 });
        InstanceSeen { id: "i-9".into(), operation, address: String::new(), state: InstanceState::Running, public_address: String::new() }
    };
    let ends = |play: &mut Play, seen| {
        play.observed.described(&[seen], &[], NOW.mono);
        play.decide().iter().any(|d| matches!(d, Decision::Call(Call::Terminate { id, .. }) if id == "i-9"))
    };
    assert!(ends(&mut play, launched(1, 0)), "the decision was lost with a majority");
    assert!(ends(&mut play, launched(1, 1)));
    assert!(!ends(&mut play, launched(1, 2)), "of a life that this leader knows nothing of");
    assert!(!ends(&mut play, launched(2, 0)), "of another cluster");

    // It counts for as long as it is billed, and nothing is bought before somebody looked.
    let launches = |play: &Play| play.decide().iter().filter(|d| matches!(d, Decision::Propose(Command::Launch { .. }))).count();
    (play.state.desired_nodes, play.state.settings.max_nodes) = (4, 4);
    play.observed = Observed::new(NOW.mono);
    assert!(launches(&play) == 0 && play.decide().contains(&Decision::Call(Call::Describe)), "{:?}", play.decide());
    play.observed.described(&[launched(1, 0)], &[], NOW.mono);
    assert_eq!(launches(&play), 2);
    play.observed.described(&[], &[], NOW.mono);
    assert_eq!(launches(&play), 3);
}

#[test]
fn the_public_address_leads_to_the_leader() {
    let mut play = play(&[(1, READY, Some(1))], &[1], &[]);
    play.state.launch.insert(parameter::ADDRESS.into(), "eipalloc-1".into());
    let attach = Decision::Call(Call::Attach { id: "i-1".into(), address: "eipalloc-1".into() });
    assert!(play.decide().contains(&attach));
    play.observed.attached(NOW.mono);
    assert!(!play.decide().contains(&attach));
    play.observed = Observed::new(NOW.mono);
    assert!(play.decide().contains(&attach), "each leader moves it to itself");
}
