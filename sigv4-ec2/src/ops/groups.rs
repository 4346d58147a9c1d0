//! Security groups: which packets reach a machine.

use super::instances::PAGE;
use crate::{Client, Error, Filter, Tags, form::Form, reply::Element, retry::Repeat};

/// A set of rules that machines can have. What no rule lets in is dropped; everything is let out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// `sg-…`
    pub id: String,
    /// Its name, unique in its network.
    pub name: String,
    /// What somebody wrote about it.
    pub description: String,
    /// The network it belongs to.
    pub vpc: Option<String>,
    /// What it lets in.
    pub ingress: Vec<Rule>,
    /// Its tags.
    pub tags: Tags,
}

/// Packets that are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `tcp`, `udp`, `icmp`, or `-1` for all.
    pub protocol: String,
    /// First and last port; none means all.
    pub ports: Option<(u16, u16)>,
    /// From where.
    pub peer: Peer,
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Addresses: `203.0.113.7/32`.
    Ipv4(String),
    /// Addresses: `2001:db8::/64`.
    Ipv6(String),
    /// Machines that have this security group.
    Group(String),
}

impl Rule {
    /// One TCP port.
    pub fn tcp(port: u16, peer: Peer) -> Rule {
        Rule { protocol: "tcp".to_owned(), ports: Some((port, port)), peer }
    }

    fn write(&self, key: &str, form: &mut Form) {
        form.put(&format!("{key}.IpProtocol"), &self.protocol);
        if let Some((first, last)) = self.ports {
            form.number(&format!("{key}.FromPort"), first.into());
            form.number(&format!("{key}.ToPort"), last.into());
        }
        let (part, value) = match &self.peer {
            Peer::Ipv4(range) => ("IpRanges.1.CidrIp", range),
            Peer::Ipv6(range) => ("Ipv6Ranges.1.CidrIpv6", range),
            Peer::Group(id) => ("Groups.1.GroupId", id),
        };
        form.put(&format!("{key}.{part}"), value);
    }
}

impl Client {
    /// Makes a group that lets nothing in yet. Without `vpc` it belongs to the default network. Gives its id.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::GroupDuplicate`] if the name is taken, perhaps by an earlier delivery of this
    /// very request: look at its tags.
    pub fn create_security_group(&self, name: &str, description: &str, vpc: Option<&str>, tags: &Tags) -> Result<String, Error> {
        let mut form = self.form("CreateSecurityGroup");
        form.put("GroupName", name);
        form.put("GroupDescription", description);
        form.put_some("VpcId", vpc);
        form.tag_specifications(&["security-group"], tags);
        self.ask(&form, Repeat::Harmless, |reply| reply.need("groupId"))
    }

    /// Groups that match all filters; with `ids`, only these, and it fails if one of them is unknown.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_security_groups(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<SecurityGroup>, Error> {
        let mut form = self.form("DescribeSecurityGroups");
        form.list("GroupId", ids);
        form.filters(filters);
        let mut found = Vec::new();
        self.pages(&form, ids.is_empty().then_some(PAGE), |page| {
            found.extend(page.each("securityGroupInfo", read)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Lets more in. A rule that is there already is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn authorize_ingress(&self, group: &str, rules: &[Rule]) -> Result<(), Error> {
        // One call for each: EC2 refuses all of a call's rules if one of them is there already.
        rules.iter().try_for_each(|rule| match self.ingress("AuthorizeSecurityGroupIngress", group, rule) {
            Err(error) if error.is_duplicate() => Ok(()),
            result => result,
        })
    }

    /// Lets less in. A rule that is not there is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn revoke_ingress(&self, group: &str, rules: &[Rule]) -> Result<(), Error> {
        rules.iter().try_for_each(|rule| match self.ingress("RevokeSecurityGroupIngress", group, rule) {
            Err(error) if error.code() == Some(&crate::ErrorCode::PermissionNotFound) => Ok(()),
            result => result,
        })
    }

    fn ingress(&self, action: &'static str, group: &str, rule: &Rule) -> Result<(), Error> {
        let mut form = self.form(action);
        form.put("GroupId", group);
        rule.write("IpPermissions.1", &mut form);
        self.tell(&form, Repeat::Harmless)
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::DependencyViolation`] while a machine has it, also one that is being ended.
    pub fn delete_security_group(&self, group: &str) -> Result<(), Error> {
        let mut form = self.form("DeleteSecurityGroup");
        form.put("GroupId", group);
        self.tell(&form, Repeat::Harmless)
    }
}

fn read(item: Element<'_, '_>) -> Result<SecurityGroup, Error> {
    let permissions = item.each("ipPermissions", rules)?;
    Ok(SecurityGroup {
        id: item.need("groupId")?,
        name: item.need("groupName")?,
        description: item.string("groupDescription").unwrap_or_default(),
        vpc: item.string("vpcId"),
        ingress: permissions.into_iter().flatten().collect(),
        tags: item.tags(),
    })
}

/// EC2 lists peers by protocol and ports; a rule of ours has one peer.
fn rules(item: Element<'_, '_>) -> Result<Vec<Rule>, Error> {
    let protocol = item.need("ipProtocol")?;
    // ICMP has types there, and -1 means all.
    let port = |name| Ok::<_, Error>(item.parsed::<i64>(name)?.and_then(|port| u16::try_from(port).ok()));
    let ports = port("fromPort")?.zip(port("toPort")?);
    let ipv4 = item.items("ipRanges").filter_map(|range| range.string("cidrIp")).map(Peer::Ipv4);
    let ipv6 = item.items("ipv6Ranges").filter_map(|range| range.string("cidrIpv6")).map(Peer::Ipv6);
    let groups = item.items("groups").filter_map(|group| group.string("groupId")).map(Peer::Group);
    let rule = |peer| Rule { protocol: protocol.clone(), ports, peer };
    Ok(ipv4.chain(ipv6).chain(groups).map(rule).collect())
}
