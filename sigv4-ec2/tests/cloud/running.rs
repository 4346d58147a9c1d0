//! The test cloud of `scripts/cloud/up` while it runs: moto behind a proxy that is slow, forgetful and busy on demand.
//!
//! The tests of every crate that has to do with EC2 start it with this file.

use sigv4_ec2::Credentials;
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

const UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cloud/up");

/// Ends with its standard input, and so with this process, however that ends.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    /// Addresses and keys, as in a shell's environment.
    pub said: BTreeMap<String, String>,
}

impl Running {
    /// Waits until it is ready; options are those of `scripts/cloud/up`.
    pub fn start(options: &[&str]) -> Running {
        let mut command = Command::new(UP);
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {UP}, which makes the test cloud: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut running = Running { input: child.stdin.take(), child, said: BTreeMap::new() };
        for line in lines {
            let line = line.expect("it prints text");
            match line.split_once('=') {
                Some((name, value)) => drop(running.said.insert(name.to_owned(), value.to_owned())),
                None if line == "ready" => return running,
                None => {}
            }
        }
        let status = running.child.wait().expect("it is our child");
        panic!("the test cloud did not start: {UP} ends with {status}; what it says stands above")
    }

    pub fn said(&self, name: &str) -> &str {
        self.said.get(name).unwrap_or_else(|| panic!("the test cloud says {name}"))
    }

    /// `AWS` may do what a cluster needs (scripts/cloud/policy.json), `ADMIN` everything, `NOBODY` nothing,
    /// `PASSER` what a cluster with a role of a person's needs.
    pub fn credentials(&self, user: &str) -> Credentials {
        let said = |name: &str| self.said(&format!("{user}_{name}"));
        Credentials::new(said("ACCESS_KEY_ID"), said("SECRET_ACCESS_KEY"), None)
    }

    /// Tells the proxy something (see scripts/cloud/proxy.py).
    pub fn order(&self, method: &str, path: &str, body: &str) -> String {
        let url = format!("{}{path}", self.said("CLOUD_ORDERS"));
        let answer = match method {
            "GET" => ureq::get(&url).call(),
            "DELETE" => ureq::delete(&url).call(),
            _ => ureq::post(&url).send(body),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        answer.body_mut().with_config().limit(64 << 20).read_to_string().expect("the proxy answers")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
