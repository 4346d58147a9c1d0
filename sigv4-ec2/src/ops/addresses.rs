//! Elastic addresses: public ones that stay, whichever machine has them. One that no machine has costs money, too.

use crate::{Client, Error, Filter, Tags, reply::Element, retry::Repeat};
use std::net::Ipv4Addr;

/// A public address of this account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `eipalloc-…`
    pub allocation: String,
    /// The address.
    pub public: Ipv4Addr,
    /// `eipassoc-…`, while it belongs to something.
    pub association: Option<String>,
    /// The machine it belongs to.
    pub instance: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Client {
    /// Gets an address.
    ///
    /// # Errors
    /// As every call. It has no client token: if the error [is ambiguous](Error::is_ambiguous), list addresses by the
    /// tags before asking for another one.
    pub fn allocate_address(&self, tags: &Tags) -> Result<Address, Error> {
        let mut form = self.form("AllocateAddress");
        form.put("Domain", "vpc");
        form.tag_specifications(&["elastic-ip"], tags);
        let mut address = self.ask(&form, Repeat::DoesItAgain, read)?;
        address.tags.clone_from(tags);
        Ok(address)
    }

    /// Gives an address to a machine, taking it from whichever has it. Gives the association's id.
    ///
    /// # Errors
    /// As every call; the machine must not be ended or just being launched.
    pub fn associate_address(&self, allocation: &str, instance: &str) -> Result<String, Error> {
        let mut form = self.form("AssociateAddress");
        form.put("AllocationId", allocation);
        form.put("InstanceId", instance);
        form.flag("AllowReassociation", true);
        self.ask(&form, Repeat::Harmless, |reply| reply.need("associationId"))
    }

    /// Takes an address from its machine. An association that is no more is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn disassociate_address(&self, association: &str) -> Result<(), Error> {
        let mut form = self.form("DisassociateAddress");
        form.put("AssociationId", association);
        self.tell(&form, Repeat::Harmless).or_else(unless_gone)
    }

    /// Gives an address back. One that is no more is no error.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::AddressInUse`] while a machine has it.
    pub fn release_address(&self, allocation: &str) -> Result<(), Error> {
        let mut form = self.form("ReleaseAddress");
        form.put("AllocationId", allocation);
        self.tell(&form, Repeat::Harmless).or_else(unless_gone)
    }

    /// Addresses that match all filters.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_addresses(&self, filters: &[Filter]) -> Result<Vec<Address>, Error> {
        let mut form = self.form("DescribeAddresses");
        form.filters(filters);
        self.ask(&form, Repeat::Harmless, |reply| reply.each("addressesSet", read))
    }
}

fn unless_gone(error: Error) -> Result<(), Error> {
    if error.is_not_found() { Ok(()) } else { Err(error) }
}

fn read(item: Element<'_, '_>) -> Result<Address, Error> {
    Ok(Address {
        allocation: item.need("allocationId")?,
        public: item.need_parsed("publicIp")?,
        association: item.string("associationId"),
        instance: item.string("instanceId"),
        tags: item.tags(),
    })
}
