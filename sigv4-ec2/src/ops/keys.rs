//! Key pairs: the public half of a key, which EC2 hands to new machines.

use crate::{Client, Error, Filter, PublicKey, Tags, reply::Element, retry::Repeat};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// A public key that EC2 knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// `key-…`
    pub id: String,
    /// Its name, by which instances ask for it.
    pub name: String,
    /// What [`PublicKey::fingerprint`] gives for an imported key.
    pub fingerprint: String,
    /// Its tags.
    pub tags: Tags,
}

impl Client {
    /// Lets EC2 know a public key.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::KeyPairDuplicate`] if the name is taken, perhaps by an earlier delivery of this
    /// very request: compare the fingerprint.
    pub fn import_key_pair(&self, name: &str, key: &PublicKey, tags: &Tags) -> Result<KeyPair, Error> {
        let mut form = self.form("ImportKeyPair");
        form.put("KeyName", name);
        form.put("PublicKeyMaterial", &BASE64.encode(key.line()));
        form.tag_specifications(&["key-pair"], tags);
        self.ask(&form, Repeat::Harmless, read)
    }

    /// Key pairs that match all filters; with `names`, only these, and it fails if one of them is unknown.
    ///
    /// # Errors
    /// As every call.
    pub fn describe_key_pairs(&self, names: &[String], filters: &[Filter]) -> Result<Vec<KeyPair>, Error> {
        let mut form = self.form("DescribeKeyPairs");
        form.list("KeyName", names);
        form.filters(filters);
        self.ask(&form, Repeat::Harmless, |reply| reply.each("keySet", read))
    }

    /// Makes EC2 forget a public key; an unknown one is no error. Machines that have it keep it.
    ///
    /// # Errors
    /// As every call.
    pub fn delete_key_pair(&self, name: &str) -> Result<(), Error> {
        let mut form = self.form("DeleteKeyPair");
        form.put("KeyName", name);
        self.tell(&form, Repeat::Harmless)
    }
}

fn read(item: Element<'_, '_>) -> Result<KeyPair, Error> {
    Ok(KeyPair {
        id: item.string("keyPairId").unwrap_or_default(),
        name: item.need("keyName")?,
        fingerprint: item.need("keyFingerprint")?,
        tags: item.tags(),
    })
}
