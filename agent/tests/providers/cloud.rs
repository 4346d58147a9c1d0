//! The test cloud of `scripts/cloud`: moto behind a proxy that is slow, forgetful and busy on demand.

use sigv4_ec2::{Client, Credentials, Filter};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

const UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cloud/up");

/// Ends with its standard input, and so with us.
pub struct Cloud {
    child: Child,
    input: Option<ChildStdin>,
    said: BTreeMap<String, String>,
}

impl Cloud {
    pub fn start() -> Cloud {
        let mut child =
            Command::new(UP).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("scripts/cloud/up needs python3 and its packages");
        let mut said = BTreeMap::new();
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
            let line = line.expect("it prints text");
            match line.split_once('=') {
                Some((name, value)) => said.insert(name.to_owned(), value.to_owned()),
                None => break,
            };
        }
        let input = child.stdin.take();
        assert!(said.contains_key("AWS_ENDPOINT_URL_EC2"), "the test cloud does not start: {said:?}");
        Cloud { child, input, said }
    }

    pub fn said(&self, name: &str) -> &str {
        &self.said[name]
    }

    pub fn client(&self, prefix: &str) -> Client {
        let key = |part: &str| self.said(&format!("{prefix}{part}")).to_owned();
        let credentials = Credentials::new(key("ACCESS_KEY_ID"), key("SECRET_ACCESS_KEY"), None);
        let client = Client::builder(self.said("AWS_REGION")).endpoint(self.said("AWS_ENDPOINT_URL_EC2")).credentials(credentials);
        client.build().expect("the cloud says good addresses")
    }

    /// `{"action": "RunInstances", "kind": "lose_reply", "times": 1}`
    pub fn fault(&self, order: &str) {
        self.order("faults", order);
    }

    pub fn settings(&self, order: &str) {
        self.order("settings", order);
    }

    fn order(&self, path: &str, order: &str) {
        let url = format!("{}/{path}", self.said("CLOUD_ORDERS"));
        ureq::post(&url).send(order).expect("the cloud takes orders");
    }

    /// What EC2 would bill, seen past the proxy's lag.
    pub fn billed(&self, cluster: &str) -> usize {
        let direct = Client::builder(self.said("AWS_REGION")).endpoint(self.said("CLOUD_MOTO"));
        let credentials = Credentials::new(self.said("ADMIN_ACCESS_KEY_ID"), self.said("ADMIN_SECRET_ACCESS_KEY"), None);
        let direct = direct.credentials(credentials).build().expect("the cloud says good addresses");
        let found = direct.describe_instances(&[], &[Filter::tag("disco:cluster-id", cluster)]).expect("moto answers");
        found.iter().filter(|instance| !instance.state.is_gone()).count()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
