//! Tags: by which one finds again what one made.

use super::{instances::PAGE, need_some};
use crate::{Client, Error, Filter, Tags, retry::Repeat};

/// One tag of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// `i-…`, `sg-…`, `vol-…`
    pub resource: String,
    /// `instance`, `security-group`, `volume` …
    pub kind: String,
    /// The tag's key.
    pub key: String,
    /// The tag's value.
    pub value: String,
}

impl Client {
    /// Sets tags of resources; others stay.
    ///
    /// # Errors
    /// As every call.
    pub fn create_tags(&self, resources: &[String], tags: &Tags) -> Result<(), Error> {
        need_some("CreateTags", "resources", resources)?;
        let mut form = self.form("CreateTags");
        form.list("ResourceId", resources);
        form.tags("", tags);
        self.tell(&form, Repeat::Harmless)
    }

    /// Takes tags from resources, whatever their values.
    ///
    /// # Errors
    /// As every call.
    pub fn delete_tags(&self, resources: &[String], keys: &[String]) -> Result<(), Error> {
        need_some("DeleteTags", "resources", resources)?;
        // Without keys EC2 would take all of them.
        need_some("DeleteTags", "keys", keys)?;
        let mut form = self.form("DeleteTags");
        form.list("ResourceId", resources);
        for (index, key) in keys.iter().enumerate() {
            form.put(&format!("Tag.{}.Key", index + 1), key);
        }
        self.tell(&form, Repeat::Harmless)
    }

    /// Tags of all kinds of resources, for example everything that has `tag:disco:cluster-id`.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_tags(&self, filters: &[Filter]) -> Result<Vec<Tagged>, Error> {
        let mut form = self.form("DescribeTags");
        form.filters(filters);
        let mut found = Vec::new();
        self.pages(&form, Some(PAGE), |page| {
            let read = |item: crate::reply::Element<'_, '_>| {
                let (key, value) = (item.need("key")?, item.string("value").unwrap_or_default());
                Ok(Tagged { resource: item.need("resourceId")?, kind: item.need("resourceType")?, key, value })
            };
            found.extend(page.each("tagSet", read)?);
            Ok(())
        })?;
        Ok(found)
    }
}
