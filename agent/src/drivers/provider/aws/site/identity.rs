//! Who may log in to the first machine, and what the machines themselves may do at Amazon's.

use super::super::{AwsProvider, fault::cloud, tags};
use crate::drivers::provider::ProviderError;
use sigv4_ec2::{Error, InstanceProfile, PublicKey};

const POLICY: &str = "disco";

impl AwsProvider {
    /// Lets EC2 know the public key (a line of OpenSSH's), under the cluster's name; one that is there is compared.
    ///
    /// # Errors
    /// It is no key, or another one has the name.
    pub fn ensure_key_pair(&self, public: &str) -> Result<String, ProviderError> {
        let key = PublicKey::parse(public).map_err(|error| ProviderError::Answer { what: error.to_string() })?;
        let name = self.name();
        if let Some(known) = self.key_pair()? {
            if key.has_fingerprint(&known.fingerprint) {
                return Ok(name);
            }
            let what = format!("key pair `{name}` has fingerprint {}, the given key has {}", known.fingerprint, key.fingerprint());
            return Err(ProviderError::Answer { what });
        }
        match self.client.import_key_pair(&name, &key, &self.own_tags()) {
            Err(error) if error.is_duplicate() => match self.key_pair()? {
                Some(known) if key.has_fingerprint(&known.fingerprint) => Ok(name),
                _ => Err(cloud("import the key pair", error)),
            },
            imported => imported.map(|_| name).map_err(|e| cloud("import the key pair", e)),
        }
    }

    /// By filter, not by name: a name that is not there is an error to EC2.
    pub(super) fn key_pair(&self) -> Result<Option<sigv4_ec2::KeyPair>, ProviderError> {
        let named = sigv4_ec2::Filter::new("key-name", [self.name()]);
        let found = self.client.describe_key_pairs(&[], &[named]).map_err(|e| cloud("look for the key pair", e))?;
        Ok(found.into_iter().next())
    }

    /// The instance profile that lets a node that leads do its work: launch, start, stop and end machines of this cluster,
    /// move its address, and nothing else.
    ///
    /// # Errors
    /// IAM's.
    pub fn ensure_profile(&self) -> Result<String, ProviderError> {
        let name = self.name();
        let wrong = |error| cloud("make the nodes' role", error);
        if self.client.role(&name).map_err(wrong)?.is_none() {
            match self.client.create_role(&name, &self.own_tags()) {
                Err(error) if error.is_duplicate() => {}
                made => drop(made.map_err(wrong)?),
            }
        }
        self.client.put_role_policy(&name, POLICY, &self.policy()).map_err(wrong)?;
        let profile = match self.client.instance_profile(&name).map_err(wrong)? {
            Some(profile) => profile,
            None => self.make_profile(&name).map_err(wrong)?,
        };
        if !profile.roles.contains(&name) {
            self.add_role(&name).map_err(wrong)?;
        }
        Ok(name)
    }

    /// One that is there was made by an earlier delivery of this very request: whose answer was lost.
    fn make_profile(&self, name: &str) -> Result<InstanceProfile, Error> {
        match self.client.create_instance_profile(name, &self.own_tags()) {
            Err(error) if error.is_duplicate() => self.client.instance_profile(name)?.ok_or(error),
            made => made,
        }
    }

    /// A profile holds one role, so a second delivery is refused; then it counts which one is in it.
    fn add_role(&self, name: &str) -> Result<(), Error> {
        let Err(error) = self.client.add_role_to_instance_profile(name, name) else { return Ok(()) };
        match self.client.instance_profile(name)? {
            Some(profile) if error.code().is_some() && profile.roles.iter().any(|role| role == name) => Ok(()),
            _ => Err(error),
        }
    }

    pub(super) fn remove_profile(&self) -> Result<bool, ProviderError> {
        let name = self.name();
        let wrong = |error| cloud("remove the nodes' role", error);
        let profile = self.client.instance_profile(&name).map_err(wrong)?;
        let role = self.client.role(&name).map_err(wrong)?;
        if let Some(profile) = &profile {
            for role in &profile.roles {
                self.client.remove_role_from_instance_profile(&name, role).map_err(wrong)?;
            }
            self.client.delete_instance_profile(&name).map_err(wrong)?;
        }
        if role.is_some() {
            for policy in self.client.role_policies(&name).map_err(wrong)? {
                self.client.delete_role_policy(&name, &policy).map_err(wrong)?;
            }
            self.client.delete_role(&name).map_err(wrong)?;
        }
        Ok(profile.is_some() || role.is_some())
    }

    /// What is made must bear the cluster's tag, what is changed must bear it already (IAM User Guide, "Controlling access
    /// to AWS resources using tags").
    fn policy(&self) -> String {
        let (partition, cluster) = (self.client.partition(), self.cluster.to_string());
        let tag = tags::CLUSTER;
        let ec2 = |kinds: &[&str]| kinds.iter().map(|kind| format!("arn:{partition}:ec2:*:*:{kind}/*")).collect::<Vec<_>>();
        let images = format!("arn:{partition}:ec2:*::image/*");
        let made_from = [ec2(&["subnet", "network-interface", "security-group", "key-pair"]), vec![images]].concat();
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": [
                        "ec2:DescribeInstances", "ec2:DescribeAddresses", "ec2:DescribeSecurityGroups", "ec2:DescribeKeyPairs",
                    ],
                    "Resource": "*",
                },
                {
                    "Effect": "Allow",
                    "Action": "ec2:RunInstances",
                    "Resource": ec2(&["instance", "volume"]),
                    "Condition": { "StringEquals": { format!("aws:RequestTag/{tag}"): cluster } },
                },
                {
                    "Effect": "Allow",
                    "Action": "ec2:RunInstances",
                    "Resource": made_from,
                },
                {
                    "Effect": "Allow",
                    "Action": "ec2:CreateTags",
                    "Resource": ec2(&["instance", "volume"]),
                    "Condition": { "StringEquals": { "ec2:CreateAction": "RunInstances" } },
                },
                {
                    "Effect": "Allow",
                    "Action": ["ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances", "ec2:AssociateAddress"],
                    "Resource": "*",
                    "Condition": { "StringEquals": { format!("aws:ResourceTag/{tag}"): cluster } },
                },
                {
                    "Effect": "Allow",
                    "Action": "iam:PassRole",
                    "Resource": format!("arn:{partition}:iam::*:role/{}", self.name()),
                    "Condition": { "StringLike": { "iam:PassedToService": "ec2.amazonaws.com*" } },
                },
            ],
        });
        policy.to_string()
    }
}
