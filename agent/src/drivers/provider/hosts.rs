//! The `hosts` provider: machines that exist. Nothing is launched, started or ended from a node, because nodes have no way
//! onto each other; `disco` installs over SSH. What can be told from anywhere is where they are and whether a node answers.

use super::{Capabilities, Drift, First, Launched, Provider, ProviderError};
use crate::model::{
    instance::{InstanceSeen, InstanceState},
    query::LaunchRequest,
};
use std::{
    collections::BTreeMap,
    net::{TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

const KIND: &str = "hosts";
/// A node on a machine that runs answers sooner.
const PROBE_MAX: Duration = Duration::from_millis(500);

/// The listed machines, by ordinal.
#[derive(Debug, Clone)]
pub struct HostsProvider {
    hosts: Vec<Host>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `i-<ordinal>`.
    pub id: String,
    /// `host:port` of the node.
    pub address: String,
}

impl HostsProvider {
    pub fn new(hosts: Vec<Host>) -> HostsProvider {
        HostsProvider { hosts }
    }

    fn host(&self, id: &str) -> Result<&Host, ProviderError> {
        self.hosts.iter().find(|host| host.id == id).ok_or_else(|| ProviderError::Unknown { id: id.into() })
    }
}

fn unable<T>(what: &'static str) -> Result<T, ProviderError> {
    Err(ProviderError::Unable { kind: KIND, what })
}

impl Provider for HostsProvider {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { launches: false, stops: false, attaches: false }
    }

    fn launch_first(&self, _: &First) -> Result<Launched, ProviderError> {
        unable("make machines")
    }

    fn launch(&self, _: &LaunchRequest) -> Result<Launched, ProviderError> {
        unable("make machines")
    }

    /// A machine whose node does not listen counts as stopped.
    fn describe(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let states: Vec<InstanceState> = thread::scope(|scope| {
            let probes: Vec<_> = self.hosts.iter().map(|host| scope.spawn(|| probe(&host.address))).collect();
            probes.into_iter().map(|probe| probe.join().unwrap_or(InstanceState::Stopped)).collect()
        });
        let seen = self.hosts.iter().zip(states).map(|(host, state)| InstanceSeen {
            id: host.id.clone(),
            operation: None,
            address: host.address.clone(),
            state,
            public_address: String::new(),
        });
        Ok(seen.collect())
    }

    fn start(&self, id: &str) -> Result<(), ProviderError> {
        self.host(id)?;
        unable("start machines")
    }

    fn stop(&self, id: &str) -> Result<(), ProviderError> {
        self.host(id)?;
        unable("stop machines")
    }

    fn terminate(&self, id: &str) -> Result<(), ProviderError> {
        // One that is not listed has ended already.
        if self.host(id).is_err() { Ok(()) } else { unable("end machines") }
    }

    fn attach(&self, _: &str, _: &str) -> Result<(), ProviderError> {
        unable("move addresses")
    }

    fn drift(&self, _: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError> {
        Ok(Vec::new())
    }
}

fn probe(address: &str) -> InstanceState {
    let addresses = address.to_socket_addrs().into_iter().flatten();
    let answers = addresses.take(4).any(|address| TcpStream::connect_timeout(&address, PROBE_MAX).is_ok());
    if answers { InstanceState::Running } else { InstanceState::Stopped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_host_runs_when_its_node_listens_and_nothing_else_can_be_done_from_here() {
        let node = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let of = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
        let hosts = [("i-1", of(&node)), ("i-2", of(&silent))].map(|(id, address)| Host { id: id.into(), address });
        drop(silent);
        let provider = HostsProvider::new(hosts.to_vec());
        let states: Vec<_> = provider.describe().expect("it only looks").into_iter().map(|seen| seen.state).collect();
        assert_eq!(states, [InstanceState::Running, InstanceState::Stopped]);
        assert!(matches!(provider.start("i-1"), Err(ProviderError::Unable { .. })));
        assert!(matches!(provider.start("i-3"), Err(ProviderError::Unknown { .. })));
        assert!(provider.launch_first(&First::default()).expect_err("there are no machines to make").is_final());
    }
}
