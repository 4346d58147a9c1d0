//! What can be wrong with what the daemon was told. Every message names the place, the value and the way out.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File { key: &'static str, path: PathBuf },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Variable(name) => write!(f, "`{name}`"),
            Origin::File { key, path } => write!(f, "`{key}` in {}", path.display()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown flag `{flag}`")]
    UnknownFlag { flag: String, nearest: Option<String> },
    #[error("unknown key `{key}` in {}", path.display())]
    UnknownKey { key: String, path: PathBuf, nearest: Option<String> },
    #[error("{origin} cannot be `{value}`")]
    Value { origin: Origin, value: String, allowed: &'static str },
    #[error("{origin} is not text")]
    NotText { origin: Origin },
    #[error("{one} and {other} do not go together: {why}")]
    Conflict { one: Origin, other: Origin, why: &'static str },
    #[error("{origin} needs `{other}`")]
    Needs { origin: Origin, other: &'static str },
    #[error("heartbeat {heartbeat_ms}ms, election timeouts {min_ms}ms to {max_ms}ms cannot work together")]
    Timings { heartbeat_ms: u64, min_ms: u64, max_ms: u64 },
    #[error("no data dir is given")]
    NoDataDir,
    #[error("{interface} has no address that others could reach")]
    NoAddress { interface: String },
    #[error("{why}")]
    Arguments { why: String },
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} holds no join token", path.display())]
    TokenFile { path: PathBuf },
    #[error("{} is no configuration: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
}

impl ConfigError {
    /// The parser's own words, without the line of the file it likes to quote: that may be the token's.
    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        let line = error.span().map_or(1, |span| text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1);
        ConfigError::Syntax { path: path.into(), why: format!("line {line}: {}", error.message()) }
    }

    /// What the person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::UnknownFlag { nearest: Some(name), .. } | ConfigError::UnknownKey { nearest: Some(name), .. } => {
                Some(format!("did you mean `{name}`?"))
            }
            ConfigError::UnknownFlag { .. } | ConfigError::UnknownKey { .. } | ConfigError::Arguments { .. } => {
                Some("`discod --help` lists them all".into())
            }
            ConfigError::Value { allowed, .. } => Some(format!("allowed: {allowed}")),
            ConfigError::Timings { .. } => {
                Some("two heartbeats must fit into election_timeout_min, which must be less than election_timeout_max".into())
            }
            ConfigError::NoDataDir => Some("give --data-dir DIR, or data_dir in the file that --config names".into()),
            ConfigError::NoAddress { .. } => Some("say `advertise = \"HOST:PORT\"`, where others reach this node".into()),
            ConfigError::Needs { other: "seeds", .. } => Some(
                "seeds = [\"HOST\", …]: where this node looks for the others; addresses, DNS names, https://… or file:///… of a list"
                    .into(),
            ),
            ConfigError::TokenFile { .. } => Some("`disco token create` prints one: DISCO1-…".into()),
            _ => None,
        }
    }
}
