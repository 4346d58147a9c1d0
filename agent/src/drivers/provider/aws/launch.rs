//! What RunInstances is asked for, out of the parameters that were decided.

use super::{super::ProviderError, parameter, tags};
use crate::model::{ids::OperationId, instance::parameter::SPOT};
use sigv4_ec2::{Market, RootDisk, RunInstances};
use std::collections::BTreeMap;

/// Encrypted whatever the image is, and deleted with its instance.
const DISK_KIND: &str = "gp3";

/// The same for equal arguments: EC2 takes a repetition only if it is one.
///
/// # Errors
/// A parameter is missing or makes no sense.
pub fn request(
    operation: OperationId,
    ordinal: u32,
    cluster_name: &str,
    parameters: &BTreeMap<String, String>,
    user_data: String,
) -> Result<RunInstances, ProviderError> {
    let given = |name: &str| parameters.get(name).filter(|value| !value.is_empty()).cloned();
    let needed = |name: &'static str| given(name).ok_or(ProviderError::Parameter { name, value: String::new() });
    let token = given(parameter::ATTEMPT).map_or(operation.to_string(), |attempt| format!("{operation}-{attempt}"));
    let mut request = RunInstances::new(needed(parameter::IMAGE)?, needed(parameter::INSTANCE_TYPE)?, token);
    let size_gib = match given(parameter::DISK) {
        Some(text) => Some(text.parse().map_err(|_| ProviderError::Parameter { name: parameter::DISK, value: text })?),
        None => None,
    };
    request.root_disk = given(parameter::ROOT_DEVICE).map(|device| RootDisk { device, size_gib, kind: DISK_KIND.into() });
    request.key_name = given(parameter::KEY_NAME);
    request.security_groups = given(parameter::GROUP).into_iter().collect();
    request.subnet = given(parameter::SUBNET);
    request.instance_profile = given(parameter::PROFILE);
    request.tags = tags::of_instance(operation, ordinal, cluster_name);
    request.user_data = user_data.into_bytes();
    if given(SPOT).is_some_and(|spot| spot == "true") {
        request.market = Market::Spot { price_max: None };
    }
    Ok(request)
}
