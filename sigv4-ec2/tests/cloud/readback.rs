//! boto3, Amazon's own client, as the witness: it sees what we made, and signs what we signed.

use crate::setup::{Cloud, TestClock, launch, name, tags};
use sigv4_ec2::{Credentials, Peer, Rule, RunInstances};

const SEE: &str = r#"
import base64, boto3, json, sys
ec2, mark = boto3.client("ec2"), sys.argv[1]
tagged = [{"Name": "tag:mark", "Values": [mark]}]
[reservation] = ec2.describe_instances(Filters=tagged)["Reservations"]
[instance] = reservation["Instances"]
[group] = ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
data = ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")["UserData"]["Value"]
print(json.dumps({
    "id": instance["InstanceId"], "image": instance["ImageId"], "type": instance["InstanceType"],
    "metadata": [instance["MetadataOptions"]["HttpTokens"], instance["MetadataOptions"]["HttpPutResponseHopLimit"]],
    "groups": [each["GroupId"] for each in instance["SecurityGroups"]],
    "user_data": base64.b64decode(data).decode(),
    "tags": {each["Key"]: each["Value"] for each in instance["Tags"]},
    "rules": [[each["IpProtocol"], each["FromPort"], each["ToPort"], [r["CidrIp"] for r in each["IpRanges"]]] for each in group["IpPermissions"]],
}))
"#;

#[test]
fn boto3_sees_what_we_made() {
    let cloud = Cloud::take();
    let client = cloud.client();
    let mark = name("seen");
    let tags = tags(&[("mark", &mark), ("disco:operation", "a/1+2 ü")]);
    let group = client.create_security_group(&mark, "of a test", None, &tags).expect("it is new");
    client.authorize_ingress(&group, &[Rule::tcp(5080, Peer::Ipv4("203.0.113.0/24".to_owned()))]).expect("it is ours");
    let launch = RunInstances {
        security_groups: vec![group.clone()],
        user_data: "#!/bin/sh\necho 'ü&='\n".into(),
        tags: tags.clone(),
        ..launch(&mark)
    };
    let id = client.run_instances(&launch).expect("it is allowed").remove(0).id;
    let seen: serde_json::Value = serde_json::from_str(&cloud.python(SEE, &[&mark])).expect("it prints JSON");
    let expected = serde_json::json!({
        "id": id, "image": "ami-0a00000000000c602", "type": "t4g.micro", "metadata": ["required", 1], "groups": [group],
        "user_data": "#!/bin/sh\necho 'ü&='\n", "tags": tags, "rules": [["tcp", 5080, 5080, ["203.0.113.0/24"]]],
    });
    assert_eq!(seen, expected);
    client.terminate_instances(&[id]).expect("it is ours");
}

/// Signs the same form, to the same address, at the same moment, with botocore.
const SIGN: &str = r#"
import json, sys
from datetime import datetime, timezone
from unittest import mock
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
entry, secret, token = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3] or None
headers = entry["headers"]
credential = headers["authorization"].split("Credential=")[1].split(",")[0].split("/")
at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
request = AWSRequest(method="POST", url="http://" + headers["host"] + entry["path"], data=entry["form"].encode(), headers={"Content-Type": headers["content-type"]})
with mock.patch("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: at.replace(tzinfo=None if remove_tzinfo else timezone.utc)):
    botocore.auth.SigV4Auth(Credentials(credential[0], secret, token), credential[3], credential[2]).add_auth(request)
print(request.headers["Authorization"])
"#;

#[test]
fn boto3_signs_the_same_request_with_the_same_bytes() {
    let cloud = Cloud::take();
    let (key, secret) = (cloud.said("AWS_ACCESS_KEY_ID"), cloud.said("AWS_SECRET_ACCESS_KEY"));
    // moto refuses an invented session token, but what it was sent is what counts here.
    for token in ["", "a/session+token=="] {
        cloud.order("DELETE", "/log", "");
        let credentials = Credentials::new(key, secret, Some(token.to_owned()).filter(|token| !token.is_empty()));
        let client = cloud.builder(&TestClock::at(0)).credentials(credentials).build().expect("the settings are good");
        let mark = name("signed");
        let launched = client.run_instances(&RunInstances { user_data: "ü & = ~ * +".into(), ..launch(&mark) });
        assert_eq!(launched.is_ok(), token.is_empty());
        let entry = cloud.seen("RunInstances").remove(0);
        let theirs = cloud.python(SIGN, &[&entry.to_string(), secret, token]);
        assert_eq!(entry["headers"]["authorization"].as_str(), Some(theirs.trim()));
        let role = client.role("disco-none");
        assert_eq!(role.is_ok(), token.is_empty());
        let entry = cloud.seen("GetRole").remove(0);
        let theirs = cloud.python(SIGN, &[&entry.to_string(), secret, token]);
        assert_eq!(entry["headers"]["authorization"].as_str(), Some(theirs.trim()), "IAM");
    }
}

#[test]
fn the_example_does_what_its_first_lines_say() {
    let cloud = Cloud::take();
    let mark = name("example");
    let program = std::env::current_exe().expect("it is this one").with_file_name("../examples/ec2");
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(words).env_clear().envs(&cloud.running.said);
        command.env("AWS_ACCESS_KEY_ID", cloud.said("ADMIN_ACCESS_KEY_ID"));
        command.env("AWS_SECRET_ACCESS_KEY", cloud.said("ADMIN_SECRET_ACCESS_KEY"));
        let output = command.output().unwrap_or_else(|error| panic!("build it first (cargo build --example ec2): {error}"));
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    };
    let image = run(&["image", "arm64"]);
    let image = image.split(' ').next().expect("an id");
    assert_eq!(image, "ami-0a00000000000c602");
    let tag = format!("Name={mark}");
    let id = run(&["launch", image, "t4g.micro", &mark, &tag]).split(' ').next().expect("an id").to_owned();
    assert!(run(&["ls", &tag]).starts_with(&format!("{id} running t4g.micro")));
    assert!(run(&["price", "t4g.micro"]).contains("USD/h"));
    assert_eq!(run(&["terminate", &id]), format!("{id} running -> shutting-down\n"));
}
