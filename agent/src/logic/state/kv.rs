//! Replicated keys and values.

use super::{KvRecord, State, apply::Outcome};
use crate::model::limits::{KEY_BYTES_MAX, KEYS_MAX, KV_BYTES_MAX, VALUE_BYTES_MAX};

/// Bytes of keys and values in one page of a listing.
const PAGE_BYTES_MAX: usize = 256 * 1024;

impl State {
    pub(super) fn kv_set(&mut self, index: u64, key: String, value: Vec<u8>) -> Outcome {
        if let Err(refused) = check(&key, &value) {
            return refused;
        }
        let before = self.kv.get(&key).map_or(0, |r| key.len() + r.value.len());
        if before == 0 && self.kv.len() >= KEYS_MAX {
            return Outcome::refused("limit", format!("there are {KEYS_MAX} keys already, the most a cluster keeps"));
        }
        let bytes = self.kv_bytes as usize - before + key.len() + value.len();
        if bytes > KV_BYTES_MAX {
            return Outcome::refused("limit", format!("keys and values would take {bytes} bytes, the most is {KV_BYTES_MAX}"));
        }
        self.kv_put(index, key, value);
        Outcome::Done
    }

    /// Writes what was checked to fit.
    pub(super) fn kv_put(&mut self, index: u64, key: String, value: Vec<u8>) {
        self.kv_bytes = self.kv_bytes - self.kv_size(&key) + (key.len() + value.len()) as u64;
        self.kv.insert(key, KvRecord { value, version: index });
    }

    /// What a key and its value take; 0 without one.
    pub(super) fn kv_size(&self, key: &str) -> u64 {
        self.kv.get(key).map_or(0, |record| (key.len() + record.value.len()) as u64)
    }

    pub(super) fn kv_delete(&mut self, key: &str) -> Outcome {
        let removed = self.kv.remove(key);
        if let Some(record) = &removed {
            self.kv_bytes -= (key.len() + record.value.len()) as u64;
        }
        Outcome::Existed(removed.is_some())
    }

    /// Up to `limit` entries whose key starts with `prefix` and comes after `after`; whether there are more.
    pub fn kv_page(&self, prefix: &str, after: &str, limit: usize) -> (Vec<(String, Vec<u8>, u64)>, bool) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, record) in self.kv.range(prefix.max(after).to_string()..) {
            if !key.starts_with(prefix) {
                break;
            }
            if !after.is_empty() && key.as_str() <= after {
                continue;
            }
            if entries.len() >= limit || bytes > PAGE_BYTES_MAX {
                return (entries, true);
            }
            bytes += key.len() + record.value.len();
            entries.push((key.clone(), record.value.clone(), record.version));
        }
        (entries, false)
    }
}

fn check(key: &str, value: &[u8]) -> Result<(), Outcome> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Outcome::refused("invalid", format!("a key has 1 to {KEY_BYTES_MAX} bytes, this one {}", key.len())));
    }
    if key.chars().any(char::is_control) {
        return Err(Outcome::refused("invalid", "a key has no control characters".into()));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Outcome::refused("limit", format!("a value has at most {VALUE_BYTES_MAX} bytes, this one {}", value.len())));
    }
    Ok(())
}
