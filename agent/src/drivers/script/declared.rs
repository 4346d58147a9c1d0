//! What `configure()` left behind, read by whoever started the executor: it is our code in there, but a script ran in it.

use serde_json::Value;

use super::spec;
use crate::model::{
    limits::REGISTRATIONS_MAX,
    script::{Declaration, Registration, RegistrationKind},
    settings::{BelowMin, SettingsChange},
};

/// Everything that one load of cluster.js declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub declaration: Declaration,
    /// In the order in which they were made; `None`: stopped again.
    pub registrations: Vec<Option<RegistrationKind>>,
}

impl Declared {
    /// `value`: what the executor answered to `configure`; `options`: to `init`.
    ///
    /// # Errors
    /// A sentence that names what is wrong with it.
    pub fn read(value: &Value, options: &Value) -> Result<Declared, String> {
        let mut declaration = Declaration { settings: settings(options), ..Declaration::default() };
        for (name, service) in value["services"].as_object().into_iter().flatten() {
            declaration.services.insert(name.clone(), spec::parse(name, service)?);
        }
        for (key, value) in value["keys"].as_object().into_iter().flatten() {
            let value = value.as_str().ok_or_else(|| format!("key `{key}` has a value that is no text"))?;
            declaration.keys.insert(key.clone(), value.to_owned());
        }
        let registrations = value["registrations"].as_array().map_or(&[][..], Vec::as_slice);
        if registrations.len() > REGISTRATIONS_MAX {
            return Err(format!("a script registers at most {REGISTRATIONS_MAX} functions"));
        }
        let kinds = registrations.iter().map(|one| registration(one).ok_or_else(|| "a registration is malformed".to_owned()));
        Ok(Declared { declaration, registrations: kinds.collect::<Result<_, _>>()? })
    }

    /// Those that are still to be called, with their numbers.
    pub fn to_be_called(&self) -> Vec<Registration> {
        let numbered = (0..).zip(&self.registrations);
        numbered.filter_map(|(number, kind)| Some(Registration { number, kind: kind.clone()? })).collect()
    }
}

fn registration(value: &Value) -> Option<Option<RegistrationKind>> {
    Some(match value["kind"].as_str()? {
        "every" if value["stopped"] == true => None,
        "every" => Some(RegistrationKind::Every { interval_ms: value["interval_ms"].as_u64()? }),
        "on" => Some(RegistrationKind::On { event: value["event"].as_str()?.to_owned() }),
        "key" => Some(RegistrationKind::Key { name: value["key"].as_str()?.to_owned() }),
        _ => return None,
    })
}

/// Only what the script said. `prelude.js` has checked the form; whether the numbers fit, the state decides.
fn settings(options: &Value) -> SettingsChange {
    let number = |field: &str| options.get(field)?.as_u64().and_then(|number| u32::try_from(number).ok());
    SettingsChange {
        managers: number("managers"),
        min_nodes: number("min_nodes"),
        max_nodes: number("max_nodes"),
        max_launches_per_hour: number("max_launches_per_hour"),
        // Null: never.
        replace_after_ms: options.get("replace_after").map(|ms| ms.as_u64().unwrap_or(0)),
        below_min: match options.get("below_min").and_then(Value::as_str) {
            Some("stop") => Some(BelowMin::Stop),
            Some("pause") => Some(BelowMin::Pause),
            Some("keep") => Some(BelowMin::Keep),
            _ => None,
        },
        launch: None,
    }
}
