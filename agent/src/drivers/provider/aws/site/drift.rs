//! What was changed behind our back, and putting it right.

use super::{
    super::{AwsProvider, fault::cloud, parameter, tags},
    network::SSH,
};
use crate::{
    drivers::provider::{Drift, ProviderError},
    model::{instance::parameter::ADDRESS, node::PORT},
};
use sigv4_ec2::{Peer, Rule};
use std::collections::BTreeMap;

/// One thing that is not as it was made, and how it is put right.
struct Change {
    drift: Drift,
    repair: Repair,
}

enum Repair {
    /// Nothing that can be done to it as it is.
    None,
    OpenBetweenNodes(String),
    Close(String, Rule),
    Tag(String, String),
}

/// What is not as these parameters say.
pub fn drift(provider: &AwsProvider, parameters: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError> {
    Ok(changes(provider, parameters)?.into_iter().map(|change| change.drift).collect())
}

/// Puts right what can be, and says what that was.
///
/// # Errors
/// EC2's.
pub fn repair(provider: &AwsProvider, parameters: &BTreeMap<String, String>) -> Result<Vec<Drift>, ProviderError> {
    let mut repaired = Vec::new();
    for Change { drift, repair } in changes(provider, parameters)? {
        let wrong = |error| cloud("repair what drifted", error);
        match repair {
            Repair::None => continue,
            Repair::OpenBetweenNodes(group) => {
                let rule = Rule::tcp(PORT, Peer::Group(group.clone()));
                provider.client.authorize_ingress(&group, &[rule]).map_err(wrong)?;
            }
            Repair::Close(group, rule) => provider.client.revoke_ingress(&group, &[rule]).map_err(wrong)?,
            Repair::Tag(resource, name) => {
                let tags = [(tags::NAME.to_owned(), name)].into();
                provider.client.create_tags(&[resource], &tags).map_err(wrong)?;
            }
        }
        repaired.push(drift);
    }
    Ok(repaired)
}

fn changes(provider: &AwsProvider, parameters: &BTreeMap<String, String>) -> Result<Vec<Change>, ProviderError> {
    let given = |name: &str| parameters.get(name).map(String::as_str).unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |what: String, detail: String, repair| found.push(Change { drift: Drift { what, detail }, repair });
    let group = provider.group()?;
    match &group {
        None => add(format!("security group {}", given(parameter::GROUP)), "is gone".into(), Repair::None),
        Some(group) => {
            let what = || format!("security group {}", group.id);
            let between = Rule::tcp(PORT, Peer::Group(group.id.clone()));
            if !group.ingress.contains(&between) {
                add(what(), format!("does not let nodes reach each other at port {PORT}"), Repair::OpenBetweenNodes(group.id.clone()));
            }
            // Whom the nodes' port is opened to, the person says.
            for rule in group.ingress.iter().filter(|rule| **rule != Rule::tcp(PORT, rule.peer.clone())) {
                let detail = if rule.lets_in_tcp(SSH) { format!("lets port {SSH} be reached") } else { "lets in what is no node's".into() };
                add(what(), detail, Repair::Close(group.id.clone(), rule.clone()));
            }
        }
    }
    let address = given(ADDRESS);
    if !address.is_empty() {
        match provider.addresses()?.iter().find(|found| found.allocation == address) {
            None => add(format!("public address {address}"), "is gone".into(), Repair::None),
            Some(found) if found.instance.is_none() => {
                add(format!("public address {}", found.public), "leads nowhere; the leader takes it back".into(), Repair::None);
            }
            Some(_) => {}
        }
    }
    let living = provider.client.describe_instances(&[], &[provider.ours()]).map_err(|e| cloud("list the instances", e))?;
    for instance in living.iter().filter(|instance| !instance.state.is_gone()) {
        let what = || format!("instance {}", instance.id);
        if !given(parameter::GROUP).is_empty() && !instance.security_groups.iter().any(|id| id == given(parameter::GROUP)) {
            add(what(), format!("is not in security group {}", given(parameter::GROUP)), Repair::None);
        }
        if !instance.needs_metadata_token {
            add(what(), "answers metadata requests without a token (IMDSv1)".into(), Repair::None);
        }
        if !instance.tags.contains_key(tags::NAME) {
            let ordinal = tags::ordinal_of(&instance.tags).unwrap_or_default();
            let name = tags::shown(&format!("{} n{ordinal}", provider.cluster_name));
            add(what(), "has lost its name".into(), Repair::Tag(instance.id.clone(), name));
        }
    }
    Ok(found)
}
