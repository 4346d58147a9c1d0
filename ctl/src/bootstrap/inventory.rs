//! `.disco/hosts.json`: the machines a hosts cluster was given, by ordinal. Written before one of them is touched, so that
//! `disco destroy` finds them whatever client.js says by then. A place in the list is never given to another machine.

use super::options::HostOption;
use crate::context::Context;
use crate::install::session::{Keys, Target};
use crate::install::trust::Trust;
use crate::message::Failure;
use agent::drivers::provider::Host;
use agent::model::node::PORT;
use serde::{Deserialize, Serialize};

const FILE: &str = "hosts.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The private key of `set_key_pair`, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<std::path::PathBuf>,
    pub hosts: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub ordinal: u32,
    pub address: String,
    pub user: String,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Whether client.js lists it now.
    pub listed: bool,
    /// Whether anything of ours may be on it.
    pub touched: bool,
}

impl Inventory {
    /// # Errors
    /// The file is damaged.
    pub fn read(context: &Context) -> Result<Inventory, Failure> {
        Ok(context.json(FILE)?.unwrap_or_default())
    }

    /// # Errors
    /// As writing files goes.
    pub fn write(&self, context: &Context) -> Result<(), Failure> {
        context.write_json(FILE, self)
    }

    /// Takes what client.js lists, in its order; what it no longer lists stays known until nothing of ours is on it.
    pub fn take(&mut self, listed: &[HostOption]) {
        self.hosts.iter_mut().for_each(|entry| entry.listed = false);
        for host in listed {
            let user = host.user.clone().unwrap_or_else(|| std::env::var("USER").unwrap_or_else(|_| "root".into()));
            let port = host.port.unwrap_or(22);
            if let Some(entry) = self.hosts.iter_mut().find(|entry| entry.address == host.address) {
                (entry.user, entry.port, entry.host_key, entry.listed) = (user, port, host.host_key.clone(), true);
                continue;
            }
            let ordinal = self.hosts.iter().map(|entry| entry.ordinal).max().unwrap_or(0) + 1;
            let (address, host_key) = (host.address.clone(), host.host_key.clone());
            self.hosts.push(Entry { ordinal, address, user, port, host_key, listed: true, touched: false });
        }
        self.hosts.retain(|entry| entry.listed || entry.touched);
        // A stable sort: those that are not listed stay as they were, at the end.
        let place = |entry: &Entry| listed.iter().position(|host| host.address == entry.address).unwrap_or(listed.len());
        self.hosts.sort_by_key(place);
    }

    /// In the order of client.js.
    pub fn listed(&self) -> Vec<Entry> {
        self.hosts.iter().filter(|entry| entry.listed).cloned().collect()
    }

    /// For the provider.
    pub fn provider_hosts(&self) -> Vec<Host> {
        self.hosts.iter().filter(|entry| entry.touched).map(|entry| Host { id: entry.id(), address: entry.node_address() }).collect()
    }

    pub fn target(&self, entry: &Entry) -> Target {
        let trust = entry.host_key.clone().map_or_else(Trust::of_this_user, |line| Trust::Given(vec![line]));
        let keys = Keys::of_this_user(self.key.clone());
        Target { host: entry.address.clone(), port: entry.port, user: entry.user.clone(), trust, keys }
    }
}

impl Entry {
    pub fn id(&self) -> String {
        format!("i-{}", self.ordinal)
    }

    pub fn node_name(&self) -> String {
        format!("n{}", self.ordinal)
    }

    /// `host:port` of its node.
    pub fn node_address(&self) -> String {
        match self.address.contains(':') {
            true => format!("[{}]:{PORT}", self.address),
            false => format!("{}:{PORT}", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(addresses: &[&str]) -> Vec<HostOption> {
        addresses.iter().map(|a| HostOption { address: (*a).into(), user: Some("me".into()), port: None, host_key: None }).collect()
    }

    #[test]
    fn a_host_keeps_its_ordinal_and_one_with_a_node_is_not_forgotten() {
        let mut inventory = Inventory::default();
        inventory.take(&listed(&["a", "b", "c"]));
        inventory.hosts[1].touched = true;
        inventory.take(&listed(&["c", "d"]));
        let seen: Vec<_> = inventory.hosts.iter().map(|e| (e.address.as_str(), e.ordinal, e.listed)).collect();
        assert_eq!(seen, [("c", 3, true), ("d", 4, true), ("b", 2, false)]);
        assert_eq!(inventory.provider_hosts(), [Host { id: "i-2".into(), address: "b:5080".into() }]);
        inventory.take(&listed(&["e", "d", "c"]));
        let order: Vec<_> = inventory.listed().into_iter().map(|entry| (entry.address, entry.ordinal)).collect();
        assert_eq!(order, [("e".into(), 5), ("d".into(), 4), ("c".into(), 3)]);
        inventory.take(&listed(&["b"]));
        assert_eq!(inventory.listed().len(), 1);
        assert_eq!(inventory.listed()[0].ordinal, 2);
    }

    #[test]
    fn an_ipv6_address_is_put_in_brackets() {
        let mut inventory = Inventory::default();
        inventory.take(&listed(&["fd00::1"]));
        assert_eq!(inventory.hosts[0].node_address(), "[fd00::1]:5080");
    }
}
