//! The operations, a file for each kind of thing.

pub(crate) mod addresses;
pub(crate) mod groups;
pub(crate) mod iam;
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod keys;
pub(crate) mod launch;
pub(crate) mod machines;
pub(crate) mod networks;
pub(crate) mod tags;

use crate::Error;
use std::collections::BTreeMap;

/// Keys and values; a resource has at most 50.
pub type Tags = BTreeMap<String, String>;

/// One condition of a listing: the attribute is one of the values. EC2 takes `*` and `?` in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

impl Filter {
    /// `name` as the API reference lists them for the action, for example `instance-state-name`.
    pub fn new<V: Into<String>>(name: impl Into<String>, values: impl IntoIterator<Item = V>) -> Filter {
        Filter { name: name.into(), values: values.into_iter().map(Into::into).collect() }
    }

    /// Resources that have this tag with this value.
    pub fn tag(key: &str, value: impl Into<String>) -> Filter {
        Filter::new(format!("tag:{key}"), [value])
    }
}

/// An empty list of ids means "all" to EC2, which nobody who passes one wants.
fn need_some(action: &'static str, what: &str, values: &[String]) -> Result<(), Error> {
    if values.is_empty() {
        return Err(Error::Parameter { action, wrong: format!("no {what} given") });
    }
    Ok(())
}
