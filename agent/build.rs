//! What a release says of itself: from which commit it was built, and for which machine.
//!
//! Nothing of it comes from a clock or a folder, so the same commit gives the same bytes everywhere. The commit is
//! `DISCO_COMMIT` if set (the scripts do), else what git says, else what `git archive` wrote into commit.txt. A build for
//! tests names none: it would be built anew after every commit.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Hexadecimal digits shown: enough for any repository a person works with.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DISCO_COMMIT");
    let target = env::var("TARGET").expect("cargo sets it");
    let given = env::var("DISCO_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = match env::var("PROFILE").as_deref() {
        _ if given.is_some() => given,
        Ok("release") => from_git().or_else(from_archive),
        _ => Some("built for tests".to_owned()),
    };
    let commit = commit.unwrap_or_else(|| "unknown commit".to_owned());
    println!("cargo::rustc-env=DISCO_VERSION={} ({commit}, {target})", env::var("CARGO_PKG_VERSION").expect("cargo sets it"));
}

fn from_git() -> Option<String> {
    // An archive that was unpacked inside another project must not take that one's commit.
    let top = fs::canonicalize("..").ok()?;
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?) != top {
        return None;
    }
    // A new commit is a new line there; HEAD itself only names the branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        let log = PathBuf::from(log);
        println!("cargo::rerun-if-changed={}", log.display());
    }
    Some(git(&["rev-parse", "HEAD"])?.get(..DIGITS)?.to_owned())
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn from_archive() -> Option<String> {
    println!("cargo::rerun-if-changed=commit.txt");
    let text = fs::read_to_string(Path::new("commit.txt")).ok()?;
    let digits = text.trim();
    // `git archive` replaces the placeholder (gitattributes(5), export-subst); elsewhere it stands there unchanged.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| digits.get(..DIGITS).map(str::to_owned)).flatten()
}
