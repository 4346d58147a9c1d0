//! Where machines come from: processes on this one (`local`), EC2 (`aws`), or machines that exist (`hosts`).
//!
//! What every provider promises the leader, so that a decision is carried out once however often it is repeated:
//! a launch is known by its operation, an operation that was terminated is never launched again, and
//! starting, stopping and terminating what is already so is a success. `tests/providers` holds each of them to it;
//! what one cannot do at all its [`Capabilities`] say.

pub mod aws;
mod folder;
mod hosts;
mod local;
pub mod unit;

pub use aws::{AwsConfig, AwsProvider};
pub use hosts::{Host, HostsProvider};
pub use local::{LocalProvider, address_of};

use crate::model::{
    ids::{ClusterId, OperationId},
    instance::InstanceSeen,
    io::{Provided, ProviderCall},
    query::LaunchRequest,
};
use std::{collections::BTreeMap, io, path::PathBuf};

/// Makes, starts and ends the instances of one cluster. All calls block: they start processes or wait for an answer.
pub trait Provider: Send + Sync {
    /// `local`, `aws` or `hosts`.
    fn kind(&self) -> &'static str;

    fn capabilities(&self) -> Capabilities;

    /// The instance that originates the cluster, made by `disco`: ordinal 1, operation 0 of epoch 0.
    ///
    /// # Errors
    /// As [`Provider::launch`].
    fn launch_first(&self, first: &First) -> Result<Launched, ProviderError>;

    /// Makes and starts an instance, once an operation: asked again it continues where it stopped, or has nothing left to do.
    ///
    /// # Errors
    /// The operation was terminated, the ordinal is another's, or the provider fails.
    fn launch(&self, request: &LaunchRequest) -> Result<Launched, ProviderError>;

    /// All instances of this cluster, by ordinal, running or not. What was just made may be missing for a while.
    ///
    /// # Errors
    /// The provider does not tell.
    fn describe(&self) -> Result<Vec<InstanceSeen>, ProviderError>;

    /// Starts an instance that does not run. Two at once start one.
    ///
    /// # Errors
    /// There is no such instance, it was terminated, or it does not start.
    fn start(&self, id: &str) -> Result<(), ProviderError>;

    /// Ends an instance's processes; what is on its disk stays.
    ///
    /// # Errors
    /// There is no such instance, or it does not stop.
    fn stop(&self, id: &str) -> Result<(), ProviderError>;

    /// Ends an instance for good. One that is not there has ended already.
    ///
    /// # Errors
    /// It does not end.
    fn terminate(&self, id: &str) -> Result<(), ProviderError>;

    /// Lets the cluster's public address lead to this instance.
    ///
    /// # Errors
    /// There is no such address or instance, or the provider has no addresses to move.
    fn attach(&self, id: &str, address: &str) -> Result<(), ProviderError>;

    /// What was changed from outside, by what launches are made of: one sentence each, empty if nothing.
    ///
    /// # Errors
    /// The provider does not tell.
    fn drift(&self, parameters: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError>;
}

/// What a provider can do at all. What it cannot ends in [`ProviderError::Unable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Makes machines, and ends them for good.
    pub launches: bool,
    /// Stops a machine and starts it again.
    pub stops: bool,
    /// Has an address that can lead to one machine, then to another.
    pub attaches: bool,
}

/// How the first instance is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct First {
    /// As those of a later launch.
    pub parameters: BTreeMap<String, String>,
    /// What the machine runs when it starts; empty where nothing has to.
    pub user_data: String,
}

/// An instance as a launch leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub operation: OperationId,
    pub id: String,
    /// `host:port`, where other nodes reach it.
    pub address: String,
}

/// Something that is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// `security group sg-1`, `instance i-2`.
    pub what: String,
    /// What is wrong with it, for a person.
    pub detail: String,
}

/// The decision that made the first instance; no entry of the log has index 0.
pub fn first_operation(cluster: ClusterId) -> OperationId {
    OperationId { cluster, epoch: 0, index: 0 }
}

/// Carries out what the leader's plan asks for.
pub fn carry_out(provider: &dyn Provider, call: &ProviderCall) -> Provided {
    let done = |result: Result<(), ProviderError>| result.map(|()| Provided::Done);
    let outcome = match call {
        ProviderCall::Launch(request) => {
            provider.launch(request).map(|l| Provided::Launched { operation: l.operation, id: l.id, address: l.address })
        }
        ProviderCall::Describe => provider.describe().map(Provided::Described),
        ProviderCall::Start { id } => done(provider.start(id)),
        ProviderCall::Stop { id } => done(provider.stop(id)),
        ProviderCall::Terminate { id } => done(provider.terminate(id)),
        ProviderCall::Attach { id, address } => done(provider.attach(id, address)),
    };
    outcome.unwrap_or_else(|e| Provided::Failed { final_: e.is_final(), why: with_causes(&e) })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("operation {operation} was terminated; it is not launched again")]
    Terminated { operation: String },
    #[error("instance `{id}` belongs to another launch ({operation})")]
    Taken { id: String, operation: String },
    #[error("no instance `{id}`")]
    Unknown { id: String },
    #[error("`{id}` is not the name of an instance (i-1, i-2, …)")]
    BadName { id: String },
    #[error("the {kind} provider cannot {what}")]
    Unable { kind: &'static str, what: &'static str },
    #[error("a launch cannot have `{name}` `{value}`")]
    Parameter { name: &'static str, value: String },
    #[error("cannot {what}")]
    Cloud { what: &'static str, is_final: bool, source: Box<sigv4_ec2::Error> },
    #[error("{what}")]
    Answer { what: String },
    #[error("cannot {operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("cannot start {}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("cannot end process {pid} of instance `{id}`")]
    End { id: String, pid: u32, source: io::Error },
}

impl ProviderError {
    /// Whether repeating the same call cannot help.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            ProviderError::Terminated { .. }
                | ProviderError::Taken { .. }
                | ProviderError::Unknown { .. }
                | ProviderError::BadName { .. }
                | ProviderError::Unable { .. }
                | ProviderError::Parameter { .. }
                | ProviderError::Cloud { is_final: true, .. }
        )
    }
}

/// For `map_err`: what was tried on which path.
fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ProviderError {
    let path = path.into();
    move |source| ProviderError::File { operation, path, source }
}
