//! Carries out provider calls: they start processes and wait for them, so each takes a thread for as long as it lasts.

use super::config::ProviderConfig;
use crate::{
    drivers::{
        api::door::Door,
        helpers,
        provider::{self, AwsConfig, AwsProvider, LocalProvider, Provider as Machines, ProviderError},
    },
    model::{
        ids::ClusterId,
        io::{Input, Provided, ProviderCall},
    },
};
use proto::Spawner;
use smol::lock::Semaphore;
use std::sync::Arc;

/// Calls at once; more wait for a thread.
const CALLS_MAX: usize = 3;

/// The provider this node's config names.
pub struct Provider {
    machines: Arc<dyn Machines>,
    spawner: Spawner,
    door: Door,
    turns: Arc<Semaphore>,
}

impl Provider {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// What the config says cannot be a provider.
    pub fn of(kind: &ProviderConfig, cluster: ClusterId, name: String, spawner: Spawner, door: Door) -> Result<Provider, ProviderError> {
        let machines: Arc<dyn Machines> = match kind.clone() {
            ProviderConfig::Local { root, binary } => Arc::new(LocalProvider::new(root, cluster, name, binary)),
            ProviderConfig::Aws { region, endpoint } => {
                Arc::new(AwsProvider::new(&AwsConfig { region, endpoint, profile: None }, cluster, name)?)
            }
        };
        Ok(Provider { machines, spawner, door, turns: Arc::new(Semaphore::new(CALLS_MAX)) })
    }

    /// Ends in `Provided { id }`.
    pub fn carry_out(&self, id: u64, call: ProviderCall) {
        let (machines, door, turns) = (self.machines.clone(), self.door.clone(), self.turns.clone());
        let carried_out = async move {
            let _turn = turns.acquire().await;
            let outcome = helpers::unblock(move || provider::carry_out(&*machines, &call)).await;
            door.report(Input::Provided { id, outcome });
        };
        self.spawner.0.spawn(carried_out).detach();
    }

    /// The answer of a node whose config names no provider.
    pub fn absent() -> Provided {
        Provided::Failed { why: "this node's config names no provider".into(), final_: false }
    }
}
