//! The test cloud, as the conformance suite sees it.

use crate::running::Running;
use sigv4_ec2::{Client, Filter};

pub struct Cloud(Running);

impl Cloud {
    pub fn start() -> Cloud {
        Cloud(Running::start(&[]))
    }

    /// A client of one of [`Running::credentials`]' users.
    pub fn client(&self, user: &str) -> Client {
        self.client_at("AWS_ENDPOINT_URL_EC2", user)
    }

    fn client_at(&self, endpoint: &str, user: &str) -> Client {
        let client = Client::builder(self.0.said("AWS_REGION")).endpoint(self.0.said(endpoint));
        client.credentials(self.0.credentials(user)).build().expect("the cloud says good addresses")
    }

    /// `{"action": "RunInstances", "kind": "lose_reply", "times": 1}`
    pub fn fault(&self, order: &str) {
        self.0.order("POST", "/faults", order);
    }

    pub fn settings(&self, order: &str) {
        self.0.order("POST", "/settings", order);
    }

    /// What EC2 would bill, seen past the proxy's lag.
    pub fn billed(&self, cluster: &str) -> usize {
        let direct = self.client_at("CLOUD_MOTO", "ADMIN");
        let found = direct.describe_instances(&[], &[Filter::tag("disco:cluster-id", cluster)]).expect("moto answers");
        found.iter().filter(|instance| !instance.state.is_gone()).count()
    }
}
