//! How answers look: tables and one screen for people, JSON for programs. Pure: the clock and the colours are arguments.

pub mod json;
pub mod plan;
pub mod services;
pub mod status;
pub mod table;

use std::io::IsTerminal as _;

/// Colours, or none: only on a terminal, and never with NO_COLOR (no-color.org) or TERM=dumb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub fn off() -> Paint {
        Paint { on: false }
    }

    pub fn stdout() -> Paint {
        Paint { on: std::io::stdout().is_terminal() && wanted() }
    }

    pub fn stderr() -> Paint {
        Paint { on: std::io::stderr().is_terminal() && wanted() }
    }

    // SGR codes of ECMA-48.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// The `number`th of a row of colours, over and over.
    pub fn one_of(self, number: usize, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
        self.with(COLOURS[number % COLOURS.len()], text)
    }

    /// A state in the colour of what it means.
    pub fn state(self, state: &str) -> String {
        match state {
            "ready" | "running" => self.green(state),
            "lost" | "failed" => self.red(state),
            "joining" | "pending" | "starting" | "stopping" | "draining" => self.yellow(state),
            _ => state.to_owned(),
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// What others wrote (names, reasons, values) must not move the cursor or the table: control characters become `?`.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// How long ago, in its biggest unit: `3s`, `5m`, `2h`, `4d`. A clock ahead of ours shows as `0s`.
pub fn age(now_ms: u64, at_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(at_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes as disco.d.ts writes sizes: `512KiB`, `1.9GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, scale) in UNITS {
        if bytes >= scale {
            let tenths = u128::from(bytes) * 10 / u128::from(scale);
            return if tenths % 10 == 0 { format!("{}{unit}", tenths / 10) } else { format!("{}.{}{unit}", tenths / 10, tenths % 10) };
        }
    }
    format!("{bytes}B")
}

/// As sha256sum(1) prints bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Enough of an id to tell nodes apart.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
pub mod samples {
    use proto::v1;

    /// A service at version 2 whose tasks are on node n1: state, version, wanted.
    pub fn service(name: &str, desired: u32, roll: &str, tasks: &[(&str, u64, bool)]) -> v1::Service {
        let task = |(number, (state, version, wanted)): (u32, &(&str, u64, bool))| v1::Task {
            id: format!("{name}.{number}"),
            node: format!("{:016x}", 1),
            state: (*state).into(),
            address: "127.80.3.1".into(),
            ports: [(80, 41_000 + number)].into(),
            version: *version,
            pid: 4_000 + number,
            wanted: *wanted,
            ..Default::default()
        };
        let running = tasks.iter().filter(|(state, _, wanted)| *state == "running" && *wanted).count();
        v1::Service {
            name: name.into(),
            desired,
            running: running.try_into().expect("a test has few tasks"),
            healthy: running.try_into().expect("a test has few tasks"),
            version: 2,
            tasks: (1..).zip(tasks).map(task).collect(),
            roll: roll.into(),
            command: ["serve", "--port", "80"].map(String::from).into(),
            ..Default::default()
        }
    }

    /// A small cluster in trouble, for the tests of this folder.
    pub fn status() -> v1::Status {
        let node = |n: u64, state: &str| v1::Node {
            id: format!("{n:016x}"),
            name: format!("n{n}"),
            address: format!("127.80.3.{n}:5080"),
            role: "manager".into(),
            state: state.into(),
            leader: n == 1,
            cpus: 2,
            memory: 1 << 30,
            instance: Some(format!("i-{n}")),
            member: n,
            joined_ms: 1_000 * n,
            since_ms: if state == "lost" { 50_000 } else { 0 },
            reason: if state == "lost" { "silent for 5 s".into() } else { String::new() },
            ..Default::default()
        };
        v1::Status {
            cluster: "lab".into(),
            cluster_id: "00000000000000ff".into(),
            leader: Some(format!("{:016x}", 1)),
            desired_nodes: 3,
            managers: 3,
            nodes: vec![node(1, "ready"), node(2, "lost")],
            instances: vec![v1::Instance {
                id: "i-2".into(),
                address: "127.80.3.2".into(),
                private_address: "127.80.3.2".into(),
                state: "stopped".into(),
                desired: "running".into(),
                node: format!("{:016x}", 2),
                problem: "no\x1b[31m space".into(),
            }],
            events: vec![v1::Event { id: 9, at_ms: 50_000, name: "node.lost".into(), subject: "n2".into(), text: "silent for 5 s".into() }],
            term: 4,
            problems: vec!["node n2 is lost: silent for 5 s".into()],
            answered_by: format!("{:016x}", 1),
            voters: vec![1, 2],
            learners: vec![],
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_short() {
        for (ms, text) in [(0, "0s"), (119_999, "119s"), (120_000, "2m"), (7_200_000, "2h"), (200_000_000, "2d")] {
            assert_eq!(age(ms, 0), text);
        }
        assert_eq!(age(0, 5_000), "0s");
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (2_040_109_465, "1.8GiB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
