//! Every operation, against moto: made, seen, changed, and nothing left.

use crate::setup::{Cloud, launch, name, tags};
use sigv4_ec2::{Architecture, ErrorCode, Filter, InstanceState, Market, Peer, PublicKey, RootDisk, Rule, RunInstances, UBUNTU_OWNER};

const ED25519: &str = include_str!("ed25519.pub");
const RSA: &str = include_str!("rsa.pub");

#[test]
fn a_machine_is_launched_as_it_was_asked_for() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("whole");
    let vpc = client.describe_vpcs(&[Filter::new("is-default", ["true"])]).expect("it may look").remove(0);
    let subnet = client.describe_subnets(&[Filter::new("vpc-id", [&*vpc.id])]).expect("it may look").remove(0);
    assert!(subnet.free > 0 && subnet.zone.starts_with(cloud.said("AWS_REGION")) && subnet.vpc == vpc.id, "{subnet:?}");
    let group = client.create_security_group(&mark, "of a test", Some(&vpc.id), &tags(&[])).expect("it is new");
    client.import_key_pair(&mark, &PublicKey::parse(ED25519).expect("it is a key"), &tags(&[])).expect("it is new");
    let launch = RunInstances {
        key_name: Some(mark.clone()),
        security_groups: vec![group.clone()],
        subnet: Some(subnet.id.clone()),
        user_data: "#cloud-config\n# ü & =\n".into(),
        tags: tags(&[("mark", &mark), ("Name", "n=1 & <ü>")]),
        root_disk: Some(RootDisk { device: "/dev/sda1".to_owned(), size_gib: Some(9), kind: "gp3".to_owned() }),
        ..launch(&mark)
    };
    let id = client.run_instances(&launch).expect("it is allowed").remove(0).id;
    let seen = client.describe_instances(std::slice::from_ref(&id), &[]).expect("it may look").remove(0);
    assert_eq!((seen.state.clone(), seen.instance_type.as_str()), (InstanceState::Running, "t4g.micro"));
    assert_eq!((seen.key_name.as_deref(), seen.security_groups.as_slice()), (Some(mark.as_str()), [group.clone()].as_slice()));
    assert_eq!(
        (seen.subnet.as_deref(), seen.vpc.as_deref(), seen.zone.as_deref()),
        (Some(&*subnet.id), Some(&*vpc.id), Some(&*subnet.zone))
    );
    assert_eq!((&seen.tags, seen.client_token.as_deref()), (&launch.tags, Some(mark.as_str())));
    assert!(seen.needs_metadata_token && seen.metadata_hops == Some(1) && !seen.is_spot, "{seen:?}");
    assert_eq!(seen.architecture.as_deref(), Some("arm64"));
    assert!(seen.private_address.is_some() && seen.launched.is_some());
    let disks = "import boto3,os,sys\ne=boto3.client('ec2')\nv=e.describe_volumes(Filters=[{'Name':'attachment.instance-id','Values':[sys.argv[1]]}])['Volumes'][0]\nprint(v['Encrypted'],v['Size'],v['VolumeType'],sorted((t['Key'],t['Value']) for t in v['Tags']))\n";
    let disk = cloud.python(disks, &[&id]);
    assert_eq!(disk.trim(), format!("True 9 gp3 [('Name', 'n=1 & <ü>'), ('mark', '{mark}')]"));

    let ids = [id.clone()];
    let status = client.describe_instance_status(&ids).expect("it may look").remove(0);
    assert_eq!((status.state, status.instance.as_str(), status.system.as_str()), (Some(InstanceState::Running), "ok", "ok"));
    assert!(client.console_output(&id).expect("it may look").is_some());
    assert_eq!(client.stop_instances(&ids).expect("it runs")[0].previous, InstanceState::Running);
    assert_eq!(client.describe_instances(&ids, &[]).expect("it may look")[0].state, InstanceState::Stopped);
    assert_eq!(client.start_instances(&ids).expect("it is stopped")[0].previous, InstanceState::Stopped);
    assert!(client.terminate_instances(&ids).expect("it is ours")[0].current.is_gone());
    assert!(client.terminate_instances(&ids).expect("twice is no error")[0].previous.is_gone());
    client.delete_security_group(&group).expect("nobody has it");
    client.delete_key_pair(&mark).expect("it is ours");
    client.delete_key_pair(&mark).expect("twice is no error");
}

#[test]
fn a_network_interface_is_written_when_the_public_address_is_decided() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("public");
    let vpc = client.describe_vpcs(&[]).expect("it may look").remove(0).id;
    let subnet = client.describe_subnets(&[Filter::new("vpc-id", [&*vpc])]).expect("it may look").remove(0).id;
    let group = client.create_security_group(&mark, "of a test", None, &tags(&[])).expect("it is new");
    let parts =
        RunInstances { security_groups: vec![group.clone()], subnet: Some(subnet.clone()), public_address: Some(true), ..launch(&mark) };
    let id = client.run_instances(&parts).expect("it is allowed").remove(0).id;
    let seen = client.describe_instances(std::slice::from_ref(&id), &[]).expect("it may look").remove(0);
    assert_eq!((seen.subnet, seen.security_groups), (Some(subnet), vec![group]));
    assert!(seen.public_address.is_some());
    client.terminate_instances(&[id]).expect("it is ours");
}

#[test]
fn a_spot_instance_is_one() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let spot = RunInstances { market: Market::Spot { price_max: Some("0.004".to_owned()) }, ..launch(&name("spot")) };
    let launched = client.run_instances(&spot).expect("it is allowed").remove(0);
    assert!(launched.is_spot, "{launched:?}");
    client.terminate_instances(&[launched.id]).expect("it is ours");
    let prices = client.spot_prices(&["t4g.micro".to_owned(), "t3.micro".to_owned()]).expect("it may look");
    assert!(prices.iter().any(|price| price.instance_type == "t4g.micro" && price.price.parse::<f64>().is_ok()), "{prices:?}");
    let mut places: Vec<_> = prices.iter().map(|price| (&price.instance_type, &price.zone)).collect();
    places.dedup();
    assert_eq!(places.len(), prices.len(), "one for each type and zone");
}

#[test]
fn the_newest_ubuntu_lts_is_canonicals_own_of_the_right_architecture() {
    let cloud = Cloud::take();
    let client = cloud.client();
    // The list has older ones, another release, a test image, and a newer one that somebody else published.
    for (architecture, id) in [(Architecture::Arm64, "ami-0a00000000000c602"), (Architecture::X86_64, "ami-0a00000000000c603")] {
        let image = client.newest_ubuntu_lts(&architecture).expect("it may look").expect("there is one");
        assert_eq!((image.id.as_str(), image.owner.as_str(), &image.architecture), (id, UBUNTU_OWNER, &architecture));
        assert_eq!((image.root_device.as_deref(), image.is_available), (Some("/dev/sda1"), true));
    }
    let noble = "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-arm64-server-*";
    let image = client.newest_image(UBUNTU_OWNER, noble, &Architecture::Arm64).expect("it may look").expect("there is one");
    assert_eq!(image.id, "ami-0a00000000000a611", "not the last one of the list");
    assert_eq!(client.newest_image(UBUNTU_OWNER, "nothing*", &Architecture::Arm64).expect("it may look"), None);
}

#[test]
fn a_key_pairs_fingerprint_is_the_one_we_compute() {
    let cloud = Cloud::take();
    let client = cloud.client();
    for line in [ED25519, RSA] {
        let (key, name) = (PublicKey::parse(line).expect("it is a key"), name("key"));
        let made = client.import_key_pair(&name, &key, &tags(&[("mark", &name)])).expect("it is new");
        assert!(key.has_fingerprint(&made.fingerprint), "{} is not {}", made.fingerprint, key.fingerprint());
        let found = client.describe_key_pairs(&[], &[Filter::tag("mark", &*name)]).expect("it may look");
        assert_eq!((found.len(), &found[0].name, &found[0].fingerprint), (1, &name, &made.fingerprint));
        let twice = client.import_key_pair(&name, &key, &tags(&[])).expect_err("the name is taken");
        assert!(twice.is_duplicate() && twice.code() == Some(&ErrorCode::KeyPairDuplicate));
        client.delete_key_pair(&name).expect("it is ours");
    }
}

#[test]
fn a_security_group_lets_in_what_it_was_told() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("group");
    let id = client.create_security_group(&mark, "of a test", None, &tags(&[("mark", &mark)])).expect("it is new");
    assert!(client.create_security_group(&mark, "again", None, &tags(&[])).expect_err("the name is taken").is_duplicate());
    let ssh = Rule::tcp(22, Peer::Ipv4("198.51.100.7/32".to_owned()));
    let inside = Rule::tcp(5080, Peer::Group(id.clone()));
    let six = Rule::tcp(5080, Peer::Ipv6("2001:db8::/64".to_owned()));
    // What people open by hand: ping, a port of another protocol, everything, a list with a name.
    let anybody = Peer::Ipv4("0.0.0.0/0".to_owned());
    let rule = |protocol: &str, ports, peer: &Peer| Rule { protocol: protocol.to_owned(), ports, peer: peer.clone() };
    let ping = rule("icmp", Some((8, -1)), &anybody);
    let strange = [ping, rule("udp", Some((22, 22)), &anybody), rule("-1", None, &anybody)];
    client.authorize_ingress(&id, &strange).expect("it is ours");
    let seen = || client.describe_security_groups(&[], &[Filter::tag("mark", &*mark)]).expect("it may look").remove(0);
    assert!(strange.iter().all(|rule| seen().ingress.contains(rule)), "{:?}", seen().ingress);
    client.revoke_ingress(&id, &strange).expect("they are there");
    assert_eq!(seen().ingress, []);

    let all = [ssh.clone(), inside.clone(), six.clone()];
    client.authorize_ingress(&id, &all).expect("it is ours");
    client.authorize_ingress(&id, &all).expect("twice is no error");
    let group = seen();
    assert_eq!((group.name.as_str(), group.ingress.len()), (mark.as_str(), 3), "{:?}", group.ingress);
    assert!(all.iter().all(|rule| group.ingress.contains(rule)), "{:?}", group.ingress);
    client.revoke_ingress(&id, std::slice::from_ref(&ssh)).expect("it is there");
    client.revoke_ingress(&id, &[ssh]).expect("twice is no error");
    assert_eq!(seen().ingress.len(), 2);
    client.delete_security_group(&id).expect("nobody has it");
    assert!(client.delete_security_group(&id).expect_err("it is gone").is_not_found());
}

#[test]
fn an_address_moves_from_one_machine_to_the_other() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("moves");
    let machines = client.run_instances(&RunInstances { count: 2, ..launch(&mark) }).expect("it is allowed");
    let address = client.allocate_address(&tags(&[("mark", &mark)])).expect("it is allowed");
    for machine in &machines {
        client.associate_address(&address.allocation, &machine.id).expect("it runs");
        let seen = client.describe_addresses(&[Filter::tag("mark", &*mark)]).expect("it may look").remove(0);
        assert_eq!((seen.instance.as_ref(), seen.public), (Some(&machine.id), address.public));
        let public = client.describe_instances(std::slice::from_ref(&machine.id), &[]).expect("it may look")[0].public_address;
        assert_eq!(public, Some(address.public));
    }
    let seen = client.describe_addresses(&[Filter::tag("mark", &*mark)]).expect("it may look").remove(0);
    let association = seen.association.expect("it belongs to the second");
    client.disassociate_address(&association).expect("it is ours");
    client.disassociate_address(&association).expect("twice is no error");
    client.release_address(&address.allocation).expect("it is free");
    client.terminate_instances(&machines.into_iter().map(|machine| machine.id).collect::<Vec<_>>()).expect("they are ours");
}

#[test]
fn tags_are_set_found_and_taken_away() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("tags");
    let id = client.run_instances(&launch(&mark)).expect("it is allowed").remove(0).id;
    client.create_tags(std::slice::from_ref(&id), &tags(&[("disco:cluster-id", &mark), ("Name", "a b+c")])).expect("it is ours");
    let found = client.describe_tags(&[Filter::new("resource-id", [&*id])]).expect("it may look");
    let mut found: Vec<_> = found.iter().map(|tag| (tag.kind.as_str(), tag.key.as_str(), tag.value.as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, [("instance", "Name", "a b+c"), ("instance", "disco:cluster-id", &mark), ("instance", "mark", &mark)]);
    client.delete_tags(std::slice::from_ref(&id), &["Name".to_owned()]).expect("it is ours");
    assert_eq!(client.describe_instances(std::slice::from_ref(&id), &[]).expect("it may look")[0].tags.len(), 2);
    client.terminate_instances(&[id]).expect("it is ours");
}

#[test]
fn a_type_says_what_it_is() {
    let cloud = Cloud::take();
    let found = cloud.client().describe_instance_types(&["t4g.micro".to_owned()]).expect("it may look").remove(0);
    assert_eq!((found.name.as_str(), found.cpus, found.memory_mib), ("t4g.micro", 2, 1024));
    assert_eq!((found.architectures.as_slice(), found.has_spot), ([Architecture::Arm64].as_slice(), true));
}

#[test]
fn a_role_reaches_a_machine_through_a_profile_and_nothing_is_left() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("disco-role");
    assert_eq!(client.role(&mark).expect("it may look"), None);
    let role = client.create_role(&mark, &tags(&[("mark", &mark)])).expect("it is new");
    assert!(client.create_role(&mark, &tags(&[])).expect_err("the name is taken").is_duplicate());
    assert!(role.arn.ends_with(&format!(":role/{mark}")), "{role:?}");
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}"#;
    client.put_role_policy(&mark, "look", policy).expect("it is ours");
    assert_eq!(client.role_policies(&mark).expect("it may look"), ["look"]);
    client.create_instance_profile(&mark, &tags(&[])).expect("it is new");
    client.add_role_to_instance_profile(&mark, &mark).expect("both are ours");
    let profile = client.instance_profile(&mark).expect("it may look").expect("it is there");
    assert_eq!(profile.roles, [&*mark]);
    let with_role = RunInstances { instance_profile: Some(mark.clone()), ..launch(&mark) };
    let id = client.run_instances(&with_role).expect("it is allowed").remove(0).id;
    let seen = client.describe_instances(std::slice::from_ref(&id), &[]).expect("it may look").remove(0);
    assert_eq!(seen.instance_profile.as_ref(), Some(&profile.arn));
    client.terminate_instances(&[id]).expect("it is ours");

    assert_eq!(client.delete_role(&mark).expect_err("it has a policy").code(), Some(&ErrorCode::DeleteConflict));
    client.remove_role_from_instance_profile(&mark, &mark).expect("it is there");
    client.delete_instance_profile(&mark).expect("it is empty");
    client.delete_role_policy(&mark, "look").expect("it is there");
    client.delete_role(&mark).expect("it is bare");
    // Twice is no error, so that undoing can be repeated.
    client.delete_instance_profile(&mark).expect("it is gone");
    client.delete_role_policy(&mark, "look").expect("it is gone");
    client.delete_role(&mark).expect("it is gone");
    assert_eq!((client.role(&mark).expect("it may look"), client.instance_profile(&mark).expect("it may look")), (None, None));
}
