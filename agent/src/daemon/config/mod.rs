//! How `discod` is told what to be: flags, `DISCO_*` variables and `disco.toml`, one name for each thing.
//!
//! A flag wins over a variable, a variable over the file. Everything is checked here, once, and passed on as
//! types; a key nobody knows is an error, because a typo that is ignored costs an evening.

mod error;
mod keys;
#[cfg(test)]
mod tests;
mod values;

pub use error::ConfigError;
pub use keys::help;
pub use values::seed_address;

use super::telemetry::Filter;
use crate::{
    drivers::syscall,
    model::{ids::ClusterId, limits, node::PORT},
};
use error::Origin;
use keys::{KEYS, Key};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    io::Read,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use values::Raw;

/// As many as the executor itself allows; a node may allow fewer.
const COMMANDS_MAX: u32 = limits::EXTERNAL_COMMANDS_MAX as u32;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    Run(Box<Config>),
    Help,
    Version,
}

/// Everything a daemon can be told, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Absolute.
    pub data_dir: PathBuf,
    /// The file it was read from, absolute.
    pub file: Option<PathBuf>,
    /// Leave the starter; see `detach.rs`.
    pub detach: bool,
    pub await_record: bool,
    /// What people call the node; none: as the machine is called.
    pub name: Option<String>,
    pub listen: SocketAddr,
    pub advertise: Option<String>,
    pub bind_interface: Option<String>,
    /// `host:port` each, or the URL of a list of such.
    pub seeds: Vec<String>,
    pub token: Option<Secret>,
    /// Read when a token is needed, see [`Config::join_token`]; absolute.
    pub token_file: Option<PathBuf>,
    pub originate: bool,
    /// With seeds: how long to look for a formed cluster first.
    pub originate_after_ms: u64,
    /// What a baked image holds, absolute.
    pub image: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub cluster_name: Option<String>,
    pub cluster_id: Option<ClusterId>,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_min_ms: u64,
    pub election_timeout_max_ms: u64,
    /// A node that says nothing for this long is lost, where this node leads.
    pub lost_after_ms: u64,
    /// Whether its tasks end when the daemon is asked to stop.
    pub on_stop_end_tasks: bool,
    /// Programs that scripts may run at once.
    pub external_commands_max: u32,
    pub log: Filter,
    /// The provider's id of this machine.
    pub instance: Option<String>,
    pub provider: Option<ProviderConfig>,
}

/// `[provider]`: where this node, when it leads, gets machines from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderConfig {
    /// `root` is the project's `.disco`, `binary` what new instances get a copy of; both absolute.
    Local { root: PathBuf, binary: PathBuf },
    /// Credentials come from where Amazon's own tools look.
    Aws { region: String, endpoint: Option<String> },
}

/// Something that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Config {
    /// Reads the command line, the variables (`variable` answers `DISCO_…`) and the file they name.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed, or the file that cannot be read.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Invocation, ConfigError> {
        let mut given: BTreeMap<&'static str, Given> = BTreeMap::new();
        let Some(mut line) = flags(arguments, &mut given)? else { return Ok(Invocation::Help) };
        if line.version {
            return Ok(Invocation::Version);
        }
        for key in KEYS {
            if let Some(value) = variable(&key.variable()).filter(|v| !v.is_empty()) {
                let origin = Origin::Variable(key.variable());
                let value = value.into_string().map_err(|_| ConfigError::NotText { origin: origin.clone() })?;
                given.entry(key.name).or_insert(Given { origin, value: Raw::Text(value) });
            }
        }
        line.file = line.file.or_else(|| variable("DISCO_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
        let file = line.file.as_deref().map(absolute);
        if let Some(path) = &file {
            from_file(path, &mut given)?;
        }
        let mut config = Sources { given }.checked()?;
        config.file = file;
        config.detach = line.detach;
        config.await_record = line.await_record;
        Ok(Invocation::Run(Box::new(config)))
    }

    /// The `host:port` under which others reach this node, which listens at `bound`: `advertise`, or the address it
    /// listens on, or that of `bind_interface`, or the first one of any interface that is not loopback.
    ///
    /// # Errors
    /// There is no such address.
    pub fn advertised(&self, bound: SocketAddr) -> Result<String, ConfigError> {
        if let Some(address) = &self.advertise {
            return Ok(address.clone());
        }
        if self.bind_interface.is_none() && !bound.ip().is_unspecified() {
            return Ok(bound.to_string());
        }
        let all = syscall::interface_addresses().unwrap_or_default();
        let usable = |(name, ip): &(String, IpAddr)| match &self.bind_interface {
            Some(wanted) => name == wanted,
            None => !ip.is_loopback() && bound.is_ipv4() == ip.is_ipv4(),
        };
        // IPv4 first: a link-local IPv6 address needs a scope to be of use.
        let best = all.into_iter().filter(usable).min_by_key(|(_, ip)| ip.is_ipv6());
        let interface = || self.bind_interface.as_ref().map_or_else(|| "this machine".into(), |name| format!("network interface `{name}`"));
        best.map(|(_, ip)| SocketAddr::new(ip, bound.port()).to_string()).ok_or_else(|| ConfigError::NoAddress { interface: interface() })
    }

    /// The token to join with. The file that holds it need not be there once it is used: who has joined never asks again.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn join_token(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let mut text = String::new();
        let read = fs::File::open(path).and_then(|f| f.take(1024).read_to_string(&mut text));
        read.map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let token = Raw::Text(text.trim().to_owned()).token();
        token.map(|token| Some(Secret(token))).ok_or_else(|| ConfigError::TokenFile { path: path.clone() })
    }
}

/// A value as somebody gave it.
struct Given {
    origin: Origin,
    value: Raw,
}

/// What the command line says besides keys.
#[derive(Default)]
struct Line {
    file: Option<PathBuf>,
    detach: bool,
    await_record: bool,
    version: bool,
}

/// `None`: help was asked for.
fn flags(arguments: impl IntoIterator<Item = OsString>, given: &mut BTreeMap<&'static str, Given>) -> Result<Option<Line>, ConfigError> {
    use lexopt::Arg;
    let bad = |e: lexopt::Error| ConfigError::Arguments { why: e.to_string() };
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut line = Line::default();
    while let Some(argument) = parser.next().map_err(bad)? {
        let name = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Short('V') | Arg::Long("version") => {
                line.version = true;
                continue;
            }
            Arg::Long("detach") => {
                line.detach = true;
                continue;
            }
            Arg::Long("await-record") => {
                line.await_record = true;
                continue;
            }
            Arg::Long("config") => {
                line.file = Some(parser.value().map_err(bad)?.into());
                continue;
            }
            Arg::Long(name) => name.to_owned(),
            Arg::Short(letter) => return Err(ConfigError::UnknownFlag { flag: format!("-{letter}"), nearest: None }),
            Arg::Value(value) => return Err(ConfigError::Arguments { why: format!("unexpected argument `{}`", value.to_string_lossy()) }),
        };
        let Some(key) = KEYS.iter().find(|key| key.flag() == name) else {
            let known = KEYS.iter().map(Key::flag).chain(["config", "detach", "help", "version"].map(String::from));
            return Err(ConfigError::UnknownFlag {
                flag: format!("--{name}"),
                nearest: values::nearest(&name, known).map(|n| format!("--{n}")),
            });
        };
        let origin = Origin::Flag(format!("--{name}"));
        let value = if key.is_switch() { parser.optional_value().unwrap_or_else(|| "true".into()) } else { parser.value().map_err(bad)? };
        let value = value.into_string().map_err(|_| ConfigError::NotText { origin: origin.clone() })?;
        if given.insert(key.name, Given { origin: origin.clone(), value: Raw::Text(value) }).is_some() {
            return Err(ConfigError::Arguments { why: format!("{origin} is given twice") });
        }
    }
    Ok(Some(line))
}

/// Adds what the file says and nobody else said before.
fn from_file(path: &Path, given: &mut BTreeMap<&'static str, Given>) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::File { path: path.into(), source };
    let mut text = String::new();
    fs::File::open(path).and_then(|f| f.take(limits::CONFIG_BYTES_MAX + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(ConfigError::Syntax { path: path.into(), why: format!("it is larger than {} bytes", limits::CONFIG_BYTES_MAX) });
    }
    let table: toml::Table = text.parse().map_err(|e| ConfigError::syntax(path, &text, &e))?;
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) if name == "provider" => {
                flat.extend(section.into_iter().map(|(k, v)| (format!("provider.{k}"), v)))
            }
            value => flat.push((name, value)),
        }
    }
    for (name, value) in flat {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let nearest = values::nearest(&name, KEYS.iter().map(|key| key.name.to_owned()));
            return Err(ConfigError::UnknownKey { key: name, path: path.into(), nearest });
        };
        let origin = Origin::File { key: key.name, path: path.into() };
        given.entry(key.name).or_insert(Given { origin, value: Raw::Toml(value) });
    }
    Ok(())
}

/// All that was given, about to be checked.
struct Sources {
    given: BTreeMap<&'static str, Given>,
}

impl Sources {
    /// Takes a key's value through `parse`; what `parse` does not take is not allowed.
    fn take<T>(&self, name: &'static str, parse: impl Fn(&Raw) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.given.get(name) else { return Ok(None) };
        let key = keys::key_named(name);
        parse(&given.value).map(Some).ok_or_else(|| ConfigError::Value {
            origin: given.origin.clone(),
            value: if key.is_secret() { "(not shown)".into() } else { given.value.shown() },
            allowed: key.allowed,
        })
    }

    /// A path: from a file it counts from the file's folder, else from here.
    fn take_path(&self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.take(name, Raw::path)?;
        Ok(path.map(|path| match &self.given[name].origin {
            Origin::File { path: file, .. } => absolute(&file.parent().unwrap_or(Path::new("/")).join(path)),
            _ => absolute(&path),
        }))
    }

    fn conflict(&self, one: &'static str, other: &'static str, why: &'static str) -> Result<(), ConfigError> {
        match (self.given.get(one), self.given.get(other)) {
            (Some(one), Some(other)) => Err(ConfigError::Conflict { one: one.origin.clone(), other: other.origin.clone(), why }),
            _ => Ok(()),
        }
    }

    fn checked(&self) -> Result<Config, ConfigError> {
        let originate = self.take("originate", Raw::switch)?.unwrap_or(false);
        self.conflict("token", "token_file", "a node has one token")?;
        self.conflict("image", "token", "an image holds a token")?;
        self.conflict("image", "token_file", "an image holds a token")?;
        self.conflict("advertise", "bind_interface", "each says which address others use")?;
        if originate {
            // With seeds it looks for a cluster first, which may take a token.
            let tokens = ["token", "token_file"].iter().find_map(|name| self.given.get(name));
            if let Some(given) = tokens.filter(|_| !self.given.contains_key("seeds")) {
                return Err(ConfigError::Needs { origin: given.origin.clone(), other: "seeds" });
            }
        }
        let config = Config {
            data_dir: self.take_path("data_dir")?.ok_or(ConfigError::NoDataDir)?,
            file: None,
            detach: false,
            await_record: false,
            name: self.take("name", Raw::name)?,
            listen: self.take("listen", Raw::socket)?.unwrap_or_else(|| ([0, 0, 0, 0], PORT).into()),
            advertise: self.take("advertise", Raw::advertised)?,
            bind_interface: self.take("bind_interface", Raw::interface)?,
            seeds: self.take("seeds", Raw::seeds)?.unwrap_or_default(),
            token: self.take("token", Raw::token)?.map(Secret),
            token_file: self.take_path("token_file")?,
            originate,
            originate_after_ms: self.take("originate_after", |raw| raw.duration_ms(1_000, 3_600_000))?.unwrap_or(10_000),
            image: self.take_path("image")?,
            labels: self.take("labels", Raw::labels)?.unwrap_or_default(),
            cluster_name: self.take("cluster_name", Raw::name)?,
            cluster_id: self.take("cluster_id", Raw::cluster)?,
            heartbeat_interval_ms: self.take("heartbeat_interval", |raw| raw.duration_ms(50, 5_000))?.unwrap_or(200),
            election_timeout_min_ms: self.take("election_timeout_min", |raw| raw.duration_ms(200, 60_000))?.unwrap_or(1000),
            election_timeout_max_ms: self.take("election_timeout_max", |raw| raw.duration_ms(200, 60_000))?.unwrap_or(2000),
            lost_after_ms: self.take("lost_after", |raw| raw.duration_ms(1_000, 600_000))?.unwrap_or(limits::LOST_AFTER_MS),
            on_stop_end_tasks: self.take("on_stop", Raw::ends_on_stop)?.unwrap_or(false),
            external_commands_max: self.take("external_commands_max", |raw| raw.count(1, COMMANDS_MAX))?.unwrap_or(COMMANDS_MAX),
            log: self.take("log", |raw| Filter::parse(raw.text()?))?.unwrap_or_default(),
            instance: self.take("instance", Raw::name)?,
            provider: self.provider()?,
        };
        // Without them each machine that starts from the image would begin a cluster of its own.
        if let Some(given) = self.given.get("image").filter(|_| config.seeds.is_empty()) {
            return Err(ConfigError::Needs { origin: given.origin.clone(), other: "seeds" });
        }
        let timings = [config.heartbeat_interval_ms * 2, config.election_timeout_min_ms, config.election_timeout_max_ms - 1];
        if !timings.is_sorted() {
            return Err(ConfigError::Timings {
                heartbeat_ms: config.heartbeat_interval_ms,
                min_ms: config.election_timeout_min_ms,
                max_ms: config.election_timeout_max_ms,
            });
        }
        Ok(config)
    }

    fn provider(&self) -> Result<Option<ProviderConfig>, ConfigError> {
        let kind = self.take("provider.kind", |raw| ["local", "aws"].into_iter().find(|kind| raw.text() == Some(kind)))?;
        let (root, binary) = (self.take_path("provider.root")?, self.take_path("provider.binary")?);
        let (region, endpoint) = (self.take("provider.region", Raw::region)?, self.take("provider.endpoint", Raw::endpoint)?);
        let Some(kind) = kind else {
            let keys = ["provider.root", "provider.binary", "provider.region", "provider.endpoint"];
            let stray = keys.iter().find_map(|name| self.given.get(name));
            return stray.map_or(Ok(None), |given| Err(ConfigError::Needs { origin: given.origin.clone(), other: "provider.kind" }));
        };
        let needs = |other| ConfigError::Needs { origin: self.given["provider.kind"].origin.clone(), other };
        if kind == "aws" {
            return Ok(Some(ProviderConfig::Aws { region: region.ok_or_else(|| needs("provider.region"))?, endpoint }));
        }
        Ok(Some(ProviderConfig::Local {
            root: root.ok_or_else(|| needs("provider.root"))?,
            binary: binary.ok_or_else(|| needs("provider.binary"))?,
        }))
    }
}

fn absolute(path: &Path) -> PathBuf {
    // An empty path is the only one without an absolute form, and `Raw::path` refuses it.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
