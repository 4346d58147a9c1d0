//! `.disco/aws.json`: what a cluster on AWS was made of. Written before a step is taken that needs it, so that the next
//! `disco` asks for the very same things.

use crate::bootstrap::options::AwsOptions;
use crate::context::Context;
use crate::message::Failure;
use agent::drivers::provider::AwsConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "aws.json";

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
