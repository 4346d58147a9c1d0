//! The variables that Amazon's own tools read ("AWS SDKs and Tools Reference Guide", environment variables).

use std::{collections::BTreeMap, env, fmt};

/// What is read, and nothing else.
const NAMES: [&str; 16] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_CA_BUNDLE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "HOME",
];

/// Variables as they were at one moment. Never shows their values.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl Environment {
    /// This process's, without those that are empty.
    pub fn of_process() -> Environment {
        NAMES.iter().filter_map(|name| Some((*name, env::var(name).ok()?))).collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        debug_assert!(NAMES.contains(&name), "{name} is not among those that are read");
        self.values.get(name).map(String::as_str)
    }

    /// A custom address of `EC2` or `IAM`.
    pub(crate) fn endpoint(&self, service: &str) -> Option<&str> {
        if self.value("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        self.value(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| self.value("AWS_ENDPOINT_URL"))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Environment {
        let values = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Environment { values: values.filter(|(_, value): &(String, String)| !value.is_empty()).collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}
