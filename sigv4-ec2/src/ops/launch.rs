//! RunInstances, with defaults that are safe rather than Amazon's.

use super::instances::{self, Instance};
use crate::{Client, Error, Tags, form::Form, retry::Repeat};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::fmt;

/// EC2 takes so much, before base64.
pub const USER_DATA_BYTES_MAX: usize = 16 << 10;
/// EC2 takes so many ASCII letters.
pub const CLIENT_TOKEN_LETTERS_MAX: usize = 64;

/// What to launch. The metadata service asks for a token and answers only the machine itself (IMDSv2, one hop).
#[derive(Clone)]
pub struct RunInstances {
    /// `ami-…`
    pub image: String,
    /// For example `t4g.micro`.
    pub instance_type: String,
    /// So many, or none at all.
    pub count: u32,
    /// Makes repetitions one launch, for at least a day: the same token with the same parameters gives the same
    /// instances, with others [`crate::ErrorCode::IdempotentParameterMismatch`]. At most 64 ASCII letters.
    pub client_token: String,
    /// A key pair's name.
    pub key_name: Option<String>,
    /// Security groups' ids. None means the network's default group.
    pub security_groups: Vec<String>,
    /// None means the default one of some zone.
    pub subnet: Option<String>,
    /// None leaves it to the subnet.
    pub public_address: Option<bool>,
    /// What cloud-init reads; at most 16 KiB. Any process of the machine can read it: no lasting secrets.
    pub user_data: Vec<u8>,
    /// For the instance and its disks, from their first moment on.
    pub tags: Tags,
    /// None leaves the image's, which may not be encrypted.
    pub root_disk: Option<RootDisk>,
    /// How it is paid.
    pub market: Market,
    /// An instance profile's name, which gives the machine an IAM role.
    pub instance_profile: Option<String>,
    /// Whether `shutdown` inside ends it for good. EC2's default, and ours, is that it can be started again.
    pub terminate_on_shutdown: bool,
}

/// The disk that holds the system: encrypted, and deleted with its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootDisk {
    /// The image's root device: [`crate::Image::root_device`].
    pub device: String,
    /// GiB; none means the image's size.
    pub size_gib: Option<u32>,
    /// For example `gp3`.
    pub kind: String,
}

/// How an instance is paid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Market {
    /// By the second, until one ends it.
    #[default]
    OnDemand,
    /// What is left over, at today's price: Amazon may end it with two minutes' notice. Never restarted by itself.
    Spot {
        /// US dollars an hour at most; none means the price on demand.
        price_max: Option<String>,
    },
}

impl RunInstances {
    /// One instance on demand, all else as the fields' defaults say.
    pub fn new(image: impl Into<String>, instance_type: impl Into<String>, client_token: impl Into<String>) -> RunInstances {
        RunInstances {
            image: image.into(),
            instance_type: instance_type.into(),
            count: 1,
            client_token: client_token.into(),
            key_name: None,
            security_groups: Vec::new(),
            subnet: None,
            public_address: None,
            user_data: Vec::new(),
            tags: Tags::new(),
            root_disk: None,
            market: Market::OnDemand,
            instance_profile: None,
            terminate_on_shutdown: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |wrong: String| Err(Error::Parameter { action: ACTION, wrong });
        if self.user_data.len() > USER_DATA_BYTES_MAX {
            return wrong(format!("user data has {} bytes, EC2 takes {USER_DATA_BYTES_MAX}", self.user_data.len()));
        }
        let token = &self.client_token;
        if !(1..=CLIENT_TOKEN_LETTERS_MAX).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong(format!("client token `{token}` must be 1 to {CLIENT_TOKEN_LETTERS_MAX} ASCII letters without spaces"));
        }
        if self.count == 0 {
            return wrong("a count of 0 launches nothing".to_owned());
        }
        Ok(())
    }

    fn write(&self, form: &mut Form) {
        form.put("ImageId", &self.image);
        form.put("InstanceType", &self.instance_type);
        form.number("MinCount", self.count.into());
        form.number("MaxCount", self.count.into());
        form.put("ClientToken", &self.client_token);
        form.put_some("KeyName", self.key_name.as_deref());
        self.write_network(form);
        if !self.user_data.is_empty() {
            form.put("UserData", &BASE64.encode(&self.user_data));
        }
        form.tag_specifications(&["instance", "volume"], &self.tags);
        form.put("MetadataOptions.HttpTokens", "required");
        form.put("MetadataOptions.HttpPutResponseHopLimit", "1");
        form.put("MetadataOptions.HttpEndpoint", "enabled");
        if let Some(disk) = &self.root_disk {
            form.put("BlockDeviceMapping.1.DeviceName", &disk.device);
            form.put("BlockDeviceMapping.1.Ebs.VolumeType", &disk.kind);
            form.flag("BlockDeviceMapping.1.Ebs.Encrypted", true);
            form.flag("BlockDeviceMapping.1.Ebs.DeleteOnTermination", true);
            form.put_some("BlockDeviceMapping.1.Ebs.VolumeSize", disk.size_gib.map(|gib| gib.to_string()).as_deref());
        }
        if let Market::Spot { price_max } = &self.market {
            form.put("InstanceMarketOptions.MarketType", "spot");
            form.put("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time");
            form.put("InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", "terminate");
            form.put_some("InstanceMarketOptions.SpotOptions.MaxPrice", price_max.as_deref());
        }
        form.put_some("IamInstanceProfile.Name", self.instance_profile.as_deref());
        if self.terminate_on_shutdown {
            form.put("InstanceInitiatedShutdownBehavior", "terminate");
        }
    }

    /// Whether it gets a public address can only be said of a network interface, and then all else of the network must be.
    fn write_network(&self, form: &mut Form) {
        let Some(public) = self.public_address else {
            form.list("SecurityGroupId", &self.security_groups);
            form.put_some("SubnetId", self.subnet.as_deref());
            return;
        };
        form.put("NetworkInterface.1.DeviceIndex", "0");
        form.flag("NetworkInterface.1.AssociatePublicIpAddress", public);
        form.flag("NetworkInterface.1.DeleteOnTermination", true);
        form.list("NetworkInterface.1.SecurityGroupId", &self.security_groups);
        form.put_some("NetworkInterface.1.SubnetId", self.subnet.as_deref());
    }
}

const ACTION: &str = "RunInstances";

impl Client {
    /// Launches instances. Lost answers are asked for again under the same client token, which launches nothing more.
    ///
    /// # Errors
    /// [`Error::Parameter`] for what EC2 would refuse, else as every call. A new instance may be unknown to
    /// [`Client::describe_instances`] for some seconds.
    pub fn run_instances(&self, launch: &RunInstances) -> Result<Vec<Instance>, Error> {
        launch.check()?;
        let mut form = self.form(ACTION);
        launch.write(&mut form);
        self.ask(&form, Repeat::Harmless, |reply| reply.each("instancesSet", instances::read))
    }
}

impl fmt::Debug for RunInstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // User data may hold a token that lets a machine join something.
        let user_data = format!("({} bytes)", self.user_data.len());
        let mut shown = f.debug_struct("RunInstances");
        shown.field("image", &self.image).field("instance_type", &self.instance_type).field("count", &self.count);
        shown.field("client_token", &self.client_token).field("key_name", &self.key_name).field("subnet", &self.subnet);
        shown.field("security_groups", &self.security_groups).field("public_address", &self.public_address);
        shown.field("user_data", &user_data).field("tags", &self.tags).field("root_disk", &self.root_disk);
        shown.field("market", &self.market).field("instance_profile", &self.instance_profile);
        shown.field("terminate_on_shutdown", &self.terminate_on_shutdown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ec2_would_refuse_is_not_asked() {
        let good = RunInstances::new("ami-1", "t4g.micro", "token");
        assert!(good.check().is_ok());
        let wrong = [
            RunInstances { user_data: vec![0; USER_DATA_BYTES_MAX + 1], ..good.clone() },
            RunInstances { client_token: String::new(), ..good.clone() },
            RunInstances { client_token: "x".repeat(65), ..good.clone() },
            RunInstances { client_token: "ü".to_owned(), ..good.clone() },
            RunInstances { count: 0, ..good },
        ];
        for launch in wrong {
            assert!(launch.check().is_err(), "{launch:?}");
        }
    }

    #[test]
    fn user_data_is_not_shown() {
        let launch = RunInstances { user_data: b"DISCO1-secret".to_vec(), ..RunInstances::new("ami-1", "t4g.micro", "token") };
        let shown = format!("{launch:?}");
        assert!(shown.contains("(13 bytes)") && !shown.contains("secret"), "{shown}");
    }
}
