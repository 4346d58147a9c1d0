//! EC2, as far as the test cloud is one: what all providers promise, and what only this one does.

use crate::{
    cloud::Cloud,
    conformance::{self, Stage},
};
use agent::{
    drivers::{
        pki::Authority,
        provider::{
            AwsProvider, First, Provider,
            aws::{parameter, site::Wish, tags},
        },
    },
    model::{
        ids::{ClusterId, OperationId},
        instance::parameter::{SEEDS, SPOT},
        query::LaunchRequest,
    },
};
use sigv4_ec2::{Filter, Peer, Rule};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// A cluster of its own in a cloud that others use, too.
struct There<'a> {
    cloud: &'a Cloud,
    cluster: ClusterId,
    parameters: BTreeMap<String, String>,
    ca: Vec<u8>,
}

impl<'a> There<'a> {
    fn new(cloud: &'a Cloud) -> There<'a> {
        static NEXT: AtomicU64 = AtomicU64::new(0xa0000000_00000001);
        let cluster = ClusterId(NEXT.fetch_add(1 << 32, Ordering::Relaxed));
        let ca = Authority::create(cluster, 1_700_000_000_000).certificate().to_vec();
        let mut there = There { cloud, cluster, parameters: BTreeMap::new(), ca };
        let provider = there.aws();
        there.parameters = provider.resolve(&Wish::default()).expect("there is an image");
        there.parameters.insert(parameter::GROUP.into(), provider.ensure_group().expect("it is made"));
        there.parameters.insert(parameter::PROGRAM_ARM64.into(), "0".repeat(64));
        there.parameters.insert(SEEDS.into(), "10.0.0.1:5080".into());
        there
    }

    fn aws(&self) -> AwsProvider {
        AwsProvider::with_client(self.cloud.client("AWS"), self.cluster, "demo".into())
    }
}

impl Stage for There<'_> {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(self.aws())
    }

    fn request(&self, ordinal: u32) -> LaunchRequest {
        LaunchRequest {
            operation: OperationId { cluster: self.cluster, epoch: 0, index: u64::from(ordinal) * 10 },
            ordinal,
            cluster_name: "demo".into(),
            ca: self.ca.clone(),
            token: "DISCO1-digest-secret".into(),
            seeds: vec![],
            parameters: self.parameters.clone(),
        }
    }

    fn first(&self) -> First {
        First { parameters: self.parameters.clone(), user_data: "#cloud-config\n".into() }
    }

    fn billed(&self) -> usize {
        self.cloud.billed(&self.cluster.to_string())
    }

    fn lose_next_answer(&self) {
        self.cloud.fault(r#"{"action": "RunInstances", "kind": "lose_reply", "times": 1}"#);
    }
}

#[test]
fn it_keeps_what_every_provider_promises() {
    let cloud = Cloud::start();
    conformance::hold_to_it(|| There::new(&cloud));
}

#[test]
fn a_cloud_that_shows_late_what_was_done_gets_no_second_launch() {
    let cloud = Cloud::start();
    let stage = There::new(&cloud);
    cloud.settings(r#"{"lag": 2.0, "page": 1}"#);
    conformance::an_answer_that_was_lost_is_asked_for_again(&stage);
    conformance::launches_at_once_are_one_instance(&stage);
}

#[test]
fn what_is_launched_is_what_was_asked_for_and_no_less_safe() {
    let cloud = Cloud::start();
    let there = There::new(&cloud);
    there.aws().launch(&there.request(2)).expect("it launches");
    let filter = Filter::tag(tags::CLUSTER, there.cluster.to_string());
    let found = cloud.client("AWS").describe_instances(&[], &[filter]).expect("EC2 answers");
    let [instance] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((instance.instance_type.as_str(), instance.architecture.as_deref()), ("t4g.micro", Some("arm64")));
    assert_eq!(instance.image, there.parameters[parameter::IMAGE]);
    assert!(instance.needs_metadata_token && instance.metadata_hops == Some(1), "{instance:?}");
    assert_eq!(instance.security_groups, [there.parameters[parameter::GROUP].clone()]);
    assert_eq!(tags::operation_of(&instance.tags), Some(there.request(2).operation));
    assert_eq!((tags::ordinal_of(&instance.tags), instance.tags[tags::NAME].as_str()), (Some(2), "demo n2"));
}

#[test]
fn a_launch_refused_for_what_it_asks_is_over_and_one_without_an_answer_is_not() {
    let cloud = Cloud::start();
    let there = There::new(&cloud);
    let mut request = there.request(2);
    request.parameters.insert(parameter::IMAGE.into(), "ami-00000000000000000".into());
    let refused = there.aws().launch(&request).expect_err("there is no such image");
    assert!(refused.is_final(), "{refused:?}");
    let nobody = AwsProvider::with_client(cloud.client("NOBODY"), there.cluster, "demo".into());
    let denied = nobody.launch(&there.request(3)).expect_err("it may not");
    assert!(!denied.is_final(), "the next key may: {denied:?}");
    assert_eq!(there.billed(), 0);
}

#[test]
fn site_and_all_is_made_once_drift_is_seen_and_repaired_and_nothing_is_left_at_the_end() {
    let cloud = Cloud::start();
    let there = There::new(&cloud);
    let aws = there.aws();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me";
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIQdH8mGVwO3Zk5Nq6H6pIV9YrrXl1Vy8hRPo4QC5cXw me";
    let group = there.parameters[parameter::GROUP].clone();
    for _ in 0..2 {
        assert_eq!(aws.ensure_group().expect("it is there"), group);
        aws.ensure_key_pair(key).expect("it is imported");
        aws.ensure_profile().expect("it is made");
    }
    let refused = aws.ensure_key_pair(other).expect_err("another key has the name");
    assert!(refused.to_string().contains("fingerprint"), "{refused}");
    let address = aws.ensure_address().expect("it is got");
    assert_eq!(aws.ensure_address().expect("it is there"), address);

    let mut first = there.first();
    first.parameters.insert(SPOT.into(), "false".into());
    first.parameters.insert(parameter::KEY_NAME.into(), aws.name());
    let launched = aws.launch_first(&first).expect("it launches");
    aws.attach(&launched.id, &address.allocation).expect("it is moved");
    aws.attach(&launched.id, &address.allocation).expect("it is there");
    aws.open_port(&group, &["203.0.113.7/32".into()]).expect("it opens");
    let parameters = there.parameters.clone();
    assert_eq!(aws.drift(&parameters).expect("EC2 answers"), []);

    aws.open_ssh(&group, &["203.0.113.7/32".into()]).expect("it opens");
    let anybody = |protocol: &str, ports| Rule { protocol: protocol.into(), ports: Some(ports), peer: Peer::Ipv4("0.0.0.0/0".into()) };
    let others = [anybody("udp", (5080, 5080)), anybody("icmp", (8, -1))];
    aws.client().authorize_ingress(&group, &others).expect("it opens");
    cloud.client("ADMIN").delete_tags(std::slice::from_ref(&launched.id), &[tags::NAME.into()]).expect("it may");
    let mut drifted: Vec<String> = aws.drift(&parameters).expect("EC2 answers").into_iter().map(|d| d.detail).collect();
    drifted.sort();
    assert_eq!(drifted, ["has lost its name", "lets in what is no node's", "lets in what is no node's", "lets port 22 be reached"]);
    assert_eq!(agent::drivers::provider::aws::site::repair(&aws, &parameters).expect("EC2 answers").len(), 4);
    assert_eq!(aws.drift(&parameters).expect("EC2 answers"), []);

    let mut told = Vec::new();
    let done = (0..100).any(|_| aws.raze(false, &mut |line| told.push(line)).expect("EC2 answers"));
    assert!(done && aws.sees_anything().expect("EC2 answers"), "{told:?}");
    let ended = aws.why_ended(&launched.id).expect("EC2 answers").expect("it was ended");
    assert!(ended.starts_with("Client.UserInitiatedShutdown"), "{ended}");
    assert!(aws.remove_groups(&mut |line| told.push(line)).expect("EC2 answers"), "{told:?}");
    let client = cloud.client("AWS");
    let ours = [Filter::tag(tags::CLUSTER, there.cluster.to_string())];
    assert!(client.describe_addresses(&ours).expect("EC2 answers").is_empty());
    assert!(client.describe_security_groups(&[], &ours).expect("EC2 answers").is_empty());
    assert!(client.describe_key_pairs(&[], &ours).expect("EC2 answers").is_empty());
    assert!(
        client.role(&aws.name()).expect("IAM answers").is_none() && client.instance_profile(&aws.name()).expect("IAM answers").is_none()
    );
    assert_eq!(there.billed(), 0);
}

#[test]
fn a_role_is_made_once_although_each_answer_is_lost() {
    let cloud = Cloud::start();
    let there = There::new(&cloud);
    let aws = there.aws();
    for action in ["CreateRole", "PutRolePolicy", "CreateInstanceProfile", "AddRoleToInstanceProfile"] {
        cloud.fault(&format!(r#"{{"action": "{action}", "kind": "lose_reply", "times": 1}}"#));
    }
    let name = aws.ensure_profile().expect("it is made");
    let profile = aws.client().instance_profile(&name).expect("IAM answers").expect("it is there");
    assert_eq!(profile.roles, [name]);
}

#[test]
fn who_names_a_role_needs_no_permission_to_look_at_roles() {
    let cloud = Cloud::start();
    let there = There::new(&cloud);
    there.aws().ensure_address().expect("it is got");
    let passes = AwsProvider::with_client(cloud.client("PASSER"), there.cluster, "demo".into());
    let refused = passes.raze(false, &mut |_| {}).expect_err("it may not look at roles");
    assert!(refused.to_string().contains("role"), "{refused}");
    assert!((0..100).any(|_| passes.raze(true, &mut |_| {}).expect("EC2 answers")));
    assert!(passes.sees_anything().expect("EC2 answers") && passes.remove_groups(&mut |_| {}).expect("EC2 answers"));
    assert!(!passes.sees_anything().expect("EC2 answers"), "as in another account");
    let ours = [Filter::tag(tags::CLUSTER, there.cluster.to_string())];
    assert!(cloud.client("AWS").describe_security_groups(&[], &ours).expect("EC2 answers").is_empty());
}
