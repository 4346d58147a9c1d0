//! Who we are: the machine's role, asked of a strict metadata service.

use crate::setup::{Cloud, Shared, TestClock};
use sigv4_ec2::{Chain, Client, Credentials, CredentialsError, Environment, Imds, Source};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::{Duration, SystemTime};

fn environment(cloud: &Cloud, address: &str) -> Environment {
    let ec2 = cloud.said("AWS_ENDPOINT_URL_EC2");
    let pairs = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", address), ("AWS_ENDPOINT_URL_EC2", ec2), ("HOME", "/nonexistent")];
    Environment::from_iter(pairs)
}

#[test]
fn a_machine_acts_as_its_role() {
    let cloud = Cloud::take();
    let environment = environment(&cloud, cloud.said("AWS_EC2_METADATA_SERVICE_ENDPOINT"));
    // No keys anywhere: the chain ends at the role, whose session token is signed and sent.
    let client = Client::builder(cloud.said("AWS_REGION")).environment(environment.clone()).build().expect("the settings are good");
    client.describe_instances(&[], &[]).expect("the role may look");
    let seen = cloud.seen("DescribeInstances");
    assert!(seen[0]["key"].as_str().is_some_and(|key| key.starts_with("ASIA")), "{}", seen[0]["key"]);
    assert!(seen[0]["headers"]["x-amz-security-token"].is_string());
    client.describe_instances(&[], &[]).expect("the role may look");
    assert_eq!(cloud.seen("DescribeInstances")[1]["key"], seen[0]["key"], "credentials are kept");

    let imds = Imds::new(&environment, Arc::new(Shared(TestClock::at(0))));
    let region = imds.read("/latest/meta-data/placement/region").expect("it answers");
    assert_eq!(region.as_deref(), Some(cloud.said("AWS_REGION")));
    assert_eq!(imds.read("/latest/meta-data/nothing").expect("it answers"), None);
}

#[test]
fn the_metadata_service_is_as_strict_as_amazons() {
    let cloud = Cloud::take();
    let address = cloud.said("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let path = format!("{address}/latest/meta-data/placement/region");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let status = |answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>| answer.expect("it answers").status().as_u16();
    assert_eq!(status(agent.get(&path).call()), 401, "version 1");
    assert_eq!(status(agent.get(&path).header("x-aws-ec2-metadata-token", "guessed").call()), 401);
    let token = format!("{address}/latest/api/token");
    assert_eq!(status(agent.put(&token).send_empty()), 400, "no time to live");
    assert_eq!(status(agent.put(&token).header("x-aws-ec2-metadata-token-ttl-seconds", "21601").send_empty()), 400);
    let passed_on = agent.put(&token).header("x-aws-ec2-metadata-token-ttl-seconds", "60").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(status(passed_on.send_empty()), 403);
}

#[test]
fn away_from_ec2_it_is_said_where_was_looked() {
    let cloud = Cloud::take();
    let chain = Chain::new(environment(&cloud, "http://127.39.255.254:1"), None, Arc::new(Shared(TestClock::at(0))));
    let error = chain.credentials().expect_err("nobody is there").to_string();
    let expected = "found none in the environment (AWS_ACCESS_KEY_ID), nor in profile `default` of ~/.aws, nor in this machine's role";
    assert_eq!(error, expected);
}

/// Gives the same keys for a while each time, and counts.
#[derive(Debug)]
struct Short {
    credentials: Credentials,
    good_for: Duration,
    asked: Arc<AtomicUsize>,
}

impl Source for Short {
    fn credentials(&self) -> Result<Credentials, CredentialsError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.credentials.clone().until(SystemTime::now() + self.good_for))
    }
}

#[test]
fn credentials_are_renewed_before_they_end() {
    let cloud = Cloud::take();
    let credentials = Credentials::new(cloud.said("AWS_ACCESS_KEY_ID"), cloud.said("AWS_SECRET_ACCESS_KEY"), None);
    for (minutes, asked_for) in [(60, 1), (4, 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let source = Short { credentials: credentials.clone(), good_for: Duration::from_secs(minutes * 60), asked: Arc::clone(&asked) };
        let client = cloud.builder(&TestClock::at(0)).credentials(source).build().expect("the settings are good");
        for _ in 0..3 {
            client.describe_instances(&[], &[]).expect("they are good");
        }
        assert_eq!(asked.load(Ordering::SeqCst), asked_for, "{minutes} minutes");
    }
}
