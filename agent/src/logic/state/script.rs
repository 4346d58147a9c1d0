//! The script's record: its modules by version, what they declared, and how the last run went.

use super::{State, apply::Outcome, events::bounded, services};
use crate::model::{
    codec,
    limits::{
        DECLARATION_BYTES_MAX, EVENT_TEXT_BYTES_MAX, KEY_BYTES_MAX, KEYS_MAX, KV_BYTES_MAX, MODULE_SETS_KEPT, SCRIPT_ERROR_BYTES_MAX,
        SCRIPT_MODULES_MAX, SCRIPT_SOURCE_BYTES_MAX, SERVICES_MAX, VALUE_BYTES_MAX,
    },
    script::{Declaration, ModuleSet},
};
use std::collections::BTreeMap;

/// The module that a cluster's script begins with.
pub const ENTRY: &str = "cluster.js";
const PATH_BYTES_MAX: usize = 256;

pub const NO_EARLIER_MODULES: &str = "there are no earlier modules to go back to";

impl State {
    pub(super) fn modules_put(&mut self, index: u64, files: BTreeMap<String, String>) -> Outcome {
        if let Err((code, why)) = check_modules(&files) {
            return Outcome::refused(code, why);
        }
        let sets = &mut self.script.sets;
        // The same again is no new step to go back to, but it is applied again: changes by hand end.
        if sets.back().is_some_and(|set| set.files == files && set.version == self.script.version) {
            sets.pop_back();
        }
        sets.push_back(ModuleSet { version: index, pushed_ms: self.stamp_ms, files });
        if sets.len() > MODULE_SETS_KEPT {
            sets.pop_front();
        }
        self.script.version = index;
        // What went wrong with others says nothing of these.
        self.script.error.clear();
        Outcome::Done
    }

    pub(super) fn modules_rollback(&mut self) -> Outcome {
        match self.script.before().map(|set| set.version) {
            Some(before) => {
                self.script.version = before;
                self.script.error.clear();
                Outcome::Done
            }
            None => Outcome::refused("not_found", NO_EARLIER_MODULES.into()),
        }
    }

    pub(super) fn declare(&mut self, index: u64, version: u64, declaration: Declaration) -> Outcome {
        if version != self.script.version {
            return Outcome::refused("stale", format!("the modules in force are version {}", self.script.version));
        }
        let digest = digest(&declaration);
        let repeated = self.script.applied == version && self.script.digest == digest;
        if !repeated && let Err(why) = self.check_declaration(&declaration) {
            return Outcome::refused("invalid", why);
        }
        self.script.error.clear();
        if repeated {
            return Outcome::Done;
        }
        if let Err(why) = self.with_settings(&declaration.settings).map(|settings| self.settings = settings) {
            return Outcome::refused("invalid", why);
        }
        let (first, new_modules) = (self.script.applied == 0, self.script.applied != version);
        let removed: Vec<String> = self.services.keys().filter(|name| !declaration.services.contains_key(*name)).cloned().collect();
        for name in removed {
            self.service_remove(&name);
        }
        for (name, spec) in declaration.services {
            // What a person changed by hand ends here.
            if let Some(service) = self.services.get_mut(&name) {
                service.replicas_by_hand = None;
            }
            self.set_spec(name, spec);
        }
        for (key, value) in &declaration.keys {
            if self.kv.get(key).is_none_or(|record| record.value != value.as_bytes()) {
                self.kv_put(index, key.clone(), value.clone().into_bytes());
            }
        }
        self.script.keys = declaration.keys;
        (self.script.applied, self.script.digest) = (version, digest);
        self.event("script.reloaded", "", if first || new_modules { "new modules are in force" } else { "it declares something else now" });
        self.judge_services();
        Outcome::Done
    }

    /// Everything is checked before anything is changed.
    fn check_declaration(&self, declaration: &Declaration) -> Result<(), String> {
        let bytes = codec::encode(declaration).len();
        if bytes > DECLARATION_BYTES_MAX {
            return Err(format!("the script declares {bytes} bytes, the most is {DECLARATION_BYTES_MAX}"));
        }
        if declaration.services.len() > SERVICES_MAX {
            return Err(format!("the script declares {} services, the most is {SERVICES_MAX}", declaration.services.len()));
        }
        for (name, spec) in &declaration.services {
            services::check(name, spec)?;
        }
        let (mut count, mut bytes) = (self.kv.len(), self.kv_bytes);
        for (key, value) in &declaration.keys {
            if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
                return Err(format!("a key has 1 to {KEY_BYTES_MAX} printable bytes"));
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(format!("key `{key}`: a value has at most {VALUE_BYTES_MAX} bytes, this one {}", value.len()));
            }
            count += usize::from(!self.kv.contains_key(key));
            bytes = bytes - self.kv_size(key) + (key.len() + value.len()) as u64;
        }
        if count > KEYS_MAX || bytes > KV_BYTES_MAX as u64 {
            return Err(format!(
                "with the script's keys there would be {count} keys of {bytes} bytes, the most is {KEYS_MAX} of {KV_BYTES_MAX}"
            ));
        }
        Ok(())
    }

    pub(super) fn script_error(&mut self, error: &str) -> Outcome {
        let error = bounded(error, SCRIPT_ERROR_BYTES_MAX);
        if error != self.script.error {
            if !error.is_empty() {
                // The first line says what and where; the stack is in the status.
                let line = error.lines().next().unwrap_or_default();
                self.event("script.failed", "", &bounded(line, EVENT_TEXT_BYTES_MAX));
            }
            self.script.error = error;
        }
        Outcome::Done
    }

    pub(super) fn script_led(&mut self, term: u64) -> Outcome {
        self.script.led_term = self.script.led_term.max(term);
        Outcome::Done
    }
}

/// # Errors
/// A refusal's code and sentence: no entry module, too many, too much, or a path that is none.
pub fn check_modules(files: &BTreeMap<String, String>) -> Result<(), (&'static str, String)> {
    if !files.contains_key(ENTRY) {
        return Err(("invalid", format!("the modules lack `{ENTRY}`, which a cluster's script begins with")));
    }
    if files.len() > SCRIPT_MODULES_MAX {
        return Err(("limit", format!("{} modules, the most is {SCRIPT_MODULES_MAX}", files.len())));
    }
    if let Some(path) = files.keys().find(|p| p.is_empty() || p.len() > PATH_BYTES_MAX || p.chars().any(char::is_control)) {
        return Err(("invalid", format!("a module's path has 1 to {PATH_BYTES_MAX} printable bytes, `{}` has not", bounded(path, 64))));
    }
    let bytes: usize = files.iter().map(|(path, source)| path.len() + source.len()).sum();
    if bytes > SCRIPT_SOURCE_BYTES_MAX {
        return Err(("limit", format!("the modules take {bytes} bytes, the most is {SCRIPT_SOURCE_BYTES_MAX}")));
    }
    Ok(())
}

/// FNV-1a over the encoding: equal declarations, equal digests.
pub fn digest(declaration: &Declaration) -> u64 {
    codec::fingerprint(&codec::encode(declaration))
}
