//! Networks (VPCs) and their parts, one in each zone (subnets).

use super::instances::PAGE;
use crate::{Client, Error, Filter, Tags, reply::Element};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    /// `vpc-…`
    pub id: String,
    /// Its addresses: `172.31.0.0/16`.
    pub range: String,
    /// Whether it is the one that is meant when none is named.
    pub is_default: bool,
    /// Its tags.
    pub tags: Tags,
}

/// A network's part in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`
    pub id: String,
    /// The network.
    pub vpc: String,
    /// For example `eu-central-1b`.
    pub zone: String,
    /// Its addresses: `172.31.16.0/20`.
    pub range: String,
    /// Addresses that are free.
    pub free: u32,
    /// Whether it is the one that is meant when only its zone is named.
    pub is_default: bool,
    /// Whether machines in it get a public address unless they say otherwise.
    pub gives_public_addresses: bool,
    /// Its tags.
    pub tags: Tags,
}

impl Client {
    /// Networks that match all filters; `is-default` = `true` finds the default one.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_vpcs(&self, filters: &[Filter]) -> Result<Vec<Vpc>, Error> {
        self.networks("DescribeVpcs", "vpcSet", filters, |item| {
            let (range, is_default) = (item.string("cidrBlock").unwrap_or_default(), item.is_true("isDefault"));
            Ok(Vpc { id: item.need("vpcId")?, range, is_default, tags: item.tags() })
        })
    }

    /// Subnets that match all filters, for example `vpc-id`.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_subnets(&self, filters: &[Filter]) -> Result<Vec<Subnet>, Error> {
        self.networks("DescribeSubnets", "subnetSet", filters, |item| {
            Ok(Subnet {
                id: item.need("subnetId")?,
                vpc: item.need("vpcId")?,
                zone: item.need("availabilityZone")?,
                range: item.string("cidrBlock").unwrap_or_default(),
                free: item.parsed("availableIpAddressCount")?.unwrap_or(0),
                is_default: item.is_true("defaultForAz"),
                gives_public_addresses: item.is_true("mapPublicIpOnLaunch"),
                tags: item.tags(),
            })
        })
    }

    fn networks<V>(
        &self,
        action: &'static str,
        list: &str,
        filters: &[Filter],
        read: impl Fn(Element<'_, '_>) -> Result<V, Error>,
    ) -> Result<Vec<V>, Error> {
        let mut form = self.form(action);
        form.filters(filters);
        let mut found = Vec::new();
        self.pages(&form, Some(PAGE), |page| {
            for item in page.items(list) {
                found.push(read(item)?);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
