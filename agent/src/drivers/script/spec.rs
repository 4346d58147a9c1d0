//! A service (and a key) as a script writes it, read strictly.
//!
//! A field that nobody knows is a typo that would cost an evening, so it is refused by name; so is one that a later
//! version will know. The executor reads each spec while the caller's line is still on the stack, and whoever started
//! the executor reads it again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{
    codec,
    limits::{COMMAND_ARGUMENTS_MAX, KEY_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, SERVICE_SPEC_BYTES_MAX, TASKS_MAX, VALUE_BYTES_MAX},
    service::{self, PortSpec, Replicas, Restart, RestartPolicy, ServiceSpec, Update},
};

const KNOWN: &[&str] =
    &["command", "cwd", "user", "stop", "env", "replicas", "ports", "memory", "cpus", "place", "restart", "health", "update"];
/// Fields of the contract that later versions carry out.
const LATER: &[&str] = &["image", "docker", "args", "secrets", "links", "volumes", "schedule"];
const HEALTH_LATER: &[&str] = &["http", "tcp", "command", "script", "every", "timeout", "failures"];

/// Ten years; longer is a slip.
const DURATION_MS_MAX: f64 = 3650.0 * 86_400_000.0;
const CPUS_MAX: f64 = 1024.0;
const PORTS_MAX: usize = 64;
/// A wrong value is shown in the message, but not all of it.
const SHOWN_CHARS_MAX: usize = 60;

/// Linux's numbers, the same on x86-64 and arm64 (signal(7)).
const SIGNALS: &[(&str, u32)] =
    &[("HUP", 1), ("INT", 2), ("QUIT", 3), ("KILL", 9), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("WINCH", 28)];

/// # Errors
/// A sentence that names the service, the field, and what it may be.
pub fn parse(name: &str, value: &Value) -> Result<ServiceSpec, String> {
    if !service::is_name(name) {
        return Err(format!("a service's name has 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, not `{}`", cut(name)));
    }
    let spec = Fields::of(value, "", KNOWN, LATER).and_then(|fields| read(&fields)).and_then(|spec| match codec::encode(&spec).len() {
        bytes if bytes > SERVICE_SPEC_BYTES_MAX => Err(format!("it takes {bytes} bytes, the most is {SERVICE_SPEC_BYTES_MAX}")),
        _ => Ok(spec),
    });
    spec.map_err(|why| format!("service `{name}`: {why}"))
}

/// # Errors
/// A sentence that says what a key may be.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
        return Err(format!("a key has 1 to {KEY_BYTES_MAX} printable bytes, not `{}`", cut(&key.escape_debug().to_string())));
    }
    Ok(())
}

/// # Errors
/// It is too long.
pub fn check_value(key: &str, value: &str) -> Result<(), String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("key `{}`: a value has at most {VALUE_BYTES_MAX} bytes, this one {}", cut(key), value.len()));
    }
    Ok(())
}

fn read(fields: &Fields) -> Result<ServiceSpec, String> {
    let Some(command) = fields.get("command") else {
        return Err("`command` is missing: a list of the program and its arguments".into());
    };
    let mut spec = ServiceSpec { command: texts("command", command)?, ..ServiceSpec::default() };
    if spec.command.first().is_none_or(String::is_empty) || spec.command.len() > COMMAND_ARGUMENTS_MAX {
        return Err(format!("`command` has 1 to {COMMAND_ARGUMENTS_MAX} parts, the first is the program"));
    }
    spec.cwd = fields.read("cwd", text)?;
    if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.starts_with('/')) {
        return Err(format!("`cwd` must be an absolute path, not {}", cut(cwd)));
    }
    spec.user = fields.read("user", text)?;
    spec.env = fields.read("env", environment)?.unwrap_or_default();
    spec.replicas = fields.read("replicas", replicas)?.unwrap_or(spec.replicas);
    spec.ports = fields.read("ports", ports)?.unwrap_or_default();
    if spec.env.contains_key("PORT") && !spec.ports.is_empty() {
        return Err("`env.PORT`: the node sets it to the first of `ports`".into());
    }
    spec.memory = fields.read("memory", size)?;
    spec.cpus_milli = fields.read("cpus", cpus)?;
    if let Some(stop) = fields.inner("stop", &["signal", "timeout"], &[])? {
        spec.stop_signal = stop.read("signal", signal)?.unwrap_or(spec.stop_signal);
        spec.stop_timeout_ms = stop.read("timeout", duration)?.unwrap_or(spec.stop_timeout_ms);
    }
    if let Some(place) = fields.inner("place", &["labels", "spread", "avoid"], &[])? {
        spec.labels = place.read("labels", labels)?.unwrap_or_default();
        spec.avoid = place.read("avoid", texts)?.unwrap_or_default();
        // Copies are spread over nodes anyway.
        if place.read("spread", |at, value| one_of(at, value, &["node", "zone"]))? == Some("zone") {
            return Err("`place.spread` \"zone\" is not available yet in this version".into());
        }
    }
    if let Some(restart) = fields.inner("restart", &["policy", "backoff", "max"], &[])? {
        spec.restart = Restart {
            policy: restart.read("policy", policy)?.unwrap_or(spec.restart.policy),
            backoff_ms: restart.read("backoff", duration)?.unwrap_or(spec.restart.backoff_ms),
            max: restart.read("max", |at, value| integer(at, value, 0, 1_000_000))?,
        };
    }
    if let Some(health) = fields.inner("health", &["grace"], HEALTH_LATER)? {
        spec.grace_ms = health.read("grace", duration)?.unwrap_or(spec.grace_ms);
    }
    if let Some(update) = fields.inner("update", &["order", "parallel", "rollback", "deadline"], &[])? {
        let order = update.read("order", |at, value| one_of(at, value, &["start-first", "stop-first"]))?;
        spec.update = Update {
            start_first: order.map_or(spec.update.start_first, |order| order == "start-first"),
            parallel: update.read("parallel", |at, value| integer(at, value, 1, TASKS_MAX as u32))?.unwrap_or(spec.update.parallel),
            rollback: update.read("rollback", boolean)?.unwrap_or(spec.update.rollback),
            deadline_ms: update.read("deadline", duration)?.unwrap_or(spec.update.deadline_ms),
        };
    }
    Ok(spec)
}

/// An object and where it is: `` (the spec itself) or `stop.`.
struct Fields<'a> {
    values: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: &str, known: &[&str], later: &[&str]) -> Result<Fields<'a>, String> {
        let what = || if path.is_empty() { "the spec".to_owned() } else { format!("`{}`", path.trim_end_matches('.')) };
        let Value::Object(values) = value else {
            return Err(format!("{} must be an object with {}, not {}", what(), known.join(", "), shown(value)));
        };
        for field in values.keys() {
            if later.contains(&field.as_str()) {
                return Err(format!("`{path}{field}` is not available yet in this version"));
            }
            if !known.contains(&field.as_str()) {
                return Err(format!("{} has no field `{}` (it knows {})", what(), cut(field), known.join(", ")));
            }
        }
        Ok(Fields { values, path: path.to_owned() })
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.values.get(field)
    }

    fn read<T>(&self, field: &str, parse: impl FnOnce(&str, &'a Value) -> Result<T, String>) -> Result<Option<T>, String> {
        self.get(field).map(|value| parse(&format!("{}{field}", self.path), value)).transpose()
    }

    fn inner(&self, field: &str, known: &[&str], later: &[&str]) -> Result<Option<Fields<'a>>, String> {
        self.get(field).map(|value| Fields::of(value, &format!("{}{field}.", self.path), known, later)).transpose()
    }
}

fn text(at: &str, value: &Value) -> Result<String, String> {
    match value.as_str() {
        // A program's arguments and variables end at a NUL (execve(2)).
        Some(text) if text.contains('\0') => Err(format!("`{at}` holds a NUL, which no program can be given")),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("`{at}` must be a text, not {}", shown(value))),
    }
}

fn texts(at: &str, value: &Value) -> Result<Vec<String>, String> {
    let Value::Array(items) = value else { return Err(format!("`{at}` must be a list of texts, not {}", shown(value))) };
    items.iter().enumerate().map(|(i, item)| text(&format!("{at}[{i}]"), item)).collect()
}

fn map(at: &str, value: &Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Object(entries) = value else {
        return Err(format!("`{at}` must be an object of texts, not {}", shown(value)));
    };
    entries.iter().map(|(name, value)| Ok((name.clone(), text(&format!("{at}.{}", cut(name)), value)?))).collect()
}

fn environment(at: &str, value: &Value) -> Result<BTreeMap<String, String>, String> {
    let variables = map(at, value)?;
    // environ(7): the name ends at the first `=`.
    match variables.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        Some(name) => Err(format!("`{at}` has a variable `{}`: a name is not empty and holds no `=`", cut(name))),
        None => match variables.keys().find(|name| name.starts_with("DISCO_")) {
            Some(name) => Err(format!("`{at}.{}`: the node sets what begins with DISCO_", cut(name))),
            None => Ok(variables),
        },
    }
}

fn labels(at: &str, value: &Value) -> Result<BTreeMap<String, String>, String> {
    let labels = map(at, value)?;
    if labels.len() > LABELS_MAX { Err(format!("`{at}` has {} labels, the most is {LABELS_MAX}", labels.len())) } else { Ok(labels) }
}

fn integer<T: TryFrom<u64> + Into<u64> + Copy>(at: &str, value: &Value, min: T, max: T) -> Result<T, String> {
    let (least, most): (u64, u64) = (min.into(), max.into());
    let number = whole(value).filter(|number| (least..=most).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("`{at}` must be a whole number from {least} to {most}, not {}", shown(value)))
}

/// Numbers of JavaScript are all of one kind: 3, 3.0 and 3e0 are the same.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64))
}

fn boolean(at: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("`{at}` must be true or false, not {}", shown(value)))
}

fn one_of<'a>(at: &str, value: &Value, choices: &[&'a str]) -> Result<&'a str, String> {
    let found = choices.iter().find(|choice| value.as_str() == Some(choice));
    let listed: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    found.copied().ok_or_else(|| format!("`{at}` must be one of {}, not {}", listed.join(", "), shown(value)))
}

fn replicas(at: &str, value: &Value) -> Result<Replicas, String> {
    if value.as_str() == Some("every-node") {
        return Ok(Replicas::EveryNode);
    }
    let count = integer(at, value, 0, TASKS_MAX as u32);
    count
        .map(Replicas::Count)
        .map_err(|_| format!("`{at}` must be a whole number from 0 to {TASKS_MAX}, or \"every-node\", not {}", shown(value)))
}

fn ports(at: &str, value: &Value) -> Result<Vec<PortSpec>, String> {
    let Value::Array(items) = value else { return Err(format!("`{at}` must be a list of ports, not {}", shown(value))) };
    if items.len() > PORTS_MAX {
        return Err(format!("`{at}` has {} ports, the most is {PORTS_MAX}", items.len()));
    }
    let ports = items.iter().enumerate().map(|(i, item)| port(&format!("{at}[{i}]"), item)).collect::<Result<Vec<_>, _>>()?;
    for (i, one) in ports.iter().enumerate() {
        if ports[..i].iter().any(|other| other.port == one.port) {
            return Err(format!("`{at}` has port {} twice", one.port));
        }
    }
    Ok(ports)
}

fn port(at: &str, value: &Value) -> Result<PortSpec, String> {
    if !value.is_object() {
        return Ok(PortSpec { port: integer(at, value, 1, u16::MAX)?, public: None, udp: false });
    }
    let fields = Fields::of(value, &format!("{at}."), &["port", "public", "protocol"], &[])?;
    let number = |at: &str, value: &Value| integer(at, value, 1, u16::MAX);
    Ok(PortSpec {
        port: fields.read("port", number)?.ok_or_else(|| format!("`{at}.port` is missing"))?,
        public: fields.read("public", number)?,
        udp: fields.read("protocol", |at, value| one_of(at, value, &["tcp", "udp"]))? == Some("udp"),
    })
}

fn policy(at: &str, value: &Value) -> Result<RestartPolicy, String> {
    Ok(match one_of(at, value, &["always", "on-failure", "never"])? {
        "always" => RestartPolicy::Always,
        "on-failure" => RestartPolicy::OnFailure,
        _ => RestartPolicy::Never,
    })
}

fn signal(at: &str, value: &Value) -> Result<u32, String> {
    let name = value.as_str().map(|name| name.strip_prefix("SIG").unwrap_or(name));
    let number = SIGNALS.iter().find(|(known, _)| name == Some(known)).map(|(_, number)| *number);
    number.ok_or_else(|| {
        let known: Vec<String> = SIGNALS.iter().map(|(name, _)| format!("SIG{name}")).collect();
        format!("`{at}` must be one of {}, not {}", known.join(", "), shown(value))
    })
}

/// Milliseconds.
fn duration(at: &str, value: &Value) -> Result<u64, String> {
    const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];
    let ms = value.as_f64().or_else(|| with_unit(value.as_str()?, &UNITS)).filter(|ms| (0.0..=DURATION_MS_MAX).contains(ms));
    ms.map(|ms| ms.round() as u64)
        .ok_or_else(|| format!("`{at}` must be a duration like \"30s\" or a number of milliseconds, not {}", shown(value)))
}

/// Bytes.
fn size(at: &str, value: &Value) -> Result<u64, String> {
    const KIB: f64 = 1024.0;
    const UNITS: [(&str, f64); 4] = [("KiB", KIB), ("MiB", KIB * KIB), ("GiB", KIB * KIB * KIB), ("TiB", KIB * KIB * KIB * KIB)];
    // Past 2^53 a number of JavaScript is no longer exact.
    let bytes = value.as_f64().or_else(|| with_unit(value.as_str()?, &UNITS)).filter(|bytes| (1.0..9e15).contains(bytes));
    bytes
        .map(|bytes| bytes.round() as u64)
        .ok_or_else(|| format!("`{at}` must be a size like \"64MiB\" or a number of bytes, not {}", shown(value)))
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    // `parse` alone would take "1." and ".5" as well.
    (number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.')).then(|| number.parse::<f64>().ok())?.map(|n| n * factor)
}

/// Thousandths of a core.
fn cpus(at: &str, value: &Value) -> Result<u32, String> {
    let milli = value.as_f64().map(|cpus| (cpus * 1000.0).round()).filter(|milli| (1.0..=CPUS_MAX * 1000.0).contains(milli));
    milli.map(|milli| milli as u32).ok_or_else(|| format!("`{at}` must be a number of cores like 0.5 or 2, not {}", shown(value)))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(more: &Value) -> Value {
        let mut spec = json!({ "command": ["/bin/web"] });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    }

    #[test]
    fn every_field_finds_its_place() {
        let spec = json!({
            "command": ["/bin/web", "-p", ""], "cwd": "/srv", "user": "www", "stop": { "signal": "SIGINT", "timeout": "2.5s" },
            "env": { "A": "1", "B": "" }, "replicas": 3, "ports": [80, { "port": 53, "public": 5353, "protocol": "udp" }],
            "memory": "64MiB", "cpus": 0.25, "place": { "labels": { "disk": "ssd" }, "spread": "node", "avoid": ["db"] },
            "restart": { "policy": "on-failure", "backoff": "1s", "max": 5 }, "health": { "grace": 250 },
            "update": { "order": "stop-first", "parallel": 2, "rollback": true, "deadline": "10m" },
        });
        let map = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = ServiceSpec {
            command: vec!["/bin/web".into(), "-p".into(), String::new()],
            cwd: Some("/srv".into()),
            user: Some("www".into()),
            stop_signal: 2,
            stop_timeout_ms: 2_500,
            env: BTreeMap::from([map("A", "1"), map("B", "")]),
            replicas: Replicas::Count(3),
            ports: vec![PortSpec { port: 80, public: None, udp: false }, PortSpec { port: 53, public: Some(5353), udp: true }],
            memory: Some(64 << 20),
            cpus_milli: Some(250),
            labels: BTreeMap::from([map("disk", "ssd")]),
            avoid: vec!["db".into()],
            restart: Restart { policy: RestartPolicy::OnFailure, backoff_ms: 1_000, max: Some(5) },
            grace_ms: 250,
            update: Update { start_first: false, parallel: 2, rollback: true, deadline_ms: 600_000 },
        };
        assert_eq!(parse("web", &spec), Ok(expected));
        assert_eq!(parse("web", &with(&json!({}))), Ok(ServiceSpec { command: vec!["/bin/web".into()], ..ServiceSpec::default() }));
        assert_eq!(parse("web", &with(&json!({ "replicas": "every-node" }))).map(|spec| spec.replicas), Ok(Replicas::EveryNode));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        let table = [
            (json!("web"), "service `web`: the spec must be an object with command, cwd, user,"),
            (json!({}), "service `web`: `command` is missing: a list of the program and its arguments"),
            (json!({ "command": "web" }), "`command` must be a list of texts, not \"web\""),
            (json!({ "command": [] }), "`command` has 1 to 128 parts, the first is the program"),
            (json!({ "command": ["web", 8080] }), "`command[1]` must be a text, not 8080"),
            (json!({ "command": ["a\u{0}b"] }), "`command[0]` holds a NUL"),
            (with(&json!({ "replica": 3 })), "the spec has no field `replica` (it knows command, cwd,"),
            (with(&json!({ "replicas": 2.5 })), "`replicas` must be a whole number from 0 to 1024, or \"every-node\", not 2.5"),
            (with(&json!({ "replicas": -1 })), "`replicas` must be"),
            (with(&json!({ "replicas": null })), "`replicas` must be a whole number from 0 to 1024, or \"every-node\", not null"),
            (with(&json!({ "env": { "PORT": 8080 } })), "`env.PORT` must be a text, not 8080"),
            (with(&json!({ "env": { "A=B": "" } })), "`env` has a variable `A=B`"),
            (with(&json!({ "env": { "DISCO_TASK": "x" } })), "`env.DISCO_TASK`: the node sets what begins with DISCO_"),
            (with(&json!({ "env": { "PORT": "1" }, "ports": [80] })), "`env.PORT`: the node sets it to the first of `ports`"),
            (with(&json!({ "ports": [0] })), "`ports[0]` must be a whole number from 1 to 65535, not 0"),
            (with(&json!({ "ports": [80, { "port": 80 }] })), "`ports` has port 80 twice"),
            (with(&json!({ "ports": [{ "public": 80 }] })), "`ports[0].port` is missing"),
            (
                with(&json!({ "ports": [{ "port": 80, "protocol": "sctp" }] })),
                "`ports[0].protocol` must be one of \"tcp\", \"udp\", not \"sctp\"",
            ),
            (with(&json!({ "memory": "64MB" })), "`memory` must be a size like \"64MiB\" or a number of bytes, not \"64MB\""),
            (with(&json!({ "memory": 0 })), "`memory` must be a size"),
            (with(&json!({ "cpus": 0 })), "`cpus` must be a number of cores like 0.5 or 2, not 0"),
            (with(&json!({ "cwd": "work" })), "`cwd` must be an absolute path, not work"),
            (with(&json!({ "stop": { "signal": "SIGFOO" } })), "`stop.signal` must be one of SIGHUP, SIGINT,"),
            (
                with(&json!({ "stop": { "timeout": "ten" } })),
                "`stop.timeout` must be a duration like \"30s\" or a number of milliseconds, not \"ten\"",
            ),
            (with(&json!({ "stop": { "timeout": "1.s" } })), "`stop.timeout` must be a duration"),
            (with(&json!({ "stop": 5 })), "`stop` must be an object with signal, timeout, not 5"),
            (with(&json!({ "stop": { "after": 5 } })), "`stop` has no field `after` (it knows signal, timeout)"),
            (with(&json!({ "place": { "spread": "zone" } })), "`place.spread` \"zone\" is not available yet in this version"),
            (
                with(&json!({ "restart": { "policy": "sometimes" } })),
                "`restart.policy` must be one of \"always\", \"on-failure\", \"never\"",
            ),
            (with(&json!({ "health": { "http": "/" } })), "`health.http` is not available yet in this version"),
            (with(&json!({ "image": "nginx" })), "service `web`: `image` is not available yet in this version"),
            (with(&json!({ "schedule": "* * * * *" })), "`schedule` is not available yet in this version"),
            (with(&json!({ "update": { "parallel": 0 } })), "`update.parallel` must be a whole number from 1 to 1024, not 0"),
            (with(&json!({ "update": { "rollback": "yes" } })), "`update.rollback` must be true or false, not \"yes\""),
        ];
        let long = with(&json!({ "env": { "A": "x".repeat(SERVICE_SPEC_BYTES_MAX) } }));
        assert!(parse("web", &long).expect_err("too long").starts_with("service `web`: it takes 164"));
        assert!(parse("w b", &with(&json!({}))).expect_err("a space").starts_with("a service's name has 1 to 64 letters"));
        for (spec, expected) in table {
            let error = parse("web", &spec).expect_err(expected);
            assert!(error.contains(expected), "{spec}\n--- gave\n{error}\n--- not\n{expected}");
        }
    }
}
