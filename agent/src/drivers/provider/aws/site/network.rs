//! The security group and the public address.

use super::super::{AwsProvider, fault::cloud, tags};
use crate::{drivers::provider::ProviderError, model::node::PORT};
use sigv4_ec2::{Address, Peer, Rule, SecurityGroup};
use std::{net::Ipv4Addr, time::Duration};

pub(super) const SSH: u16 = 22;
/// Amazon's own service that says who asks.
const CALLER: &str = "https://checkip.amazonaws.com/";
const ASK_MAX: Duration = Duration::from_secs(10);

/// The address that leads to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicAddress {
    /// Its name at EC2.
    pub allocation: String,
    pub ip: Ipv4Addr,
    /// Where it leads, if anywhere.
    pub instance: Option<String>,
}

impl AwsProvider {
    /// The cluster's group, if there is one. There can be one of a name; of several that bear our tag the smallest id wins,
    /// so that all who look find the same.
    pub(in super::super) fn group(&self) -> Result<Option<SecurityGroup>, ProviderError> {
        let found = self.client.describe_security_groups(&[], &[self.ours()]).map_err(|e| cloud("look for the security group", e))?;
        Ok(found.into_iter().min_by(|a, b| a.id.cmp(&b.id)))
    }

    /// The cluster's group, made if need be: its nodes reach each other's port, and nobody else reaches anything.
    ///
    /// # Errors
    /// EC2's, or somebody else has a group of that name.
    pub fn ensure_group(&self) -> Result<String, ProviderError> {
        let id = match self.group()? {
            Some(group) => group.id,
            None => self.make_group()?,
        };
        let among_themselves = Rule::tcp(PORT, Peer::Group(id.clone()));
        self.client.authorize_ingress(&id, &[among_themselves]).map_err(|e| cloud("open the port between nodes", e))?;
        Ok(id)
    }

    fn make_group(&self) -> Result<String, ProviderError> {
        let name = self.name();
        match self.client.create_security_group(&name, "Nodes of a Disco cluster", None, &self.own_tags()) {
            Ok(id) => Ok(id),
            // Made by an earlier delivery of this very request, or before we died.
            Err(error) if error.is_duplicate() => {
                let named = sigv4_ec2::Filter::new("group-name", [name.clone()]);
                let found = self.client.describe_security_groups(&[], &[named]).map_err(|e| cloud("look for the security group", e))?;
                let ours = found.into_iter().find(|group| tags::cluster_of(&group.tags) == Some(self.cluster));
                ours.map(|group| group.id)
                    .ok_or_else(|| ProviderError::Answer { what: format!("security group `{name}` belongs to somebody else") })
            }
            Err(error) => Err(cloud("make the security group", error)),
        }
    }

    /// Lets these addresses reach the nodes' port.
    ///
    /// # Errors
    /// EC2's.
    pub fn open_port(&self, group: &str, from: &[String]) -> Result<(), ProviderError> {
        let rules: Vec<Rule> = from.iter().map(|range| Rule::tcp(PORT, peer(range))).collect();
        self.client.authorize_ingress(group, &rules).map_err(|e| cloud("open the nodes' port", e))
    }

    /// Lets these addresses reach port 22: only while the first node is installed.
    ///
    /// # Errors
    /// EC2's.
    pub fn open_ssh(&self, group: &str, from: &[String]) -> Result<(), ProviderError> {
        let rules: Vec<Rule> = from.iter().map(|range| Rule::tcp(SSH, peer(range))).collect();
        self.client.authorize_ingress(group, &rules).map_err(|e| cloud("open port 22", e))
    }

    /// As which address this machine reaches Amazon, as a range of one.
    ///
    /// # Errors
    /// Nobody tells, or what comes is no address.
    pub fn own_address(&self) -> Result<String, ProviderError> {
        let here = self.endpoint.as_deref().is_some_and(|endpoint| endpoint.contains("://127.") || endpoint.contains("://localhost"));
        if here {
            return Ok("127.0.0.1/32".into());
        }
        let config = ureq::Agent::config_builder().https_only(true).timeout_global(Some(ASK_MAX)).user_agent("disco").build();
        let told = config.new_agent().get(CALLER).call().and_then(|mut answer| answer.body_mut().with_config().limit(64).read_to_string());
        let told = told.map_err(|error| ProviderError::Answer { what: format!("{CALLER} does not tell our address: {error}") })?;
        let address: Ipv4Addr = told.trim().parse().map_err(|_| ProviderError::Answer { what: format!("{CALLER} tells no address") })?;
        Ok(format!("{address}/32"))
    }

    /// Closes port 22, whoever was let in.
    ///
    /// # Errors
    /// EC2's.
    pub fn close_ssh(&self, group: &str) -> Result<(), ProviderError> {
        let found = self.client.describe_security_groups(&[group.to_owned()], &[]).map_err(|e| cloud("look for the security group", e))?;
        let open: Vec<Rule> = found.into_iter().flat_map(|group| group.ingress).filter(|rule| rule.lets_in_tcp(SSH)).collect();
        self.client.revoke_ingress(group, &open).map_err(|e| cloud("close port 22", e))
    }

    /// The cluster's public address, got if need be. Of several (an answer was lost) one stays.
    ///
    /// # Errors
    /// EC2's.
    pub fn ensure_address(&self) -> Result<PublicAddress, ProviderError> {
        let mut found = self.addresses()?;
        if found.is_empty() {
            match self.client.allocate_address(&self.own_tags()) {
                Ok(address) => found.push(address),
                Err(error) if error.is_ambiguous() => {
                    found = self.addresses()?;
                    if found.is_empty() {
                        return Err(cloud("get a public address", error));
                    }
                }
                Err(error) => return Err(cloud("get a public address", error)),
            }
        }
        found.sort_by(|a, b| (a.instance.is_none(), &a.allocation).cmp(&(b.instance.is_none(), &b.allocation)));
        for extra in found.drain(1..).filter(|address| address.instance.is_none()) {
            self.client.release_address(&extra.allocation).map_err(|e| cloud("give back a public address", e))?;
        }
        let kept = found.remove(0);
        Ok(PublicAddress { allocation: kept.allocation, ip: kept.public, instance: kept.instance })
    }

    pub(super) fn addresses(&self) -> Result<Vec<Address>, ProviderError> {
        self.client.describe_addresses(&[self.ours()]).map_err(|e| cloud("look for the public address", e))
    }
}

pub(super) fn peer(range: &str) -> Peer {
    if range.contains(':') { Peer::Ipv6(range.to_owned()) } else { Peer::Ipv4(range.to_owned()) }
}
