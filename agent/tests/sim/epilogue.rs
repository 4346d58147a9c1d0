//! After the end: one thing happens to a cluster at rest, and what must follow from it is known exactly.
//!
//! Histories full of faults show that nothing false happens; only a calm one shows that nothing needless does.

use crate::{
    counts::Count,
    history::{LOOK_EVERY_MS, settle},
    loss, promotion,
    services::Placement,
    world::{Event, World},
};
use agent::model::{
    query::Op,
    settings::{BelowMin, SettingsChange},
    task::TaskNumber,
};

/// How soon nothing runs any more where nothing may.
const HELD_WITHIN_MS: u64 = 20_000;
/// How long an agent is away: nobody is lost that soon.
const AWAY_MS: u64 = 1_000;

/// Task and process id, by machine.
type Processes = Vec<Vec<(TaskNumber, u32)>>;

/// What happens after the end.
enum Ending {
    AgentAway,
    NodeComes,
    TooFew(BelowMin),
    Promotion,
    MajorityLost,
    Nothing,
}

impl Ending {
    fn draw(world: &mut World) -> Ending {
        // An update whose time may be over by the clock of the next leader, or that waits to replace what may be replaced
        // while it does not run, makes a calm end unforeseeable.
        let calm = world.options.services && world.workload.blocked == 0;
        if world.options.ending_is_loss {
            return Ending::MajorityLost;
        }
        match world.rng.below(8) {
            0 if calm => Ending::AgentAway,
            1 if calm => Ending::NodeComes,
            2 if calm => Ending::TooFew(BelowMin::Stop),
            3 if world.options.services => Ending::TooFew(BelowMin::Pause),
            // Another node leads at its end, whose clock may say that an update's time is over.
            4 if !world.options.services => Ending::Promotion,
            5 => Ending::MajorityLost,
            _ => Ending::Nothing,
        }
    }
}

pub fn play_in(world: &mut World) {
    match Ending::draw(world) {
        Ending::AgentAway => an_agent_is_away(world),
        Ending::NodeComes => a_node_comes(world),
        Ending::TooFew(below) => too_few_nodes(world, below),
        Ending::Promotion => promotion::play_in(world),
        Ending::MajorityLost => loss::play_in(world),
        Ending::Nothing => {}
    }
}

/// Its tasks go on meanwhile, under the same process ids, and nobody moves them.
fn an_agent_is_away(world: &mut World) {
    // A machine too many is the leader's own, and ends when another node leads.
    if world.leader().and_then(|leader| world.replica(leader)).is_none_or(|r| r.state().nodes.len() != world.workload.target as usize) {
        return;
    }
    let up: Vec<usize> = world.hosts().into_iter().filter(|host| world.is_up(*host)).collect();
    let host = *world.rng.pick(&up).expect("a cluster at rest has nodes");
    let before = (placement(world), processes(world));
    world.note(50, host as u64, || format!("n{host}'s agent is away for a moment"));
    world.stop_process(host);
    world.at(world.now + AWAY_MS, Event::Boot { host });
    world.run_until(world.now + AWAY_MS);
    settle(world);
    assert!(before == (placement(world), processes(world)), "violation: an agent was away, and tasks moved: they were {before:?}");
    world.counts.add(Count::AgentsAway);
}

/// It gets what is missing and what runs on every node; nothing moves to it.
fn a_node_comes(world: &mut World) {
    let (before, count) = (placement(world), world.workload.target + 1);
    world.note(51, count.into(), || "one more node is wanted".into());
    world.workload.grow(count);
    settle(world);
    let after = placement(world);
    assert!(before.iter().all(|task| after.contains(task)), "violation: a node came, and tasks moved: {before:?} became {after:?}");
    world.counts.add(Count::NodesCame);
}

/// Tasks stop, or stand still, until there are enough nodes; then the same tasks go on where they were.
fn too_few_nodes(world: &mut World, below: BelowMin) {
    let before = (placement(world), processes(world));
    world.note(52, below as u64, || format!("too few nodes: {below:?}"));
    let change =
        |min_nodes, below_min| SettingsChange { min_nodes: Some(min_nodes), below_min: Some(below_min), ..SettingsChange::default() };
    let nodes = world.leader().and_then(|leader| world.replica(leader)).map_or(0, |replica| replica.state().nodes.len());
    world.workload.admin.todo.push_back(Op::Configure(change(nodes as u32 + 1, below)));
    let end = world.now + HELD_WITHIN_MS;
    let mut held = 0;
    while held < 4 {
        world.run_until(world.now + LOOK_EVERY_MS);
        let running = running(world);
        held = if running.is_empty() && world.workload.admin_is_idle() { held + 1 } else { 0 };
        assert!(world.now < end, "violation: below min_nodes ({below:?}) and yet {running:?} run");
    }
    world.workload.admin.todo.push_back(Op::Configure(change(1, BelowMin::Keep)));
    settle(world);
    let after = (placement(world), processes(world));
    assert!(before.0 == after.0, "violation: tasks were held, and moved: {:?} became {:?}", before.0, after.0);
    assert!(below == BelowMin::Stop || before.1 == after.1, "violation: tasks stood still, and are others now: {before:?}");
    world.counts.add(if below == BelowMin::Stop { Count::StoppedBelowMin } else { Count::PausedBelowMin });
}

fn placement(world: &World) -> Placement {
    let replica = world.leader().and_then(|leader| world.replica(leader)).expect("a cluster at rest has a leader");
    world.placement(replica)
}

fn processes(world: &World) -> Processes {
    world.machines.iter().map(|machine| machine.runtime.running.iter().map(|(number, pid)| (*number, *pid)).collect()).collect()
}

/// What runs and does not stand still.
fn running(world: &World) -> Vec<TaskNumber> {
    let on = |host: &usize| {
        let runtime = &world.machines[*host].runtime;
        runtime.running.keys().filter(|number| !runtime.paused.contains(number)).copied().collect::<Vec<_>>()
    };
    world.hosts().iter().flat_map(on).collect()
}
