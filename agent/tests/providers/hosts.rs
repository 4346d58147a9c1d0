//! The hosts provider: machines that exist, and a node that listens on each.

use crate::conformance::{self, Stage};
use agent::{
    drivers::provider::{Host, HostsProvider, Provider},
    model::{
        ids::{ClusterId, OperationId},
        query::LaunchRequest,
    },
};
use std::{collections::BTreeMap, net::TcpListener};

struct Machines {
    nodes: Vec<TcpListener>,
}

impl Stage for Machines {
    fn provider(&self) -> Box<dyn Provider> {
        let host = |(at, node): (usize, &TcpListener)| Host {
            id: format!("i-{}", at + 1),
            address: node.local_addr().expect("it is bound").to_string(),
        };
        Box::new(HostsProvider::new(self.nodes.iter().enumerate().map(host).collect()))
    }

    fn request(&self, ordinal: u32) -> LaunchRequest {
        LaunchRequest {
            operation: OperationId { cluster: ClusterId(7), epoch: 0, index: u64::from(ordinal) },
            ordinal,
            cluster_name: "home".into(),
            token: "DISCO1-a-b".into(),
            ca: Vec::new(),
            seeds: Vec::new(),
            parameters: BTreeMap::new(),
        }
    }

    fn billed(&self) -> usize {
        0
    }

    fn lose_next_answer(&self) {}
}

#[test]
fn the_hosts_provider_keeps_what_every_provider_promises() {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    conformance::hold_to_it(|| Machines { nodes: (0..2).map(bind).collect() });
}
