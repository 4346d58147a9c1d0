//! What there is to launch and how it does: types, spot prices, health, the console.

use super::{instances::PAGE, need_some};
use crate::{Architecture, Client, Error, InstanceState, reply::Element, retry::Repeat, time::parse_rfc3339};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::time::SystemTime;

/// A size of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// For example `t4g.micro`.
    pub name: String,
    /// What it can run.
    pub architectures: Vec<Architecture>,
    /// Processors, as the system sees them.
    pub cpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// Whether it can be a spot instance.
    pub has_spot: bool,
    /// Whether it is one of the account's free ones.
    pub is_free_tier: bool,
}

/// How an instance does (EC2 API Reference, `InstanceStatus`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// `i-…`
    pub id: String,
    /// What it does.
    pub state: Option<InstanceState>,
    /// The system inside: `ok`, `impaired`, `initializing`, `insufficient-data`.
    pub instance: String,
    /// The host below: the same words.
    pub system: String,
    /// What Amazon has planned for it: `instance-retirement`, `system-reboot` …
    pub events: Vec<String>,
}

/// What a spot instance costs since some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotPrice {
    /// For example `t4g.micro`.
    pub instance_type: String,
    /// For example `eu-central-1b`.
    pub zone: String,
    /// US dollars an hour, as EC2 writes it: `0.002500`.
    pub price: String,
    /// Since when.
    pub since: Option<SystemTime>,
}

impl Client {
    /// Types by name; it fails if one is not offered in this region. All of them would be megabytes, so name some.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::InstanceTypeInvalid`].
    pub fn describe_instance_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error> {
        need_some("DescribeInstanceTypes", "types", names)?;
        let mut form = self.form("DescribeInstanceTypes");
        form.list("InstanceType", names);
        let mut found = Vec::new();
        self.pages(&form, None, |page| {
            found.extend(page.each("instanceTypeSet", instance_type)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Health of these instances, also of those that do not run.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_instance_status(&self, ids: &[String]) -> Result<Vec<InstanceStatus>, Error> {
        let mut form = self.form("DescribeInstanceStatus");
        form.list("InstanceId", ids);
        form.flag("IncludeAllInstances", true);
        let mut found = Vec::new();
        self.pages(&form, ids.is_empty().then_some(PAGE), |page| {
            found.extend(page.each("instanceStatusSet", status)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// What the machine wrote to its console, at most the last 64 KiB; new machines have nothing for some minutes.
    ///
    /// # Errors
    /// As every call.
    pub fn console_output(&self, id: &str) -> Result<Option<String>, Error> {
        let mut form = self.form("GetConsoleOutput");
        form.put("InstanceId", id);
        self.ask(&form, Repeat::Harmless, |reply| {
            let Some(text) = reply.text("output") else { return Ok(None) };
            let encoded: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let wrong = |error| Error::reply("GetConsoleOutput", format!("<output> is no base64: {error}"));
            let bytes = BASE64.decode(encoded).map_err(wrong)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        })
    }

    /// Today's spot prices of Linux machines of these types, one for each type and zone.
    ///
    /// # Errors
    /// As every call.
    pub fn spot_prices(&self, types: &[String]) -> Result<Vec<SpotPrice>, Error> {
        need_some("DescribeSpotPriceHistory", "types", types)?;
        let mut form = self.form("DescribeSpotPriceHistory");
        form.list("InstanceType", types);
        form.list("ProductDescription", ["Linux/UNIX"]);
        // A history that begins now is the price that holds now.
        form.put("StartTime", &self.now_rfc3339());
        let mut found: Vec<SpotPrice> = Vec::new();
        self.pages(&form, Some(PAGE), |page| {
            found.extend(page.each("spotPriceHistorySet", spot_price)?);
            Ok(())
        })?;
        found.sort_by(|one, other| {
            let key = |price: &SpotPrice| (price.instance_type.clone(), price.zone.clone(), std::cmp::Reverse(price.since));
            key(one).cmp(&key(other))
        });
        found.dedup_by(|next, kept| next.instance_type == kept.instance_type && next.zone == kept.zone);
        Ok(found)
    }
}

fn instance_type(item: Element<'_, '_>) -> Result<InstanceType, Error> {
    let architectures = item.child("processorInfo").map(|info| info.texts("supportedArchitectures")).unwrap_or_default();
    let number = |of: &str, name: &str| item.child(of).map_or(Ok(None), |of| of.parsed::<u64>(name));
    Ok(InstanceType {
        name: item.need("instanceType")?,
        architectures: architectures.iter().map(|text| Architecture::parse(text)).collect(),
        cpus: number("vCpuInfo", "defaultVCpus")?.unwrap_or(0).try_into().unwrap_or(u32::MAX),
        memory_mib: number("memoryInfo", "sizeInMiB")?.unwrap_or(0),
        has_spot: item.texts("supportedUsageClasses").iter().any(|class| class == "spot"),
        is_free_tier: item.is_true("freeTierEligible"),
    })
}

fn status(item: Element<'_, '_>) -> Result<InstanceStatus, Error> {
    let word = |name| item.child(name).and_then(|status| status.string("status")).unwrap_or_default();
    let state = item.child("instanceState").and_then(|state| state.text("name"));
    Ok(InstanceStatus {
        id: item.need("instanceId")?,
        state: state.map(InstanceState::parse),
        instance: word("instanceStatus"),
        system: word("systemStatus"),
        events: item.items("eventsSet").filter_map(|event| event.string("code")).collect(),
    })
}

fn spot_price(item: Element<'_, '_>) -> Result<SpotPrice, Error> {
    Ok(SpotPrice {
        instance_type: item.need("instanceType")?,
        zone: item.string("availabilityZone").unwrap_or_default(),
        price: item.need("spotPrice")?,
        since: item.text("timestamp").and_then(parse_rfc3339),
    })
}
