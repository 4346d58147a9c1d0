//! What every provider promises, tried on each: `drivers/provider/mod.rs` says it in words.

use agent::{
    drivers::provider::{First, Provider, ProviderError, carry_out, first_operation},
    model::{
        instance::{InstanceSeen, InstanceState},
        io::{Provided, ProviderCall},
        query::LaunchRequest,
    },
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What one thing may take until it is seen.
const BOUND: Duration = Duration::from_secs(20);

/// Where a provider is tried. One cluster's.
pub trait Stage: Sync {
    /// A provider that remembers nothing: as the next leader has one.
    fn provider(&self) -> Box<dyn Provider>;

    /// The same request for the same ordinal.
    fn request(&self, ordinal: u32) -> LaunchRequest;

    fn first(&self) -> First {
        First::default()
    }

    /// Machines that cost something now, by the books of whoever bills them.
    fn billed(&self) -> usize;

    /// The next launch is carried out, and its answer does not arrive.
    fn lose_next_answer(&self);
}

/// All promises, each on a stage of its own.
pub fn hold_to_it<S: Stage>(stage: impl Fn() -> S) {
    if !stage().provider().capabilities().launches {
        return what_cannot_be_done_is_said_for_good(&stage());
    }
    a_launch_repeated_is_one_instance(&stage());
    an_answer_that_was_lost_is_asked_for_again(&stage());
    launches_at_once_are_one_instance(&stage());
    what_another_made_is_found_again(&stage());
    stopping_and_starting_what_is_so_already_is_a_success(&stage());
    what_was_terminated_stays_so(&stage());
    who_is_unknown_is_named(&stage());
}

fn seen(stage: &impl Stage, id: &str) -> Option<InstanceSeen> {
    stage.provider().describe().expect("it tells").into_iter().find(|seen| seen.id == id)
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !look() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn is(stage: &impl Stage, id: &str, state: InstanceState) {
    until(&format!("{id} is {state:?}"), || seen(stage, id).is_some_and(|seen| seen.state == state));
}

fn a_launch_repeated_is_one_instance(stage: &impl Stage) {
    let first = stage.provider().launch_first(&stage.first()).expect("it launches");
    let second = stage.provider().launch(&stage.request(2)).expect("it launches");
    assert_ne!(first.id, second.id);
    assert_eq!(stage.provider().launch_first(&stage.first()).expect("it was launched"), first);
    assert_eq!(stage.provider().launch(&stage.request(2)).expect("it was launched"), second);
    until("two are billed", || stage.billed() == 2);
}

pub fn an_answer_that_was_lost_is_asked_for_again(stage: &impl Stage) {
    stage.lose_next_answer();
    let request = stage.request(2);
    let mut launched = None;
    // The leader repeats what was not answered.
    until("the launch is answered", || {
        launched = stage.provider().launch(&request).ok();
        launched.is_some()
    });
    assert_eq!(stage.provider().launch(&request).ok(), launched);
    until("one is billed", || stage.billed() == 1);
}

pub fn launches_at_once_are_one_instance(stage: &impl Stage) {
    let launched: Vec<_> = std::thread::scope(|scope| {
        let launches: Vec<_> = (0..4).map(|_| scope.spawn(|| stage.provider().launch(&stage.request(2)))).collect();
        launches.into_iter().map(|launch| launch.join().expect("it does not panic").expect("it launches").id).collect()
    });
    assert!(launched.iter().all(|id| *id == launched[0]), "{launched:?}");
    until("one is billed", || stage.billed() == 1);
}

fn what_another_made_is_found_again(stage: &impl Stage) {
    let first = stage.provider().launch_first(&stage.first()).expect("it launches");
    let second = stage.provider().launch(&stage.request(2)).expect("it launches");
    is(stage, &first.id, InstanceState::Running);
    is(stage, &second.id, InstanceState::Running);
    let found = stage.provider().describe().expect("it tells");
    let told: Vec<_> = found.iter().map(|seen| (seen.operation, seen.id.as_str(), seen.address.as_str())).collect();
    let cluster = first.operation.cluster;
    assert_eq!(first.operation, first_operation(cluster));
    assert_eq!(
        told,
        [
            (Some(first.operation), first.id.as_str(), first.address.as_str()),
            (Some(stage.request(2).operation), second.id.as_str(), second.address.as_str()),
        ],
        "by ordinal, each with the decision that made it"
    );
    assert_eq!(stage.provider().drift(&BTreeMap::new()).expect("it tells"), [], "nobody touched them");
}

fn stopping_and_starting_what_is_so_already_is_a_success(stage: &impl Stage) {
    let launched = stage.provider().launch(&stage.request(2)).expect("it launches");
    if !stage.provider().capabilities().stops {
        assert!(matches!(stage.provider().stop(&launched.id), Err(ProviderError::Unable { .. })));
        return;
    }
    for _ in 0..2 {
        stage.provider().stop(&launched.id).expect("it stops");
    }
    is(stage, &launched.id, InstanceState::Stopped);
    for _ in 0..2 {
        stage.provider().start(&launched.id).expect("it starts");
    }
    is(stage, &launched.id, InstanceState::Running);
    assert_eq!(stage.provider().launch(&stage.request(2)).expect("it is there").id, launched.id);
    until("one is billed", || stage.billed() == 1);
}

fn what_was_terminated_stays_so(stage: &impl Stage) {
    let launched = stage.provider().launch(&stage.request(2)).expect("it launches");
    is(stage, &launched.id, InstanceState::Running);
    for _ in 0..2 {
        stage.provider().terminate(&launched.id).expect("it ends");
    }
    until("nothing is billed", || stage.billed() == 0);
    until("it has ended", || seen(stage, &launched.id).is_none_or(|seen| seen.state == InstanceState::Terminated));
    for call in [ProviderCall::Launch(stage.request(2)), ProviderCall::Start { id: launched.id.clone() }] {
        let outcome = carry_out(&*stage.provider(), &call);
        assert!(matches!(outcome, Provided::Failed { final_: true, .. }), "{call:?}: {outcome:?}");
    }
    assert_eq!(stage.billed(), 0, "an operation that ended is not begun again");
}

/// Of a provider whose machines exist: it tells of them, and refuses the rest such that nobody asks again.
fn what_cannot_be_done_is_said_for_good(stage: &impl Stage) {
    let provider = stage.provider();
    assert!(matches!(provider.launch_first(&stage.first()), Err(ProviderError::Unable { .. })));
    let id = provider.describe().expect("it tells").first().expect("there is a machine").id.clone();
    is(stage, &id, InstanceState::Running);
    let calls = [
        ProviderCall::Launch(stage.request(2)),
        ProviderCall::Start { id: id.clone() },
        ProviderCall::Stop { id: id.clone() },
        ProviderCall::Terminate { id: id.clone() },
        ProviderCall::Attach { id: id.clone(), address: "10.0.0.1".into() },
    ];
    for call in calls {
        let outcome = carry_out(&*provider, &call);
        let Provided::Failed { why, final_: true } = outcome else { panic!("{call:?}: {outcome:?}") };
        assert!(why.contains(provider.kind()), "{why}");
    }
    for call in [ProviderCall::Start { id: format!("{id}7") }, ProviderCall::Stop { id: format!("{id}7") }] {
        let Provided::Failed { why, final_: true } = carry_out(&*provider, &call) else { panic!("{call:?} was done") };
        assert!(why.contains(&format!("{id}7")), "{why}");
    }
    assert_eq!(carry_out(&*provider, &ProviderCall::Terminate { id: format!("{id}7") }), Provided::Done, "it has ended already");
    assert_eq!(provider.drift(&BTreeMap::new()).expect("it tells"), []);
    is(stage, &id, InstanceState::Running);
}

fn who_is_unknown_is_named(stage: &impl Stage) {
    let launched = stage.provider().launch(&stage.request(2)).expect("it launches");
    // Of the same form, and nobody's.
    let last = launched.id.chars().last().expect("an id has letters");
    let other = format!("{}{}", &launched.id[..launched.id.len() - 1], if last == '7' { '8' } else { '7' });
    for call in [ProviderCall::Start { id: other.clone() }, ProviderCall::Stop { id: other.clone() }] {
        let Provided::Failed { why, final_: true } = carry_out(&*stage.provider(), &call) else { panic!("{call:?} was done") };
        assert!(why.contains(&other), "{why}");
    }
    assert_eq!(carry_out(&*stage.provider(), &ProviderCall::Terminate { id: other }), Provided::Done, "it has ended already");
    until("one is billed", || stage.billed() == 1);
}
