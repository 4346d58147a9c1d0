//! `.disco/aws.json`: what a cluster on AWS was made of. Written before a step is taken that needs it, so that the next
//! `disco` asks for the very same things.

use crate::bootstrap::options::AwsOptions;
use crate::context::Context;
use crate::message::Failure;
use agent::drivers::provider::{AwsConfig, aws::parameter};
use agent::model::instance::parameter as shared;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = crate::context::AWS;
/// A launch that EC2 had no room for is followed by another one, under a name of its own.
const ON_DEMAND: &str = "on-demand";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    pub region: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// An instance profile that somebody else made; none: one is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// From where the nodes may be reached, as `address/bits`; empty: from where `disco` runs.
    pub allow: Vec<String>,
    /// The private key of `set_key_pair`, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What launches are made of.
    pub parameters: BTreeMap<String, String>,
    /// The host key that the first machine gets by its user-data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<KeyPair>,
    /// Host keys that the first machine may show.
    pub pinned: Vec<String>,
    /// The first instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// There was no spot capacity for the first machine. The others ask for it themselves.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first_on_demand: bool,
    /// A destroy has ended every machine and given back every address: what may be left costs nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub private: String,
    pub public: String,
}

impl Notes {
    /// # Errors
    /// The file is damaged.
    pub fn read(context: &Context) -> Result<Notes, Failure> {
        Ok(context.json(FILE)?.unwrap_or_default())
    }

    /// # Errors
    /// As writing files goes.
    pub fn write(&self, context: &Context) -> Result<(), Failure> {
        context.write_secret_json(FILE, self)
    }

    /// Reads, changes, writes.
    ///
    /// # Errors
    /// As both.
    pub fn change(context: &Context, change: impl FnOnce(&mut Notes)) -> Result<Notes, Failure> {
        let before = Notes::read(context)?;
        let mut notes = before.clone();
        change(&mut notes);
        if notes != before {
            notes.write(context)?;
        }
        Ok(notes)
    }

    /// What the first launch is made of.
    pub fn of_first(&self) -> BTreeMap<String, String> {
        let mut parameters = self.parameters.clone();
        if self.first_on_demand {
            parameters.insert(shared::SPOT.into(), "false".into());
            parameters.insert(parameter::ATTEMPT.into(), ON_DEMAND.into());
        }
        parameters
    }

    /// Ids of what was made and is known again by its tags, in words.
    pub fn made(&self) -> Vec<String> {
        let given = |name: &str| self.parameters.get(name);
        let group = given(parameter::GROUP).map(|id| format!("security group {id}"));
        let address = given(shared::ADDRESS).map(|id| format!("public address {id}"));
        let first = self.first.as_ref().map(|id| format!("instance {id}"));
        group.into_iter().chain(address).chain(first).collect()
    }

    /// What client.js says of the provider. A cluster does not move to another region.
    ///
    /// # Errors
    /// It says another region than before, or the disk fails.
    pub fn take(context: &Context, options: AwsOptions) -> Result<(), Failure> {
        let known = Notes::read(context)?;
        if !known.region.is_empty() && known.region != options.region {
            return Err(Failure::broke(format!("this folder's cluster is in {}, but client.js says {}", known.region, options.region))
                .hint("a cluster does not move; end it first with `disco destroy`"));
        }
        let AwsOptions { region, endpoint, profile, role, allow } = options;
        Notes::change(context, |notes| {
            (notes.region, notes.endpoint, notes.profile, notes.role, notes.allow) = (region, endpoint, profile, role, allow);
        })
        .map(drop)
    }

    pub fn config(&self) -> AwsConfig {
        AwsConfig { region: self.region.clone(), endpoint: self.endpoint.clone(), profile: self.profile.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_machine_alone_is_on_demand_when_there_was_no_spot_capacity_for_it() {
        let old = r#"{ "region": "eu-central-1", "allow": [], "parameters": { "spot": "true" }, "pinned": [] }"#;
        let mut notes: Notes = serde_json::from_str(old).expect("notes of an older disco are read");
        assert_eq!((notes.of_first(), notes.made().len()), (notes.parameters.clone(), 0));
        notes.first_on_demand = true;
        let first = notes.of_first();
        assert_eq!((first[shared::SPOT].as_str(), first[parameter::ATTEMPT].as_str()), ("false", ON_DEMAND));
        assert_eq!((notes.parameters[shared::SPOT].as_str(), notes.parameters.len()), ("true", 1));
    }
}
