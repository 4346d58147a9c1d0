//! What the build pulls in, against `deny.toml`, offline.
//!
//! cargo-deny would do this and more, but it has to be built first; a bare machine has `cargo metadata`, and that is
//! enough for licences, second copies and sources. Advisories need a database from outside: here each accepted one
//! must still have a crate to be accepted for.

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

#[derive(Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licenses,
    advisories: Advisories,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Advisories {
    ignore: Vec<Accepted>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Accepted>,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    rust_version: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn policy() -> Policy {
    let text = std::fs::read_to_string(Path::new(ROOT).join("deny.toml")).expect("deny.toml lies at the top");
    toml::from_str(&text).expect("deny.toml is what cargo-deny reads")
}

/// Every package that is built for the first target of the policy, ours and build tools among them.
fn packages(policy: &Policy) -> Vec<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    let args = ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &policy.graph.targets[0]];
    let output = cargo.args(args).current_dir(ROOT).output().expect("cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo prints format version 1");
    let used: BTreeSet<String> = metadata.resolve.nodes.into_iter().map(|node| node.id).collect();
    metadata.packages.into_iter().filter(|package| used.contains(&package.id)).collect()
}

/// Whether an SPDX expression can be satisfied with allowed licences. `A/B` is its old spelling of `A OR B`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (satisfied, rest) = any_of(&words, allowed);
    assert!(rest.is_empty(), "cannot read the licence `{expression}`");
    satisfied
}

fn any_of<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut satisfied, mut rest) = all_of(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (next, after) = all_of(more, allowed);
        satisfied |= next;
        rest = after;
    }
    (satisfied, rest)
}

fn all_of<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut satisfied, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (next, after) = one(more, allowed);
        satisfied &= next;
        rest = after;
    }
    (satisfied, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match any_of(inner, allowed) {
            (satisfied, [")", rest @ ..]) => (satisfied, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (allowed.contains(*name), rest),
        [] => (false, words),
    }
}

#[test]
fn every_licence_is_an_allowed_one() {
    let policy = policy();
    let mut refused = Vec::new();
    for package in packages(&policy) {
        let license = package.license.as_deref().unwrap_or("unnamed");
        if !is_allowed(license, &policy.licenses.allow) {
            refused.push(format!("{} {}: {license}", package.name, package.version));
        }
    }
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn a_licence_expression_is_read_as_spdx_means_it() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    let table = [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("MIT AND (GPL-3.0 OR AGPL-3.0)", false),
        ("MIT WITH Some-exception", false),
    ];
    for (expression, expected) in table {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_second_copy_of_a_crate_has_its_reason() {
    let policy = policy();
    let mut skipped: BTreeSet<&str> = policy.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages(&policy) {
        copies.entry(package.name).or_default().push(package.version);
    }
    let mut unexplained = Vec::new();
    for (name, versions) in copies {
        // Build metadata (`+spec-1.1.0`) is no part of a version's identity.
        let plain = |version: &String| version.split('+').next().unwrap_or_default().to_owned();
        let kept = versions.iter().filter(|version| !skipped.remove(format!("{name}@{}", plain(version)).as_str()));
        if kept.count() > 1 {
            unexplained.push(format!("{name} {versions:?}"));
        }
    }
    assert!(unexplained.is_empty(), "two copies and no `skip` in deny.toml: {unexplained:#?}");
    assert!(skipped.is_empty(), "deny.toml skips what is no longer there: {skipped:?}");
}

#[test]
fn every_exception_says_why_and_is_still_needed() {
    let policy = policy();
    let names: BTreeSet<String> = locked_names();
    for accepted in policy.advisories.ignore.iter().chain(&policy.bans.skip) {
        assert!(!accepted.reason.trim().is_empty(), "{} has no reason", accepted.name);
    }
    for accepted in &policy.advisories.ignore {
        assert!(names.contains(&accepted.name), "{} is no longer built: drop its advisory", accepted.name);
    }
}

fn locked_names() -> BTreeSet<String> {
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).expect("Cargo.lock lies at the top");
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.map(str::to_owned).collect()
}

#[test]
fn everything_comes_from_the_registry_or_from_here() {
    for package in packages(&policy()) {
        let known = package.source.as_deref().is_none_or(|source| source.starts_with("registry+"));
        assert!(known, "{} comes from {:?}", package.name, package.source);
    }
}

#[test]
fn the_rust_version_we_promise_is_the_newest_that_a_dependency_asks_for() {
    let number = |version: &str| -> Vec<u32> {
        let mut parts: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
        parts.resize(3, 0);
        parts
    };
    let all = packages(&policy());
    let asked = all.iter().filter(|package| package.source.is_some()).filter_map(|package| package.rust_version.as_deref());
    let newest = asked.max_by_key(|version| number(version)).expect("many say so");
    let ours = all.iter().find(|package| package.name == "agent").and_then(|package| package.rust_version.clone());
    assert_eq!(number(&ours.expect("Cargo.toml says it")), number(newest), "dependencies ask for {newest}");
}
