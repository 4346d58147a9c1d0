//! The end of everything a cluster has at Amazon's.

use super::super::{
    AwsProvider,
    fault::{self, cloud},
};
use crate::drivers::provider::{Provider as _, ProviderError};
use sigv4_ec2::ErrorCode;

impl AwsProvider {
    /// Whether anything is here by which a cluster can be known again: its group, an address, a machine, even one that ended.
    /// With another account's credentials, or in another region, nothing is.
    ///
    /// # Errors
    /// EC2's.
    pub fn sees_anything(&self) -> Result<bool, ProviderError> {
        if self.group()?.is_some() || !self.addresses()?.is_empty() {
            return Ok(true);
        }
        let listed = self.client.describe_instances(&[], &[self.ours()]).map_err(|e| cloud("list the instances", e))?;
        Ok(!listed.is_empty())
    }

    /// Removes one thing after another, all but the groups, and tells each that went. True: nothing that costs money is left.
    /// `names_role`: the nodes have a role that a person named, so that whoever ends the cluster may need no permission to
    /// look at roles.
    ///
    /// # Errors
    /// Amazon's; called again it goes on.
    pub fn raze(&self, names_role: bool, tell: &mut dyn FnMut(String)) -> Result<bool, ProviderError> {
        let listed = self.client.describe_instances(&[], &[self.ours()]).map_err(|e| cloud("list the instances", e))?;
        for instance in listed.iter().filter(|instance| !instance.state.is_gone()) {
            self.terminate(&instance.id)?;
            tell(format!("instance {} ends", instance.id));
        }
        for address in self.addresses()? {
            if let Some(association) = &address.association {
                self.client.disassociate_address(association).map_err(|e| cloud("take the public address away", e))?;
            }
            self.client.release_address(&address.allocation).map_err(|e| cloud("give back the public address", e))?;
            tell(format!("public address {} is given back", address.public));
        }
        if let Some(pair) = self.key_pair()? {
            self.client.delete_key_pair(&pair.name).map_err(|e| cloud("remove the key pair", e))?;
            tell(format!("key pair {} is gone", pair.name));
        }
        if self.remove_own_profile(names_role)? {
            tell(format!("role {} is gone", self.name()));
        }
        Ok(listed.iter().all(|instance| instance.state == sigv4_ec2::InstanceState::Terminated))
    }

    /// There may be one of ours also where a role is named: from before it was. Whoever may not look for it has made none.
    fn remove_own_profile(&self, names_role: bool) -> Result<bool, ProviderError> {
        match self.remove_profile() {
            Err(error) if names_role && fault::is_denied(&error) => Ok(false),
            removed => removed,
        }
    }

    /// Removes the groups, by which the rest is found: last. True: none is left; something may still hold one.
    ///
    /// # Errors
    /// EC2's; called again it goes on.
    pub fn remove_groups(&self, tell: &mut dyn FnMut(String)) -> Result<bool, ProviderError> {
        let groups = self.client.describe_security_groups(&[], &[self.ours()]).map_err(|e| cloud("look for the security group", e))?;
        let mut all_gone = true;
        for group in groups {
            match self.client.delete_security_group(&group.id) {
                Ok(()) => tell(format!("security group {} is gone", group.id)),
                Err(error) if error.is_not_found() => {}
                Err(error) if matches!(error.code(), Some(ErrorCode::DependencyViolation | ErrorCode::GroupInUse)) => all_gone = false,
                Err(error) => return Err(cloud("remove the security group", error)),
            }
        }
        Ok(all_gone)
    }
}
