//! The `aws` provider: an instance is a machine of EC2, known by its tags.
//!
//! A launch is one RunInstances under the operation as client token: repeated, EC2 answers with the same instance. Before
//! that it is looked for by its tag, so that an operation that ended is not begun again. Only tags of our own namespace are
//! believed; what bears none of them is never touched. Secrets come from where Amazon's own tools look, never from the
//! configuration.

mod fault;
mod launch;
pub mod site;
pub mod tags;
mod user_data;

pub use user_data::{section, user_data};

use super::{Capabilities, Drift, First, Launched, Provider, ProviderError, first_operation};
use crate::model::{
    ids::{ClusterId, OperationId},
    instance::{InstanceSeen, InstanceState},
    node::PORT,
    query::LaunchRequest,
};
use fault::cloud;
use sigv4_ec2::{Client, Filter, Instance, InstanceState as Ec2State};
use std::collections::BTreeMap;

/// Names of the parameters of a launch, beside those that `model` knows.
pub mod parameter {
    pub const REGION: &str = "region";
    /// Whom to ask instead of Amazon, for those who test.
    pub const ENDPOINT: &str = "endpoint";
    pub const IMAGE: &str = "image";
    /// `arm64` or `x86_64`.
    pub const ARCHITECTURE: &str = "architecture";
    pub const INSTANCE_TYPE: &str = "instance_type";
    /// `/dev/sda1`
    pub const ROOT_DEVICE: &str = "root_device";
    /// Of the root disk, GiB; none: as large as the image.
    pub const DISK: &str = "disk_gib";
    /// Sets a second launch for the same decision apart, after the first was refused for good.
    pub const ATTEMPT: &str = "attempt";
    /// Who may log in to machines of this image.
    pub const USER: &str = "user";
    pub const KEY_NAME: &str = "key_name";
    pub const GROUP: &str = "security_group";
    pub const SUBNET: &str = "subnet";
    /// Instance profile: what lets the node that leads launch others.
    pub const PROFILE: &str = "instance_profile";
    /// SHA-256 of the program, by what `uname -m` says.
    pub const PROGRAM_ARM64: &str = "discod.aarch64";
    pub const PROGRAM_X86_64: &str = "discod.x86_64";
}

/// Makes, starts and ends the instances of one cluster in one region. All calls block.
#[derive(Debug, Clone)]
pub struct AwsProvider {
    client: Client,
    endpoint: Option<String>,
    cluster: ClusterId,
    cluster_name: String,
}

/// Whom to ask, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsConfig {
    pub region: String,
    /// Instead of Amazon's.
    pub endpoint: Option<String>,
    /// Of `~/.aws`; none: `AWS_PROFILE`, or `default`.
    pub profile: Option<String>,
}

impl AwsProvider {
    /// Asks nobody yet, but for where credentials come from.
    ///
    /// # Errors
    /// The region or the endpoint is none.
    pub fn new(config: &AwsConfig, cluster: ClusterId, cluster_name: String) -> Result<AwsProvider, ProviderError> {
        let client = fault::client(config).map_err(|source| cloud("use AWS", source))?;
        Ok(AwsProvider { client, endpoint: config.endpoint.clone(), cluster, cluster_name })
    }

    /// The same with a client that somebody made.
    pub fn with_client(client: Client, cluster: ClusterId, cluster_name: String) -> AwsProvider {
        AwsProvider { endpoint: Some(client.endpoint().to_owned()), client, cluster, cluster_name }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    fn ours(&self) -> Filter {
        Filter::tag(tags::CLUSTER, self.cluster.to_string())
    }

    /// The instance of an operation, if it can be seen: a living one before an ended one.
    fn find(&self, operation: OperationId) -> Result<Option<Instance>, ProviderError> {
        let filters = [self.ours(), Filter::tag(tags::OPERATION, operation.to_string())];
        let found = self.client.describe_instances(&[], &filters).map_err(|e| cloud("look for an instance", e))?;
        Ok(found.into_iter().min_by_key(|instance| instance.state.is_gone()))
    }

    fn run(
        &self,
        operation: OperationId,
        ordinal: u32,
        parameters: &BTreeMap<String, String>,
        user_data: String,
    ) -> Result<Launched, ProviderError> {
        if let Some(found) = self.find(operation)? {
            return launched(operation, &found);
        }
        let request = launch::request(operation, ordinal, &self.cluster_name, parameters, user_data)?;
        match self.client.run_instances(&request) {
            Ok(made) => match made.first() {
                Some(instance) => launched(operation, instance),
                None => Err(ProviderError::Answer { what: "EC2 launched nothing and gave no reason".into() }),
            },
            // The token was used with other parameters: the instance is there, only not seen yet.
            Err(error) if error.code() == Some(&sigv4_ec2::ErrorCode::IdempotentParameterMismatch) => match self.find(operation)? {
                Some(found) => launched(operation, &found),
                None => Err(cloud("launch an instance", error)),
            },
            Err(source) => Err(fault::launch(source)),
        }
    }

    /// Why an instance of ours ended, in EC2's words; none: it has not, or is not to be seen.
    ///
    /// # Errors
    /// EC2's.
    pub fn why_ended(&self, id: &str) -> Result<Option<String>, ProviderError> {
        match self.one(id) {
            Ok(found) if found.state.is_gone() => Ok(Some(found.state_reason.unwrap_or_else(|| "EC2 does not say why".into()))),
            Ok(_) | Err(ProviderError::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn one(&self, id: &str) -> Result<Instance, ProviderError> {
        if !id.starts_with("i-") {
            return Err(ProviderError::BadName { id: id.into() });
        }
        let found = match self.client.describe_instances(&[id.to_owned()], &[]) {
            Ok(found) => found,
            Err(error) if fault::is_unknown_instance(&error) => return Err(ProviderError::Unknown { id: id.into() }),
            Err(source) => return Err(cloud("look for an instance", source)),
        };
        let instance = found.into_iter().next().ok_or_else(|| ProviderError::Unknown { id: id.into() })?;
        // Somebody else's machine is nothing that we know.
        match tags::cluster_of(&instance.tags) {
            Some(cluster) if cluster == self.cluster => Ok(instance),
            _ => Err(ProviderError::Unknown { id: id.into() }),
        }
    }
}

fn launched(operation: OperationId, instance: &Instance) -> Result<Launched, ProviderError> {
    if instance.state.is_gone() {
        return Err(ProviderError::Terminated { operation: operation.to_string() });
    }
    Ok(Launched { operation, id: instance.id.clone(), address: address(instance.private_address) })
}

fn address(ip: Option<std::net::Ipv4Addr>) -> String {
    ip.map(|ip| format!("{ip}:{PORT}")).unwrap_or_default()
}

fn state(state: &Ec2State) -> InstanceState {
    match state {
        Ec2State::Running => InstanceState::Running,
        Ec2State::Stopping => InstanceState::Stopping,
        Ec2State::Stopped => InstanceState::Stopped,
        // It never comes back.
        Ec2State::ShuttingDown | Ec2State::Terminated => InstanceState::Terminated,
        _ => InstanceState::Pending,
    }
}

impl Provider for AwsProvider {
    fn kind(&self) -> &'static str {
        "aws"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { launches: true, stops: true, attaches: true }
    }

    fn launch_first(&self, first: &First) -> Result<Launched, ProviderError> {
        self.run(first_operation(self.cluster), 1, &first.parameters, first.user_data.clone())
    }

    fn launch(&self, request: &LaunchRequest) -> Result<Launched, ProviderError> {
        let script = user_data(self.cluster, request)?;
        self.run(request.operation, request.ordinal, &request.parameters, script)
    }

    fn describe(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let found = self.client.describe_instances(&[], &[self.ours()]).map_err(|e| cloud("list the instances", e))?;
        let mut seen: Vec<(Option<u32>, InstanceSeen)> = found
            .into_iter()
            .map(|instance| {
                let ordinal = tags::ordinal_of(&instance.tags);
                let seen = InstanceSeen {
                    operation: tags::operation_of(&instance.tags),
                    address: address(instance.private_address),
                    public_address: address(instance.public_address),
                    state: state(&instance.state),
                    id: instance.id,
                };
                (ordinal, seen)
            })
            .collect();
        seen.sort_by(|(a, x), (b, y)| (a, &x.id).cmp(&(b, &y.id)));
        Ok(seen.into_iter().map(|(_, seen)| seen).collect())
    }

    fn start(&self, id: &str) -> Result<(), ProviderError> {
        let instance = self.one(id)?;
        match instance.state {
            Ec2State::Running | Ec2State::Pending => Ok(()),
            Ec2State::ShuttingDown | Ec2State::Terminated => {
                let operation = tags::operation_of(&instance.tags).map(|operation| operation.to_string());
                Err(ProviderError::Terminated { operation: operation.unwrap_or_else(|| id.to_owned()) })
            }
            _ => self.client.start_instances(&[id.to_owned()]).map(drop).map_err(|e| cloud("start an instance", e)),
        }
    }

    fn stop(&self, id: &str) -> Result<(), ProviderError> {
        match self.one(id)?.state {
            Ec2State::Stopped | Ec2State::Stopping => Ok(()),
            _ => self.client.stop_instances(&[id.to_owned()]).map(drop).map_err(|e| cloud("stop an instance", e)),
        }
    }

    fn terminate(&self, id: &str) -> Result<(), ProviderError> {
        match self.one(id) {
            Ok(instance) if instance.state.is_gone() => Ok(()),
            Ok(_) => match self.client.terminate_instances(&[id.to_owned()]) {
                Err(error) if fault::is_unknown_instance(&error) => Ok(()),
                ended => ended.map(drop).map_err(|e| cloud("end an instance", e)),
            },
            // Ended, and forgotten since.
            Err(ProviderError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn attach(&self, id: &str, address: &str) -> Result<(), ProviderError> {
        let looked = self.client.describe_addresses(&[self.ours()]).map_err(|e| cloud("look for the public address", e))?;
        let found = looked.into_iter().find(|found| found.allocation == address);
        match found {
            None => Err(ProviderError::Answer { what: format!("the cluster has no address {address} any more") }),
            Some(found) if found.instance.as_deref() == Some(id) => Ok(()),
            Some(_) => self.client.associate_address(address, id).map(drop).map_err(|e| cloud("move the public address", e)),
        }
    }

    fn drift(&self, parameters: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError> {
        site::drift(self, parameters)
    }
}
