//! Security groups: which packets reach a machine.

use super::instances::PAGE;
use crate::{Client, Error, Filter, Tags, form::Form, reply::Element, retry::Repeat};
use std::time::Duration;

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
    /// `tcp`, `udp`, `icmp`, a number of IANA's, or `-1` for all.
    pub protocol: String,
    /// First and last port; of ICMP type and code, where -1 means every one. None means all. Kept as EC2 says it, because
    /// a rule is taken back only by the very same words.
    pub ports: Option<(i32, i32)>,
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
    /// Addresses of a list with a name of its own: `pl-…`
    PrefixList(String),
}

impl Rule {
    /// One TCP port.
    pub fn tcp(port: u16, peer: Peer) -> Rule {
        Rule { protocol: "tcp".to_owned(), ports: Some((port.into(), port.into())), peer }
    }

    /// Whether a TCP connection to this port is let in.
    pub fn lets_in_tcp(&self, port: u16) -> bool {
        match self.protocol.as_str() {
            // Whatever ports it names.
            "-1" => true,
            "tcp" | "6" => self.ports.is_none_or(|(first, last)| (first..=last).contains(&port.into())),
            _ => false,
        }
    }

    fn write(&self, key: &str, form: &mut Form) {
        form.put(&format!("{key}.IpProtocol"), &self.protocol);
        if let Some((first, last)) = self.ports {
            form.put(&format!("{key}.FromPort"), &first.to_string());
            form.put(&format!("{key}.ToPort"), &last.to_string());
        }
        let (part, value) = match &self.peer {
            Peer::Ipv4(range) => ("IpRanges.1.CidrIp", range),
            Peer::Ipv6(range) => ("Ipv6Ranges.1.CidrIpv6", range),
            Peer::Group(id) => ("Groups.1.GroupId", id),
            Peer::PrefixList(id) => ("PrefixListIds.1.PrefixListId", id),
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
        // One request for each: EC2 refuses all of a request's rules if one of them is there already.
        let deadline = self.deadline();
        rules.iter().try_for_each(|rule| match self.ingress("AuthorizeSecurityGroupIngress", group, rule, deadline) {
            Err(error) if error.is_duplicate() => Ok(()),
            result => result,
        })
    }

    /// Lets less in. A rule that is not there is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn revoke_ingress(&self, group: &str, rules: &[Rule]) -> Result<(), Error> {
        let deadline = self.deadline();
        rules.iter().try_for_each(|rule| match self.ingress("RevokeSecurityGroupIngress", group, rule, deadline) {
            Err(error) if error.code() == Some(&crate::ErrorCode::PermissionNotFound) => Ok(()),
            result => result,
        })
    }

    fn ingress(&self, action: &'static str, group: &str, rule: &Rule, deadline: Duration) -> Result<(), Error> {
        let mut form = self.form(action);
        form.put("GroupId", group);
        rule.write("IpPermissions.1", &mut form);
        self.ask_until(deadline, &form, Repeat::Harmless, |_| Ok(()))
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
    let ports = item.parsed("fromPort")?.zip(item.parsed("toPort")?);
    let ipv4 = item.items("ipRanges").filter_map(|range| range.string("cidrIp")).map(Peer::Ipv4);
    let ipv6 = item.items("ipv6Ranges").filter_map(|range| range.string("cidrIpv6")).map(Peer::Ipv6);
    let groups = item.items("groups").filter_map(|group| group.string("groupId")).map(Peer::Group);
    let lists = item.items("prefixListIds").filter_map(|list| list.string("prefixListId")).map(Peer::PrefixList);
    let rule = |peer| Rule { protocol: protocol.clone(), ports, peer };
    Ok(ipv4.chain(ipv6).chain(groups).chain(lists).map(rule).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As EC2 answers: API Reference, "DescribeSecurityGroups".
    const ANSWER: &str = "<r><item><groupId>sg-1</groupId><groupName>g</groupName><ipPermissions>\
        <item><ipProtocol>icmp</ipProtocol><fromPort>8</fromPort><toPort>-1</toPort><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item>\
        <item><ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort><prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds></item>\
        <item><ipProtocol>udp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort><ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges></item>\
        <item><ipProtocol>-1</ipProtocol><groups><item><groupId>sg-2</groupId></item></groups></item>\
        </ipPermissions></item></r>";

    #[test]
    fn a_rule_is_taken_back_by_the_words_in_which_it_was_read() {
        let document = crate::reply::parse("DescribeSecurityGroups", ANSWER).expect("it is XML");
        let group = read(Element::root("DescribeSecurityGroups", &document).child("item").expect("it has one")).expect("it is a group");
        let written = |rule: &Rule| {
            let mut form = Form::new("RevokeSecurityGroupIngress", "v");
            rule.write("P", &mut form);
            let text = std::str::from_utf8(form.as_bytes()).expect("it is ASCII").to_owned();
            text.replace("Action=RevokeSecurityGroupIngress&Version=v&", "")
        };
        let forms: Vec<String> = group.ingress.iter().map(written).collect();
        let expected = [
            "P.IpProtocol=icmp&P.FromPort=8&P.ToPort=-1&P.IpRanges.1.CidrIp=0.0.0.0%2F0",
            "P.IpProtocol=tcp&P.FromPort=22&P.ToPort=22&P.PrefixListIds.1.PrefixListId=pl-1",
            "P.IpProtocol=udp&P.FromPort=22&P.ToPort=22&P.Ipv6Ranges.1.CidrIpv6=%3A%3A%2F0",
            "P.IpProtocol=-1&P.Groups.1.GroupId=sg-2",
        ];
        assert_eq!(forms, expected);
        assert_eq!(group.ingress.iter().map(|rule| rule.lets_in_tcp(22)).collect::<Vec<_>>(), [false, true, false, true]);
        assert!(!group.ingress[1].lets_in_tcp(5080));
    }
}
