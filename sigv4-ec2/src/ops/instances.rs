//! Instances: list, start, stop, terminate.

use super::need_some;
use crate::{Client, Error, Filter, Tags, form::Form, reply::Element, retry::Repeat, time::parse_rfc3339};
use std::{fmt, net::Ipv4Addr, time::SystemTime};

/// Things of one page: a hundred instances are some 300 KB of XML.
pub(super) const PAGE: u32 = 100;

/// A machine, as EC2 sees it now; it may lag some seconds behind what one just did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// Why it is in that state, if EC2 says: for example `Server.SpotInstanceTermination: …`.
    pub state_reason: Option<String>,
    /// `ami-…`
    pub image: String,
    /// For example `t4g.micro`.
    pub instance_type: String,
    /// `arm64`, `x86_64` …
    pub architecture: Option<String>,
    /// Inside the network; kept while it is stopped.
    pub private_address: Option<Ipv4Addr>,
    /// To the outside; changes with a stop unless it is an elastic one.
    pub public_address: Option<Ipv4Addr>,
    /// `subnet-…`
    pub subnet: Option<String>,
    /// `vpc-…`
    pub vpc: Option<String>,
    /// For example `eu-central-1b`.
    pub zone: Option<String>,
    /// When it was last started.
    pub launched: Option<SystemTime>,
    /// The token it was launched under.
    pub client_token: Option<String>,
    /// The key pair's name.
    pub key_name: Option<String>,
    /// Security groups' ids.
    pub security_groups: Vec<String>,
    /// Its tags.
    pub tags: Tags,
    /// Whether it is a spot instance.
    pub is_spot: bool,
    /// Whether the metadata service wants a token (IMDSv2).
    pub needs_metadata_token: bool,
    /// How far the metadata service's answers go.
    pub metadata_hops: Option<u32>,
    /// `/dev/sda1`, `/dev/xvda` …
    pub root_device: Option<String>,
    /// The instance profile's ARN.
    pub instance_profile: Option<String>,
}

/// What an instance does (EC2 API Reference, `InstanceState`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// Being launched or started.
    Pending,
    /// Running; its system may still boot.
    Running,
    /// Being ended.
    ShuttingDown,
    /// Ended for good; listed for about an hour more.
    Terminated,
    /// Being stopped.
    Stopping,
    /// Stopped; only its disks cost.
    Stopped,
    /// A state that this crate does not know.
    Other(String),
}

impl InstanceState {
    pub(super) fn parse(text: &str) -> InstanceState {
        match text {
            "pending" => InstanceState::Pending,
            "running" => InstanceState::Running,
            "shutting-down" => InstanceState::ShuttingDown,
            "terminated" => InstanceState::Terminated,
            "stopping" => InstanceState::Stopping,
            "stopped" => InstanceState::Stopped,
            other => InstanceState::Other(other.to_owned()),
        }
    }

    /// As EC2 writes it, also in filters.
    pub fn as_str(&self) -> &str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
            InstanceState::Other(text) => text,
        }
    }

    /// Ended, or about to: it never comes back.
    pub fn is_gone(&self) -> bool {
        matches!(self, InstanceState::ShuttingDown | InstanceState::Terminated)
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What start, stop and terminate did to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// `i-…`
    pub id: String,
    /// Before.
    pub previous: InstanceState,
    /// Now.
    pub current: InstanceState,
}

impl Client {
    /// Instances that match all filters; with `ids`, only these, and it fails if one of them is unknown.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_instances(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Instance>, Error> {
        let mut form = self.form("DescribeInstances");
        form.list("InstanceId", ids);
        form.filters(filters);
        let mut found = Vec::new();
        // A page's size and ids exclude each other.
        self.pages(&form, ids.is_empty().then_some(PAGE), |page| {
            for reservation in page.items("reservationSet") {
                found.extend(reservation.each("instancesSet", read)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Starts stopped instances; what runs already is left alone.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::IncorrectInstanceState`] if one is still stopping.
    pub fn start_instances(&self, ids: &[String]) -> Result<Vec<StateChange>, Error> {
        let mut form = self.form("StartInstances");
        form.list("InstanceId", ids);
        self.change(&form, ids)
    }

    /// Stops instances; their disks and private addresses stay.
    ///
    /// # Errors
    /// As every call.
    pub fn stop_instances(&self, ids: &[String]) -> Result<Vec<StateChange>, Error> {
        let mut form = self.form("StopInstances");
        form.list("InstanceId", ids);
        self.change(&form, ids)
    }

    /// Ends instances for good. What is ended already is no error for about an hour, and unknown after.
    ///
    /// # Errors
    /// As every call. If one id is unknown, none is ended.
    pub fn terminate_instances(&self, ids: &[String]) -> Result<Vec<StateChange>, Error> {
        let mut form = self.form("TerminateInstances");
        form.list("InstanceId", ids);
        self.change(&form, ids)
    }

    fn change(&self, form: &Form, ids: &[String]) -> Result<Vec<StateChange>, Error> {
        need_some(form.action(), "instances", ids)?;
        let state = |change: Element<'_, '_>, name| {
            let state = change.child(name).and_then(|state| state.text("name"));
            InstanceState::parse(state.unwrap_or_default())
        };
        let change = |change: Element<'_, '_>| {
            let (previous, current) = (state(change, "previousState"), state(change, "currentState"));
            Ok(StateChange { id: change.need("instanceId")?, previous, current })
        };
        self.ask(form, Repeat::Harmless, |reply| reply.each("instancesSet", change))
    }
}

/// Reads one `<item>` of an `<instancesSet>`.
pub(super) fn read(item: Element<'_, '_>) -> Result<Instance, Error> {
    let state = item.child("instanceState").and_then(|state| state.text("name"));
    let metadata = item.child("metadataOptions");
    // With an interface of its own the groups may stand only there.
    let interface = item.items("networkInterfaceSet").next();
    let groups = |of: Element<'_, '_>| of.items("groupSet").filter_map(|group| group.string("groupId")).collect::<Vec<_>>();
    let security_groups = Some(groups(item)).filter(|groups| !groups.is_empty()).or_else(|| interface.map(groups));
    let zone = item.child("placement").and_then(|placement| placement.string("availabilityZone"));
    Ok(Instance {
        id: item.need("instanceId")?,
        state: InstanceState::parse(state.unwrap_or_default()),
        state_reason: item.child("stateReason").and_then(|reason| reason.string("message")),
        image: item.need("imageId")?,
        instance_type: item.need("instanceType")?,
        architecture: item.string("architecture"),
        private_address: item.parsed("privateIpAddress")?,
        public_address: item.parsed("ipAddress")?,
        subnet: item.string("subnetId"),
        vpc: item.string("vpcId"),
        zone,
        launched: item.text("launchTime").and_then(parse_rfc3339),
        client_token: item.string("clientToken"),
        key_name: item.string("keyName"),
        security_groups: security_groups.unwrap_or_default(),
        tags: item.tags(),
        is_spot: item.text("instanceLifecycle") == Some("spot"),
        needs_metadata_token: metadata.is_some_and(|options| options.text("httpTokens") == Some("required")),
        metadata_hops: metadata.and_then(|options| options.text("httpPutResponseHopLimit")?.parse().ok()),
        root_device: item.string("rootDeviceName"),
        instance_profile: item.child("iamInstanceProfile").and_then(|profile| profile.string("arn")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply;

    /// After the example in the API reference of DescribeInstances.
    const SAMPLE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
    <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
    <reservationSet>
        <item>
            <reservationId>r-1234567890abcdef0</reservationId>
            <ownerId>123456789012</ownerId>
            <groupSet/>
            <instancesSet>
                <item>
                    <instanceId>i-1234567890abcdef0</instanceId>
                    <imageId>ami-bff32ccc</imageId>
                    <instanceState><code>16</code><name>running</name></instanceState>
                    <privateDnsName>ip-192-168-1-88.eu-west-1.compute.internal</privateDnsName>
                    <dnsName>ec2-54-194-252-215.eu-west-1.compute.amazonaws.com</dnsName>
                    <reason/>
                    <keyName>my_keypair</keyName>
                    <amiLaunchIndex>0</amiLaunchIndex>
                    <instanceType>t2.micro</instanceType>
                    <launchTime>2018-05-08T16:46:19.000Z</launchTime>
                    <placement><availabilityZone>eu-west-1c</availabilityZone><groupName/><tenancy>default</tenancy></placement>
                    <monitoring><state>disabled</state></monitoring>
                    <subnetId>subnet-56f5f633</subnetId>
                    <vpcId>vpc-11112222</vpcId>
                    <privateIpAddress>192.168.1.88</privateIpAddress>
                    <ipAddress>54.194.252.215</ipAddress>
                    <groupSet><item><groupId>sg-e4076980</groupId><groupName>SecurityGroup1</groupName></item></groupSet>
                    <architecture>x86_64</architecture>
                    <rootDeviceType>ebs</rootDeviceType>
                    <rootDeviceName>/dev/xvda</rootDeviceName>
                    <clientToken>xMcwG14507example</clientToken>
                    <tagSet><item><key>Name</key><value>Server_1</value></item><item><key>empty</key><value/></item></tagSet>
                    <metadataOptions><httpTokens>required</httpTokens><httpPutResponseHopLimit>1</httpPutResponseHopLimit></metadataOptions>
                </item>
            </instancesSet>
        </item>
    </reservationSet>
</DescribeInstancesResponse>"#;

    fn read_all(text: &str) -> Result<Vec<Instance>, Error> {
        let document = reply::parse("DescribeInstances", text)?;
        let root = Element::root("DescribeInstances", &document);
        let reservations = root.each("reservationSet", |reservation| reservation.each("instancesSet", read))?;
        Ok(reservations.into_iter().flatten().collect())
    }

    #[test]
    fn the_references_own_example_is_read() {
        let seen = read_all(SAMPLE).expect("it is an answer").remove(0);
        assert_eq!(
            (seen.id.as_str(), seen.state, seen.zone.as_deref()),
            ("i-1234567890abcdef0", InstanceState::Running, Some("eu-west-1c"))
        );
        assert_eq!((seen.public_address, seen.private_address), (Some([54, 194, 252, 215].into()), Some([192, 168, 1, 88].into())));
        assert_eq!((seen.tags["Name"].as_str(), seen.tags["empty"].as_str()), ("Server_1", ""));
        assert_eq!((seen.security_groups, seen.metadata_hops), (vec!["sg-e4076980".to_owned()], Some(1)));
        assert!(seen.needs_metadata_token && !seen.is_spot && seen.launched.is_some());
    }

    #[test]
    fn a_broken_answer_is_refused_or_read_but_never_worse() {
        // Cut off anywhere, and with any byte replaced by one that means something in XML.
        let mut refused = 0;
        for at in (0..SAMPLE.len()).filter(|at| SAMPLE.is_char_boundary(*at)) {
            refused += usize::from(read_all(&SAMPLE[..at]).is_err());
            for byte in ["<", ">", "&", "/", "\"", "\0"] {
                let broken = [&SAMPLE[..at], byte, &SAMPLE[at + 1..]].concat();
                refused += usize::from(read_all(&broken).is_err());
            }
        }
        assert!(refused > SAMPLE.len(), "{refused}");
    }
}
