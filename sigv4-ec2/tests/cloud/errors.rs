//! Refusals: told apart, named, and without our secrets.

use crate::setup::{Cloud, TestClock, launch, name};
use sigv4_ec2::{Credentials, ErrorCode, Filter, PublicKey, RunInstances};

#[test]
fn a_wrong_secret_is_refused_and_not_shown() {
    let cloud = Cloud::take();
    let wrong = Credentials::new(cloud.said("AWS_ACCESS_KEY_ID"), "not-the-secret", None);
    let client = cloud.builder(&TestClock::at(0)).credentials(wrong).build().expect("the settings are good");
    let error = client.describe_instances(&[], &[]).expect_err("the secret is wrong");
    assert_eq!(error.code(), Some(&ErrorCode::AuthFailure), "{error}");
    assert!(error.code().is_some_and(ErrorCode::is_denied));
    for shown in [format!("{error}"), format!("{error:?}"), format!("{client:?}")] {
        assert!(!shown.contains("not-the-secret"), "{shown}");
    }
    assert_eq!(cloud.seen("DescribeInstances").len(), 1, "a refusal is final");
}

#[test]
fn an_unknown_key_is_refused() {
    let cloud = Cloud::take();
    let unknown = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None);
    let client = cloud.builder(&TestClock::at(0)).credentials(unknown).build().expect("the settings are good");
    assert_eq!(client.describe_instances(&[], &[]).expect_err("nobody knows it").code(), Some(&ErrorCode::AuthFailure));
}

#[test]
fn a_missing_permission_is_named_by_its_action() {
    let cloud = Cloud::take();
    let nobody = cloud.client_of("NOBODY", &TestClock::at(0));
    let mark = name("denied");
    let error = nobody.run_instances(&launch(&mark)).expect_err("it may do nothing");
    assert_eq!(error.code(), Some(&ErrorCode::UnauthorizedOperation));
    assert!(error.to_string().starts_with("RunInstances was refused: UnauthorizedOperation"), "{error}");
    assert!(!error.is_ambiguous());
}

#[test]
fn what_does_not_exist_is_told_apart() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let launch = |image: &str, kind: &str| RunInstances::new(image, kind, name("wrong"));
    let key = RunInstances { key_name: Some("nobody's".to_owned()), ..launch("ami-0a00000000000c602", "t4g.micro") };
    let table = [
        (client.run_instances(&launch("ami-0123456789abcdef0", "t4g.micro")).err(), ErrorCode::ImageNotFound),
        (client.run_instances(&launch("ami-0a00000000000c602", "zz.huge")).err(), ErrorCode::InvalidParameterValue),
        (client.run_instances(&key).err(), ErrorCode::KeyPairNotFound),
        (client.terminate_instances(&["i-0123456789abcdef0".to_owned()]).err(), ErrorCode::InstanceNotFound),
        (client.terminate_instances(&["garbage".to_owned()]).err(), ErrorCode::InstanceMalformed),
        (client.describe_security_groups(&["sg-0123456789abcdef0".to_owned()], &[]).err(), ErrorCode::GroupNotFound),
        (client.describe_key_pairs(&["nobody's".to_owned()], &[]).err(), ErrorCode::KeyPairNotFound),
    ];
    for (error, code) in table {
        let error = error.expect("it does not exist");
        assert_eq!(error.code(), Some(&code), "{error}");
    }
    assert_eq!(client.describe_instances(&[], &[Filter::tag("mark", "none")]).expect("it may look"), []);
}

#[test]
fn a_dry_run_launches_nothing_and_says_whether_it_would() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("dry");
    assert!(client.dry_run().run_instances(&launch(&mark)).expect_err("it is dry").is_dry_run_passed());
    assert_eq!(client.describe_instances(&[], &[Filter::tag("mark", &*mark)]).expect("it may look"), []);
    let refused = cloud.client_of("NOBODY", &TestClock::at(0)).dry_run().run_instances(&launch(&mark)).expect_err("it may not");
    assert!(!refused.is_dry_run_passed(), "{refused}");
}

#[test]
fn what_ec2_would_refuse_is_not_sent() {
    let cloud = Cloud::take();
    let client = cloud.client();
    assert!(client.terminate_instances(&[]).is_err());
    assert!(client.run_instances(&RunInstances { user_data: vec![0; 17 << 10], ..launch("big") }).is_err());
    assert!(PublicKey::parse("ssh-dss AAAA").is_err());
    assert_eq!(cloud.seen("TerminateInstances").len() + cloud.seen("RunInstances").len(), 0);
}
