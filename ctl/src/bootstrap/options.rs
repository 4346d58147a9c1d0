//! What `new Cluster({…})` said, as `disco` needs it. The script's side has checked the form; here it is only read.

use proto::v1;
use serde_json::Value;

/// One of the hosts provider's machines.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct HostOption {
    pub address: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub host_key: Option<String>,
}

/// What `AwsProvider.init({…})` said.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct AwsOptions {
    pub region: String,
    pub profile: Option<String>,
    pub endpoint: Option<String>,
    pub role: Option<String>,
    #[serde(default)]
    pub allow: Vec<String>,
}

/// As the script host hands it over: durations in milliseconds, `replace_after` null for "never".
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub name: String,
    /// `local`, `hosts` or `aws`.
    pub provider: String,
    value: Value,
}

impl Options {
    /// `None`: init() returned something else than a cluster.
    pub fn read(value: &Value) -> Option<Options> {
        let name = value.get("name")?.as_str()?.to_owned();
        let provider = value.get("provider")?.get("kind")?.as_str()?.to_owned();
        Some(Options { name, provider, value: value.clone() })
    }

    /// The hosts provider's; none for other providers.
    pub fn hosts(&self) -> Vec<HostOption> {
        self.value["provider"].get("hosts").and_then(|hosts| serde_json::from_value(hosts.clone()).ok()).unwrap_or_default()
    }

    /// The aws provider's; none for other providers.
    pub fn aws(&self) -> Option<AwsOptions> {
        let provider = self.value.get("provider").filter(|provider| provider["kind"] == "aws")?;
        serde_json::from_value(provider.clone()).ok()
    }

    /// Only the fields the script gave.
    pub fn configure(&self) -> v1::ConfigureRequest {
        let number = |field: &str| u32::try_from(self.value.get(field)?.as_u64()?).ok();
        v1::ConfigureRequest {
            managers: number("managers"),
            min_nodes: number("min_nodes"),
            max_nodes: number("max_nodes"),
            max_launches_per_hour: number("max_launches_per_hour"),
            replace_after_ms: self.value.get("replace_after").map(|ms| ms.as_u64().unwrap_or(0)),
            below_min: self.value.get("below_min").and_then(Value::as_str).map(str::to_owned),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_stay_absent_and_null_means_never() {
        let options = |more: Value| {
            let mut value = json!({ "name": "lab", "provider": { "kind": "local", "name": "here" } });
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Options::read(&value).expect("it is a cluster").configure()
        };
        assert_eq!(options(json!({})), v1::ConfigureRequest::default());
        assert_eq!(
            options(json!({ "managers": 5, "replace_after": null, "below_min": "stop" })),
            v1::ConfigureRequest { managers: Some(5), replace_after_ms: Some(0), below_min: Some("stop".into()), ..Default::default() }
        );
        assert_eq!(options(json!({ "replace_after": 120000 })).replace_after_ms, Some(120_000));
    }

    #[test]
    fn what_is_no_cluster_is_not_taken_for_one() {
        for value in [json!(null), json!({}), json!({ "name": 3, "provider": { "kind": "local" } }), json!({ "name": "x" })] {
            assert_eq!(Options::read(&value), None, "{value}");
        }
    }
}
