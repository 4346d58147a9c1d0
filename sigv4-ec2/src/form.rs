//! The Query API's request: a form of `Key.1.Part=value` pairs (EC2 API Reference, "Making API requests").
//!
//! It is written once, percent-encoded as it goes over the wire, because that text is what gets signed.

use crate::{Filter, Tags};
use std::fmt::Write as _;

/// A request's body while it grows. Empty options are not sent: for EC2 an empty value is not the same as none.
#[derive(Clone)]
pub(crate) struct Form {
    action: &'static str,
    text: String,
}

impl Form {
    pub(crate) fn new(action: &'static str, version: &str) -> Form {
        Form { action, text: format!("Action={action}&Version={version}") }
    }

    pub(crate) fn action(&self) -> &'static str {
        self.action
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) {
        self.text.push('&');
        self.text.push_str(key);
        self.text.push('=');
        encode(value, &mut self.text);
    }

    pub(crate) fn put_some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.put(key, &value.to_string());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.put(key, if value { "true" } else { "false" });
    }

    /// `InstanceId.1=…&InstanceId.2=…`
    pub(crate) fn list<S: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) {
        for (index, value) in values.into_iter().enumerate() {
            self.put(&format!("{key}.{}", index + 1), value.as_ref());
        }
    }

    pub(crate) fn filters(&mut self, filters: &[Filter]) {
        for (index, filter) in filters.iter().enumerate() {
            let key = format!("Filter.{}", index + 1);
            self.put(&format!("{key}.Name"), &filter.name);
            self.list(&format!("{key}.Value"), &filter.values);
        }
    }

    /// `PREFIXTag.1.Key=…&PREFIXTag.1.Value=…`
    pub(crate) fn tags(&mut self, prefix: &str, tags: &Tags) {
        for (index, (key, value)) in tags.iter().enumerate() {
            let tag = format!("{prefix}Tag.{}", index + 1);
            self.put(&format!("{tag}.Key"), key);
            self.put(&format!("{tag}.Value"), value);
        }
    }

    /// The same tags for each of the resources that an action makes.
    pub(crate) fn tag_specifications(&mut self, resources: &[&str], tags: &Tags) {
        if tags.is_empty() {
            return;
        }
        for (index, resource) in resources.iter().enumerate() {
            let key = format!("TagSpecification.{}", index + 1);
            self.put(&format!("{key}.ResourceType"), resource);
            self.tags(&format!("{key}."), tags);
        }
    }
}

/// Of a form (WHATWG URL, "application/x-www-form-urlencoded"): all but RFC 3986's unreserved letters is encoded, in upper
/// case, and a space is `+`. AWS takes `%20` as well, but this is what its own clients send.
fn encode(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => into.push(char::from(byte)),
            b' ' => into.push('+'),
            _ => write!(into, "%{byte:02X}").expect("a String takes everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_what_the_reference_shows() {
        let mut form = Form::new("RunInstances", "2016-11-15");
        form.list("SecurityGroupId", ["sg-1", "sg-2"]);
        form.filters(&[Filter::new("tag:a b", ["x", "y+z"])]);
        form.tag_specifications(&["instance"], &[("Name".to_owned(), "ü&=".to_owned())].into());
        form.put_some("Nothing", None);
        let expected = "Action=RunInstances&Version=2016-11-15&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2\
            &Filter.1.Name=tag%3Aa+b&Filter.1.Value.1=x&Filter.1.Value.2=y%2Bz\
            &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=%C3%BC%26%3D";
        assert_eq!(std::str::from_utf8(form.as_bytes()), Ok(expected));
    }
}
