//! Images, and which one to take.

use super::instances::PAGE;
use crate::{Client, Error, Filter, reply::Element, time::parse_rfc3339};
use std::time::SystemTime;

/// Canonical's account, which publishes Ubuntu (Ubuntu documentation, "Find Ubuntu images on AWS").
pub const UBUNTU_OWNER: &str = "099720109477";
/// The same in China.
pub const UBUNTU_OWNER_CHINA: &str = "837727238323";
/// The same for the government's regions.
pub const UBUNTU_OWNER_US_GOV: &str = "513442679011";

/// A disk to start machines from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// For example `ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20260101`.
    pub name: String,
    /// The account that published it.
    pub owner: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// Where its system disk lies: `/dev/sda1`.
    pub root_device: Option<String>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// Whether it can be used now.
    pub is_available: bool,
}

/// A processor's kind, as EC2 writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// 64 bit ARM: Graviton, `t4g.…`
    Arm64,
    /// 64 bit Intel and AMD.
    X86_64,
    /// Anything else.
    Other(String),
}

impl Architecture {
    /// Never fails: an unknown one is [`Architecture::Other`].
    pub fn parse(text: &str) -> Architecture {
        match text {
            "arm64" => Architecture::Arm64,
            "x86_64" => Architecture::X86_64,
            other => Architecture::Other(other.to_owned()),
        }
    }

    /// As EC2 writes it, also in filters.
    pub fn as_str(&self) -> &str {
        match self {
            Architecture::Arm64 => "arm64",
            Architecture::X86_64 => "x86_64",
            Architecture::Other(text) => text,
        }
    }

    /// As Ubuntu's image names have it.
    fn in_ubuntu_names(&self) -> &str {
        match self {
            Architecture::X86_64 => "amd64",
            other => other.as_str(),
        }
    }
}

impl Client {
    /// Images that match all filters. Name owners: anybody can publish an image of any name.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::ImageNotFound`] for an unknown id.
    pub fn describe_images(&self, ids: &[String], owners: &[String], filters: &[Filter]) -> Result<Vec<Image>, Error> {
        let mut form = self.form("DescribeImages");
        form.list("ImageId", ids);
        form.list("Owner", owners);
        form.filters(filters);
        let mut found = Vec::new();
        self.pages(&form, ids.is_empty().then_some(PAGE), |page| {
            found.extend(page.each("imagesSet", read)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The newest available image of an owner whose name matches `name` (with `*` and `?`); `None` if there is none.
    ///
    /// # Errors
    /// As every call.
    pub fn newest_image(&self, owner: &str, name: &str, architecture: &Architecture) -> Result<Option<Image>, Error> {
        let filters = [
            Filter::new("name", [name]),
            Filter::new("architecture", [architecture.as_str()]),
            Filter::new("state", ["available"]),
            Filter::new("root-device-type", ["ebs"]),
            Filter::new("virtualization-type", ["hvm"]),
        ];
        let mut found = self.describe_images(&[], &[owner.to_owned()], &filters)?;
        // The filters are the service's word; what is started is decided by what the image says of itself.
        found.retain(|image| image.is_available && image.architecture == *architecture && image.owner == owner);
        Ok(found.into_iter().max_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name))))
    }

    /// The newest image of Ubuntu's newest long-term release, from Canonical's account of this partition.
    ///
    /// # Errors
    /// As every call.
    pub fn newest_ubuntu_lts(&self, architecture: &Architecture) -> Result<Option<Image>, Error> {
        let owner = match self.partition() {
            "aws-cn" => UBUNTU_OWNER_CHINA,
            "aws-us-gov" => UBUNTU_OWNER_US_GOV,
            _ => UBUNTU_OWNER,
        };
        // Long-term releases come in April of even years: 26.04 is not there yet in every region.
        for release in ["26.04", "24.04", "22.04"] {
            let name = format!("ubuntu/images/hvm-ssd*/ubuntu-*-{release}-{}-server-*", architecture.in_ubuntu_names());
            if let Some(image) = self.newest_image(owner, &name, architecture)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }
}

fn read(item: Element<'_, '_>) -> Result<Image, Error> {
    Ok(Image {
        id: item.need("imageId")?,
        name: item.string("name").unwrap_or_default(),
        owner: item.string("imageOwnerId").unwrap_or_default(),
        architecture: Architecture::parse(item.text("architecture").unwrap_or_default()),
        root_device: item.string("rootDeviceName"),
        created: item.text("creationDate").and_then(parse_rfc3339),
        is_available: item.text("imageState") == Some("available"),
    })
}
