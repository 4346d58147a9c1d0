//! What a cluster has at Amazon's beside its machines: a key pair, a security group, a public address, a role.
//!
//! `disco` makes them, each found again by our tags or a name of its own, so that making one twice makes one. The nodes use
//! them and never change them. All are listed and removed from here alone, so nothing that costs money is forgotten.

mod drift;
mod identity;
mod network;
mod raze;

pub use drift::{drift, repair};

use super::{AwsProvider, fault::cloud, parameter, tags};
use crate::{drivers::provider::ProviderError, model::instance::parameter::SPOT};
use sigv4_ec2::{Architecture, Image};
use std::collections::BTreeMap;

/// Two vCPU and 1 GiB for about six dollars a month: what the footprint promises are made for.
pub const INSTANCE_TYPE: &str = "t4g.micro";
/// What Ubuntu's images need.
pub const DISK_GIB: u32 = 8;
const NAME_LETTERS_MAX: usize = 40;

/// What a person asks machines to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// `ami-…`; none: the newest Ubuntu LTS.
    pub image: Option<String>,
    pub instance_type: Option<String>,
    pub spot: bool,
    pub disk_gib: Option<u32>,
}

/// EC2 User Guide, "Default user name for AMIs".
fn login(image_name: &str) -> &'static str {
    let name = image_name.to_lowercase();
    [("ubuntu", "ubuntu"), ("debian", "admin"), ("fedora", "fedora")]
        .into_iter()
        .find(|(part, _)| name.contains(part))
        .map_or("ec2-user", |(_, user)| user)
}

impl AwsProvider {
    /// What everything of this cluster is called that has a name: letters that EC2 and IAM both take.
    pub fn name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let shown: String = self.cluster_name.chars().map(plain).take(NAME_LETTERS_MAX).collect();
        let id = self.cluster.to_string();
        format!("disco-{shown}-{}", &id[..8])
    }

    /// The parameters that say what machines are made of: image and type fit together, and exist.
    ///
    /// # Errors
    /// EC2 does not know them, or they do not fit.
    pub fn resolve(&self, wish: &Wish) -> Result<BTreeMap<String, String>, ProviderError> {
        let kind = wish.instance_type.clone().unwrap_or_else(|| INSTANCE_TYPE.into());
        let types = self.client.describe_instance_types(std::slice::from_ref(&kind)).map_err(|e| cloud("look up the instance type", e))?;
        let offered = types.first().map(|found| found.architectures.clone()).unwrap_or_default();
        let image = match &wish.image {
            Some(id) => self.image(id)?,
            None => self.newest_image(&offered, &kind)?,
        };
        if !offered.is_empty() && !offered.contains(&image.architecture) {
            let what = format!("image {} is for {}, which {kind} does not run", image.id, image.architecture.as_str());
            return Err(ProviderError::Answer { what });
        }
        let root = image.root_device.clone().unwrap_or_else(|| "/dev/sda1".into());
        let mut parameters: BTreeMap<String, String> = [
            (parameter::REGION, self.client.region().to_owned()),
            (parameter::IMAGE, image.id.clone()),
            (parameter::ARCHITECTURE, image.architecture.as_str().to_owned()),
            (parameter::USER, login(&image.name).to_owned()),
            (parameter::INSTANCE_TYPE, kind),
            (parameter::ROOT_DEVICE, root),
            (parameter::DISK, wish.disk_gib.unwrap_or(DISK_GIB).to_string()),
            (SPOT, wish.spot.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(endpoint) = &self.endpoint {
            parameters.insert(parameter::ENDPOINT.into(), endpoint.clone());
        }
        Ok(parameters)
    }

    fn image(&self, id: &str) -> Result<Image, ProviderError> {
        let found = self.client.describe_images(&[id.to_owned()], &[], &[]).map_err(|e| cloud("look up the image", e))?;
        found.into_iter().next().ok_or_else(|| ProviderError::Answer { what: format!("there is no image {id}") })
    }

    /// For the first architecture the type runs; ARM before Intel if EC2 does not say.
    fn newest_image(&self, offered: &[Architecture], kind: &str) -> Result<Image, ProviderError> {
        let known = [Architecture::Arm64, Architecture::X86_64];
        let wanted = known.iter().find(|architecture| offered.is_empty() || offered.contains(architecture));
        let wanted = wanted.ok_or_else(|| ProviderError::Answer { what: format!("{kind} runs neither arm64 nor x86_64") })?;
        let found = self.client.newest_ubuntu_lts(wanted).map_err(|e| cloud("look for an image", e))?;
        found.ok_or_else(|| ProviderError::Answer { what: format!("there is no Ubuntu LTS image for {} in this region", wanted.as_str()) })
    }

    fn own_tags(&self) -> sigv4_ec2::Tags {
        tags::of_cluster(self.cluster, &self.name())
    }
}
