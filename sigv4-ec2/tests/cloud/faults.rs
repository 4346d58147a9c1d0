//! A cloud that is busy, loses answers, has another clock, and shows late what one did.

use crate::setup::{Cloud, TestClock, launch, name, tags};
use sigv4_ec2::{Client, ErrorCode, Filter, Instance, InstanceState, Market, RunInstances};
use std::time::{Duration, Instant};

fn marked(client: &Client, mark: &str) -> Vec<Instance> {
    client.describe_instances(&[], &[Filter::tag("mark", mark)]).expect("it may look")
}

#[test]
fn a_lost_answer_does_not_launch_twice() {
    let cloud = Cloud::take();
    let client = cloud.client();
    for kind in ["lose_reply", "lose_request", "error_after", "error_before", "throttle"] {
        let mark = name("lost");
        cloud.order("DELETE", "/log", "");
        cloud.fault("RunInstances", kind, 3);
        let launched = client.run_instances(&launch(&mark)).expect("the fourth time it works");
        let forms: Vec<_> = cloud.seen("RunInstances").iter().map(|entry| entry["form"].clone()).collect();
        assert_eq!(forms.len(), 4, "{kind}");
        assert!(forms.windows(2).all(|pair| pair[0] == pair[1]), "{kind}: not the same request");
        assert_eq!(marked(&client, &mark).iter().map(|instance| &instance.id).collect::<Vec<_>>(), [&launched[0].id], "{kind}");
    }
}

#[test]
fn a_client_token_gives_the_same_instances_and_no_other_parameters() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("token");
    let first = client.run_instances(&RunInstances { count: 2, ..launch(&mark) }).expect("it is allowed");
    let again = client.run_instances(&RunInstances { count: 2, ..launch(&mark) }).expect("it is the same");
    assert_eq!(
        first.iter().map(|instance| &instance.id).collect::<Vec<_>>(),
        again.iter().map(|instance| &instance.id).collect::<Vec<_>>()
    );
    let other = client.run_instances(&RunInstances { count: 3, ..launch(&mark) }).expect_err("it is not the same");
    assert_eq!(other.code(), Some(&ErrorCode::IdempotentParameterMismatch));
    assert_eq!(marked(&client, &mark).len(), 2);
}

#[test]
fn throttling_is_waited_out_with_growing_pauses_and_not_for_ever() {
    let cloud = Cloud::take();
    let clock = TestClock::at(0);
    let client = cloud.client_of("AWS", &clock);
    cloud.fault("*", "throttle", 4);
    client.describe_instances(&[], &[]).expect("the fifth time it works");
    // Half of 200, 400, 800 and 1600 ms: the test's chance is always a half.
    assert_eq!(clock.slept(), Duration::from_millis(100 + 200 + 400 + 800), "{:?}", clock.slept());

    cloud.fault("*", "throttle", 1000);
    let before = clock.slept();
    let error = client.describe_instances(&[], &[]).expect_err("it never works");
    assert_eq!(error.code(), Some(&ErrorCode::RequestLimitExceeded));
    assert!(clock.slept() - before <= Client::PATIENCE, "{:?}", clock.slept());
    assert!(cloud.seen("DescribeInstances").len() > 10);
}

#[test]
fn what_cannot_be_repeated_safely_is_not() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let tags = tags(&[("mark", &name("address"))]);
    let filters = [Filter::tag("mark", &tags["mark"])];
    cloud.fault("AllocateAddress", "throttle", 1);
    cloud.fault("AllocateAddress", "lose_reply", 1);
    let error = client.allocate_address(&tags).expect_err("its answer is lost");
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(cloud.seen("AllocateAddress").len(), 2, "once refused, once lost");
    let found = client.describe_addresses(&filters).expect("it may look");
    assert_eq!(found.len(), 1);
    client.release_address(&found[0].allocation).expect("it is free");
    client.release_address(&found[0].allocation).expect("twice is no error");
    assert_eq!(client.describe_addresses(&filters).expect("it may look"), []);
}

#[test]
fn no_machines_left_is_said_at_once_and_nothing_was_bought() {
    let cloud = Cloud::take();
    let clock = TestClock::at(0);
    let client = cloud.client_of("AWS", &clock);
    let mark = name("full");
    let full = r#"{"action": "RunInstances", "kind": "refuse", "code": "InsufficientInstanceCapacity", "status": 500}"#;
    cloud.order("POST", "/faults", full);
    let spot = RunInstances { market: Market::Spot { price_max: None }, ..launch(&mark) };
    let error = client.run_instances(&spot).expect_err("there are none");
    assert!(error.code().is_some_and(ErrorCode::is_capacity) && !error.is_ambiguous(), "{error}");
    assert_eq!((cloud.seen("RunInstances").len(), clock.slept()), (1, Duration::ZERO));
    assert_eq!(marked(&client, &mark), []);
}

#[test]
fn a_wrong_clock_is_set_by_the_services_and_stays_set() {
    let cloud = Cloud::take();
    for ahead_secs in [3600, -86_400 * 400] {
        let client = cloud.client_of("AWS", &TestClock::at(ahead_secs));
        cloud.order("DELETE", "/log", "");
        client.describe_instances(&[], &[]).expect("the second time it works");
        assert_eq!(cloud.seen("DescribeInstances").len(), 2, "refused once");
        client.describe_instances(&[], &[]).expect("the clock is right now");
        assert_eq!(cloud.seen("DescribeInstances").len(), 3);
    }
    // The service's clock moves: the same.
    let client = cloud.client();
    cloud.order("POST", "/settings", r#"{"clock_ahead": 7200}"#);
    client.describe_instances(&[], &[]).expect("the second time it works");
}

#[test]
fn ten_pages_of_instances_are_read_and_each_once() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("pages");
    for index in 0..20 {
        let launch = RunInstances { client_token: format!("{mark}-{index}"), ..launch(&mark) };
        client.run_instances(&launch).expect("it is allowed");
    }
    cloud.order("POST", "/settings", r#"{"page": 2}"#);
    let mut ids: Vec<String> = marked(&client, &mark).into_iter().map(|instance| instance.id).collect();
    assert_eq!(cloud.seen("DescribeInstances").len(), 10);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    let tagged = client.describe_tags(&[Filter::new("key", ["mark"]), Filter::new("value", [&*mark])]).expect("it may look");
    assert!(ids.iter().all(|id| tagged.iter().any(|tag| tag.resource == *id)), "instances and disks are tagged: {}", tagged.len());
    let images = client.describe_images(&[], &[], &[]).expect("it may look");
    assert_eq!(images.len(), 9, "pages of two");
    cloud.order("POST", "/settings", r#"{"page": 0}"#);
    client.terminate_instances(&ids).expect("they are ours");
}

#[test]
fn what_one_did_is_seen_late_and_then_right() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("lag");
    let old = client.run_instances(&launch(&format!("{mark}-old"))).expect("it is allowed").remove(0).id;
    cloud.order("POST", "/settings", r#"{"lag": 1.5}"#);
    let id = client.run_instances(&launch(&mark)).expect("it is allowed").remove(0).id;
    assert_eq!(marked(&client, &mark), [], "too early");
    let unknown = client.describe_instances(std::slice::from_ref(&id), &[]).expect_err("too early");
    assert_eq!(unknown.code(), Some(&ErrorCode::InstanceNotFound));
    until(|| marked(&client, &mark).len() == 1);

    until(|| client.describe_instances(std::slice::from_ref(&old), &[]).is_ok());
    client.stop_instances(&[old.clone(), id.clone()]).expect("they run");
    let running = [Filter::tag("mark", &*mark), Filter::new("instance-state-name", ["running"])];
    assert_eq!(client.describe_instances(&[], &running).expect("it may look").len(), 1, "still seen running");
    until(|| marked(&client, &mark).first().is_some_and(|instance| instance.state == InstanceState::Stopped));
    assert_eq!(client.describe_instances(&[], &running).expect("it may look"), []);
}

/// The cloud's lag is real time: asks until it is over.
fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never comes");
        std::thread::yield_now();
    }
}

#[test]
fn nobody_there_is_said_within_the_patience() {
    let cloud = Cloud::take();
    let clock = TestClock::at(0);
    // Port 1 of a loopback address that nobody has: refused at once, every time.
    let client = cloud.builder(&clock).endpoint("http://127.39.255.254:1");
    let credentials = sigv4_ec2::Credentials::new("AKIAIOSFODNN7EXAMPLE", "secret", None);
    let client = client.credentials(credentials).build().expect("the settings are good");
    let error = client.run_instances(&launch("nobody")).expect_err("nobody is there");
    assert!(!error.is_ambiguous() && error.to_string().contains("http://127.39.255.254:1/"), "{error}");
    assert!(clock.slept() <= Client::PATIENCE && clock.slept() > Duration::from_secs(10), "{:?}", clock.slept());
}
