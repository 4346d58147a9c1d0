//! How many machines: launches what is missing, repairs what stopped, ends what is too much.
//!
//! Repair before replace: a stopped machine is started again; only one that stays lost for `replace_after` is
//! terminated, which leaves a place that a launch fills. The decision to launch is a command in the log, refused past
//! the brakes; making it is a call that any leader may repeat under the same operation.

use super::{Call, CallKey, Decision, Found, Sight};
use crate::model::{
    command::Command,
    ids::OperationId,
    instance::{InstanceDesired, InstanceRecord, InstanceState, parameter},
    limits::{LAUNCH_PARAMETER_BYTES_MAX, LAUNCH_RETRY_MAX_MS, SPOT_REFUSED_FOR_MS},
    node::{NodeRecord, NodeState, Role},
};
use std::collections::BTreeMap;

/// How often the provider is asked when nothing is suspicious, and when something is.
const DESCRIBE_CALM_MS: u64 = 15_000;
const DESCRIBE_ALERT_MS: u64 = 1_000;
const DESCRIBE_URGENT_MS: u64 = 100;
/// After this long a launch that nobody answered is settled by looking for it.
const LAUNCH_SETTLES_AFTER_MS: u64 = 60_000;
/// The public address may be moved by hand: moved back after this long.
const ATTACH_AGAIN_MS: u64 = 300_000;
/// Silence that is worth asking the provider about.
const SUSPICIOUS_SILENCE_MS: u64 = 1_000;

pub(super) fn decide(sight: &Sight, decisions: &mut Vec<Decision>) {
    for instance in sight.state.instances.values().filter(|i| !i.ended()) {
        record_what_was_found(sight, instance, decisions);
        drive(sight, instance, decisions);
    }
    end_strays(sight, decisions);
    if !sight.state.destroying {
        scale(sight, decisions);
        replace(sight, decisions);
        attach(sight, decisions);
    }
    describe(sight, decisions);
}

/// Nodes wanted and not there yet, launches under way not counted as missing.
pub(super) fn missing(sight: &Sight) -> usize {
    (sight.state.desired_nodes as usize).saturating_sub(counted(sight))
}

fn counted(sight: &Sight) -> usize {
    let instances = sight.state.instances.values().filter(|i| !i.ended() && i.desired != InstanceDesired::Terminated).count();
    let by_hand = sight.state.nodes.values().filter(|n| sight.state.instance_of(n.id).is_none() && !n.leaving).count();
    instances + by_hand
}

/// The provider's word goes into the state, so that the next leader and people know it.
fn record_what_was_found(sight: &Sight, instance: &InstanceRecord, decisions: &mut Vec<Decision>) {
    let Some(found) = sight.observed.found(instance.operation) else { return };
    let Found { id, address, state, problem, .. } = found;
    let state = state.filter(|s| *s != InstanceState::Terminated || absence_counts(sight, instance)).unwrap_or(instance.state);
    let id = id.clone().or_else(|| instance.id.clone());
    let same = id == instance.id
        && state == instance.state
        && *problem == instance.problem
        && (address.is_empty() || *address == instance.address);
    if !same {
        let (operation, address, problem) = (instance.operation, address.clone(), problem.clone());
        decisions.push(Decision::Propose(Command::InstanceSeen { operation, id, address, state, problem }));
    }
}

/// A launch whose answer is still out may not have happened yet: absence proves nothing then.
fn absence_counts(sight: &Sight, instance: &InstanceRecord) -> bool {
    let old = launched_ago_ms(sight, instance) > LAUNCH_SETTLES_AFTER_MS;
    let launching = sight.observed.is_under_way(CallKey::Launch(instance.operation));
    instance.id.is_some() || (instance.desired == InstanceDesired::Terminated && old && !launching)
}

/// By the stamps, or as long as this leader itself has waited.
fn launched_ago_ms(sight: &Sight, instance: &InstanceRecord) -> u64 {
    let noticed = sight.observed.noticed_at(instance.operation).unwrap_or(sight.now.mono);
    let waited_ms = sight.now.mono.saturating_sub(noticed);
    sight.stamp_ms().saturating_sub(instance.launched_ms).max(waited_ms)
}

fn drive(sight: &Sight, instance: &InstanceRecord, decisions: &mut Vec<Decision>) {
    let operation = instance.operation;
    let mut call = |call: Call| {
        if sight.observed.may_call(call.key(), sight.now.mono) {
            decisions.push(Decision::Call(call));
        }
    };
    let Some(id) = instance.id.clone() else {
        // Answered already: the name is on its way into the log.
        let named = sight.observed.found(operation).is_some_and(|found| found.id.is_some());
        let young = instance.launched_ms + LAUNCH_RETRY_MAX_MS > sight.stamp_ms();
        if instance.desired != InstanceDesired::Terminated && young && !named && !sight.state.destroying {
            call(Call::Launch(operation));
        }
        return;
    };
    match (instance.desired, instance.state) {
        (InstanceDesired::Running, InstanceState::Stopped) if !sight.state.destroying => call(Call::Start { operation, id }),
        (InstanceDesired::Stopped, InstanceState::Running | InstanceState::Pending) => call(Call::Stop { operation, id }),
        (InstanceDesired::Terminated, _) => {
            // The node leaves the group and the cluster first; `members` sees to that.
            let still_in = instance.node.is_some_and(|n| sight.state.nodes.contains_key(&n));
            if !still_in {
                call(Call::Terminate { operation, id });
            }
        }
        _ => {}
    }
}

/// A machine of ours that no live record accounts for is ended: its launch was taken for failed, and was not; or the
/// decision was lost with a majority, in a life of the cluster before this one.
fn end_strays(sight: &Sight, decisions: &mut Vec<Decision>) {
    for (operation, id) in sight.observed.strays().iter().filter(|(operation, _)| is_stray(sight, operation)) {
        let call = Call::Terminate { operation: *operation, id: id.clone() };
        if sight.observed.may_call(call.key(), sight.now.mono) {
            decisions.push(Decision::Call(call));
        }
    }
}

/// Whether a machine with this tag is the cluster's, and nobody's.
fn is_stray(sight: &Sight, operation: &OperationId) -> bool {
    let ours = operation.cluster == sight.state.cluster && operation.epoch <= sight.state.epoch;
    ours && sight.state.instances.get(operation).is_none_or(InstanceRecord::ended)
}

/// How many machines there is room for. After the loss of a majority there may be some of which no record is left: nothing
/// is bought before the provider was asked, and they count for as long as they are billed.
fn room(sight: &Sight) -> usize {
    if sight.state.epoch == 0 {
        return usize::MAX;
    }
    if sight.observed.described_at().is_none() {
        return 0;
    }
    let alive = sight.state.instances.values().filter(|i| !i.ended()).count();
    (sight.state.settings.max_nodes as usize).saturating_sub(alive + billed_strays(sight))
}

fn billed_strays(sight: &Sight) -> usize {
    sight.observed.unaccounted().iter().filter(|operation| is_stray(sight, operation)).count()
}

fn scale(sight: &Sight, decisions: &mut Vec<Decision>) {
    let count = counted(sight);
    let desired = sight.state.desired_nodes as usize;
    if count < desired {
        for ordinal in (sight.state.next_ordinal..).take((desired - count).min(room(sight))) {
            if sight.state.brake(sight.stamp_ms()).is_some() {
                return;
            }
            decisions.push(Decision::Propose(Command::Launch { ordinal, parameters: parameters(sight) }));
        }
    } else if count > desired {
        end_some(sight, count - desired, decisions);
    }
}

/// Ends those of least worth. Somebody has to be left who may lead, also where this leader is a victim itself and the others
/// only work: then whoever is silent for now, or on its way, may be all there is.
fn end_some(sight: &Sight, too_many: usize, decisions: &mut Vec<Decision>) {
    let ends = |i: &&InstanceRecord| !i.ended() && i.desired != InstanceDesired::Terminated && i.node != Some(sight.me);
    let mut victims: Vec<&InstanceRecord> = sight.state.instances.values().filter(ends).collect();
    victims.sort_by_key(|i| (worth(sight, i), u32::MAX - i.ordinal));
    let leaves = sight.state.nodes.get(&sight.me).is_none_or(|me| !may_lead(sight, me));
    let mut stay = sight.state.nodes.values().filter(|n| can_lead(sight, n)).count();
    for victim in victims.into_iter().take(too_many) {
        let node = victim.node.and_then(|id| sight.state.nodes.get(&id));
        let can = node.is_some_and(|node| can_lead(sight, node));
        let may = node.map_or(victim.node.is_none(), |node| may_lead(sight, node));
        let others = stay - usize::from(can);
        if others == 0 && (can || leaves && may) {
            continue;
        }
        stay = others;
        end(victim, decisions);
    }
}

/// Whether this node could lead the cluster once all that are to leave it have left.
fn can_lead(sight: &Sight, node: &NodeRecord) -> bool {
    sight.is_ready(node) && may_lead(sight, node)
}

/// The same of one that need not be there.
fn may_lead(sight: &Sight, node: &NodeRecord) -> bool {
    node.admitted == Role::Manager && !sight.state.is_leaving(node)
}

/// What a launch decided now is made of.
///
/// All of it is in the record of the decision, managers to ask included: the provider knows a repetition by its being
/// the same, and every leader repeats it so.
fn parameters(sight: &Sight) -> BTreeMap<String, String> {
    let mut parameters = sight.state.launch.clone();
    if parameters.is_empty() {
        return parameters;
    }
    let may_answer = |n: &&NodeRecord| n.id == sight.me || n.member.is_some() && n.state == NodeState::Ready;
    let mut nodes: Vec<&NodeRecord> = sight.state.nodes.values().filter(may_answer).collect();
    nodes.sort_by_key(|n| n.id != sight.me);
    let mut seeds = String::new();
    for node in nodes.into_iter().filter(|n| !n.address.is_empty()) {
        if seeds.len() + node.address.len() < LAUNCH_PARAMETER_BYTES_MAX {
            seeds = if seeds.is_empty() { node.address.clone() } else { format!("{seeds},{}", node.address) };
        }
    }
    parameters.insert(parameter::SEEDS.into(), seeds);
    // A refusal is final for its launch. The next one is another decision, so it may ask for something else.
    let wants_spot = |of: &BTreeMap<String, String>| of.get(parameter::SPOT).is_some_and(|spot| spot == "true");
    let refused = |i: &InstanceRecord| {
        i.state == InstanceState::Failed && wants_spot(&i.parameters) && i.since_ms + SPOT_REFUSED_FOR_MS > sight.stamp_ms()
    };
    if wants_spot(&parameters) && sight.state.instances.values().any(refused) {
        parameters.insert(parameter::SPOT.into(), "false".into());
    }
    parameters
}

/// The public address leads to whoever leads: at the start of a leadership, and looked at again now and then.
fn attach(sight: &Sight, decisions: &mut Vec<Decision>) {
    let Some(address) = sight.state.launch.get(parameter::ADDRESS).filter(|address| !address.is_empty()) else { return };
    let due = sight.observed.attached_at().is_none_or(|at| at + ATTACH_AGAIN_MS <= sight.now.mono);
    let own = sight.state.instance_of(sight.me).and_then(|i| i.id.clone());
    if let Some(id) = own.filter(|_| due && sight.observed.may_call(CallKey::Attach, sight.now.mono)) {
        decisions.push(Decision::Call(Call::Attach { id, address: address.clone() }));
    }
}

/// Least worth goes first when there are too many.
fn worth(sight: &Sight, instance: &InstanceRecord) -> u8 {
    let Some(node) = instance.node.and_then(|n| sight.state.nodes.get(&n)) else { return 0 };
    let votes = node.member.is_some_and(|m| sight.membership.voters.contains(&m));
    match node.state {
        NodeState::Lost => 1,
        NodeState::Joining => 2,
        _ if !votes => 3,
        _ => 4,
    }
}

fn replace(sight: &Sight, decisions: &mut Vec<Decision>) {
    let Some(after_ms) = sight.state.settings.replace_after_ms else { return };
    if counted(sight) > sight.state.desired_nodes as usize || sight.state.brake_for_replacement(sight.stamp_ms()).is_some() {
        return;
    }
    for instance in
        sight.state.instances.values().filter(|i| !i.ended() && i.desired == InstanceDesired::Running && i.node != Some(sight.me))
    {
        let overdue = match instance.node.and_then(|n| sight.state.nodes.get(&n)) {
            Some(node) if matches!(node.state, NodeState::Lost | NodeState::Joining) => sight.ailing_ms(node) > after_ms,
            Some(_) => false,
            // Launched, and its node never joined.
            None => instance.id.is_some() && launched_ago_ms(sight, instance) > after_ms,
        };
        let watched_ms = sight.now.mono.saturating_sub(sight.observed.since);
        if overdue && watched_ms > after_ms.min(10_000) {
            end(instance, decisions);
            return;
        }
    }
}

fn end(instance: &InstanceRecord, decisions: &mut Vec<Decision>) {
    let id = instance.id.clone().unwrap_or_else(|| instance.pending_name());
    decisions.push(Decision::Propose(Command::InstanceSet { id, desired: InstanceDesired::Terminated }));
}

fn describe(sight: &Sight, decisions: &mut Vec<Decision>) {
    let mut every_ms = DESCRIBE_CALM_MS;
    for instance in sight.state.instances.values().filter(|i| !i.ended()) {
        every_ms = every_ms.min(interest(sight, instance));
    }
    // Whoever goes on after a lost majority looks at once, and again while there is what it must end.
    let is_blind = sight.state.epoch > 0 && sight.observed.described_at().is_none();
    if sight.state.epoch > 0 && billed_strays(sight) > 0 {
        every_ms = every_ms.min(DESCRIBE_ALERT_MS);
    }
    let nothing_to_see = sight.state.instances.values().all(|i| i.ended()) && !is_blind;
    if nothing_to_see || !sight.observed.may_call(CallKey::Describe, sight.now.mono) {
        return;
    }
    let first = sight.observed.since + if is_blind { 0 } else { SUSPICIOUS_SILENCE_MS.min(every_ms) };
    let due = sight.observed.described_at().map_or(first, |at| at + every_ms);
    if sight.now.mono >= due {
        decisions.push(Decision::Call(Call::Describe));
    }
}

/// How soon the provider should be asked about this one again.
fn interest(sight: &Sight, instance: &InstanceRecord) -> u64 {
    let agrees = match instance.desired {
        InstanceDesired::Running => instance.state == InstanceState::Running,
        InstanceDesired::Stopped => instance.state == InstanceState::Stopped,
        InstanceDesired::Terminated => false,
    };
    let Some(node) = instance.node.and_then(|n| sight.state.nodes.get(&n)) else { return DESCRIBE_ALERT_MS };
    if node.id == sight.me {
        return DESCRIBE_CALM_MS;
    }
    if sight.observed.is_unreachable(node.id) && node.state != NodeState::Lost {
        return DESCRIBE_URGENT_MS;
    }
    let silent = sight.now.mono.saturating_sub(sight.observed.heard_at(node.id)) > SUSPICIOUS_SILENCE_MS;
    // A stopped instance that is meant to be stopped is no reason to ask often.
    let calm = agrees && (instance.desired == InstanceDesired::Stopped || !silent);
    if calm { DESCRIBE_CALM_MS } else { DESCRIBE_ALERT_MS }
}
