//! Values as they are written, and what they mean: text from flags and variables, typed values from TOML.

use crate::model::{ids::ClusterId, limits, node::PORT};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    Text(String),
    Toml(toml::Value),
}

const URL_BYTES_MAX: usize = 512;
/// Longer values are cut in messages.
const SHOWN_CHARS_MAX: usize = 80;

impl Raw {
    /// As a message shows it.
    pub fn shown(&self) -> String {
        let text = match self {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => text.clone(),
            Raw::Toml(value) => value.to_string(),
        };
        let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
        if text.chars().count() > SHOWN_CHARS_MAX {
            shown.push('…');
        }
        shown
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => Some(text),
            Raw::Toml(_) => None,
        }
    }

    pub fn switch(&self) -> Option<bool> {
        match self {
            Raw::Toml(toml::Value::Boolean(on)) => Some(*on),
            Raw::Text(text) => text.parse().ok(),
            Raw::Toml(_) => None,
        }
    }

    /// `keep` or `stop`.
    pub fn ends_on_stop(&self) -> Option<bool> {
        match self.text()? {
            "keep" => Some(false),
            "stop" => Some(true),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Raw::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Raw::Text(text) => text.parse().ok(),
            Raw::Toml(_) => None,
        }
    }

    pub fn count(&self, least: u32, most: u32) -> Option<u32> {
        let count = u32::try_from(self.number()?).ok()?;
        (least..=most).contains(&count).then_some(count)
    }

    /// `200ms`, `1s`, `1.5s`; a bare number would leave the unit to chance.
    pub fn duration_ms(&self, least: u64, most: u64) -> Option<u64> {
        let text = self.text()?;
        let ms = match text.strip_suffix("ms") {
            Some(ms) => ms.parse().ok()?,
            None => {
                let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
                let ms = seconds * 1000.0;
                // Whole milliseconds only; the bound also refuses NaN and what no u64 holds.
                (ms.fract() == 0.0 && (0.0..=1e9).contains(&ms)).then_some(ms as u64)?
            }
        };
        (least..=most).contains(&ms).then_some(ms)
    }

    pub fn path(&self) -> Option<PathBuf> {
        self.text().filter(|text| !text.is_empty() && !text.contains('\0')).map(PathBuf::from)
    }

    pub fn name(&self) -> Option<String> {
        self.text().filter(|text| is_name(text) && text.starts_with(|c: char| c.is_ascii_alphanumeric())).map(str::to_owned)
    }

    pub fn socket(&self) -> Option<SocketAddr> {
        self.text()?.parse().ok()
    }

    /// A `host:port` that means something to others: no "any" address, no port 0.
    pub fn advertised(&self) -> Option<String> {
        let text = self.text()?;
        let any = text.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified());
        (!any && is_address(text)).then(|| text.to_owned())
    }

    pub fn interface(&self) -> Option<String> {
        // IFNAMSIZ is 16 with its NUL (netdevice(7)).
        self.text()
            .filter(|text| (1..16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
            .map(str::to_owned)
    }

    /// `eu-central-1`
    pub fn region(&self) -> Option<String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        self.text().filter(|text| (1..=32).contains(&text.len()) && text.bytes().all(plain)).map(str::to_owned)
    }

    pub fn endpoint(&self) -> Option<String> {
        let text = self.text()?;
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        (!host.is_empty() && text.len() <= URL_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
    }

    fn list(&self) -> Option<Vec<&str>> {
        match self {
            Raw::Text(text) if text.is_empty() => Some(Vec::new()),
            Raw::Text(text) => Some(text.split(',').map(str::trim).collect()),
            Raw::Toml(toml::Value::Array(values)) => values.iter().map(toml::Value::as_str).collect(),
            Raw::Toml(_) => None,
        }
    }

    pub fn seeds(&self) -> Option<Vec<String>> {
        let list = self.list().filter(|list| list.len() <= limits::SEEDS_MAX)?;
        let list_of_them = |seed: &str| {
            let place = seed.strip_prefix("https://").or_else(|| seed.strip_prefix("file://").filter(|path| path.starts_with('/')))?;
            (!place.is_empty() && seed.len() <= URL_BYTES_MAX && seed.bytes().all(|b| b.is_ascii_graphic())).then(|| seed.to_owned())
        };
        list.into_iter().map(|seed| list_of_them(seed).or_else(|| seed_address(seed))).collect()
    }

    pub fn labels(&self) -> Option<BTreeMap<String, String>> {
        let pairs: Vec<(&str, &str)> = match self {
            Raw::Toml(toml::Value::Table(table)) => table.iter().map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect::<Option<_>>()?,
            Raw::Text(_) => self.list()?.into_iter().map(|pair| pair.split_once('=')).collect::<Option<_>>()?,
            Raw::Toml(_) => return None,
        };
        let well = pairs.len() <= limits::LABELS_MAX && pairs.iter().all(|(k, v)| is_name(k) && is_name(v));
        let labels: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (well && labels.len() == pairs.len()).then_some(labels)
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        self.text()?.parse().ok()
    }

    pub fn token(&self) -> Option<String> {
        let text = self.text()?;
        let plain = text.len() <= 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (plain && text.strip_prefix("DISCO1-").is_some_and(|rest| rest.contains('-'))).then(|| text.to_owned())
    }
}

/// A host, with the usual port if it gives none.
pub fn seed_address(seed: &str) -> Option<String> {
    let whole = if is_address(seed) { seed.to_owned() } else { format!("{seed}:{PORT}") };
    is_address(&whole).then_some(whole)
}

fn is_name(text: &str) -> bool {
    (1..=limits::NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name (RFC 1123, section 2.1).
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let label = |label: &str| {
        let edges = !label.starts_with('-') && !label.ends_with('-');
        edges && (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let host_is_well = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None if numeric => host.parse::<std::net::Ipv4Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_is_well && text.len() <= limits::ADDRESS_BYTES_MAX && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The known name that a typo probably means: at most a third of it differs.
pub fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let shortened: String = name.chars().take(64).collect();
    let (distance, nearest) = known.map(|k| (distance(&shortened, &k), k)).min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let least = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[b.chars().count()]
}
