//! The commands there are. Only what works is listed.
//!
//! A file for each thing commands are about; here is their order in `--help`, what they share, and how one is found.

mod folder;
mod machines;
mod services;
mod values;

use super::{Command, Flag, Operand, Shell, Spec};
use crate::message::Failure;

pub(super) const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: None, choices: &[], required: false, help }
}
pub(super) const fn valued(long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), choices: &[], required: false, help }
}
pub(super) const fn needs(name: &'static str) -> Operand {
    Operand { name, required: true }
}
pub(super) const fn may_have(name: &'static str) -> Operand {
    Operand { name, required: false }
}

pub(super) const STALE: Flag = switch("stale", "answer from the asked node's own copy, even without a leader");
pub(super) const YES: Flag = switch("yes", "answer yes to every question");
pub(super) const FOLLOW: Flag =
    Flag { long: "follow", short: Some('f'), value: None, choices: &[], required: false, help: "go on printing as things happen" };
const OTHERS: &[Spec] = &[
    Spec {
        words: &["completions"],
        operands: &[needs("SHELL")],
        flags: &[],
        summary: "print the completion script for bash, zsh or fish",
        about: "bash: disco completions bash > ~/.local/share/bash-completion/completions/disco\nzsh:  disco completions zsh > a folder of $fpath, as _disco\nfish: disco completions fish > ~/.config/fish/completions/disco.fish",
        parse: |w| match w.required(0).as_str() {
            "bash" => Ok(Command::Completions(Shell::Bash)),
            "zsh" => Ok(Command::Completions(Shell::Zsh)),
            "fish" => Ok(Command::Completions(Shell::Fish)),
            other => Err(Failure::broke(format!("there are no completions for `{other}`")).hint("they exist for bash, zsh and fish")),
        },
    },
    Spec {
        words: &["help"],
        operands: &[may_have("COMMAND"), may_have("SUBCOMMAND")],
        flags: &[],
        summary: "explain a command",
        about: "",
        parse: |w| {
            let words: Vec<String> = w.operands.clone();
            if words.is_empty() || find(&words).is_some() || is_group(&words) {
                Ok(Command::Help(words))
            } else {
                Err(super::unknown_command(&words))
            }
        },
    },
];

/// Flags every command takes.
pub const GLOBAL: &[Flag] = &[
    valued("dir", "D", "the project folder (default: $DISCO_DIR, or the current one)"),
    valued("socket", "PATH", "ask a node on this machine through its control.sock"),
    valued("discod", "PATH", "the discod program (default: $DISCO_DISCOD, or the one beside disco)"),
    valued("binaries", "DIR", "where discod-aarch64 and the like are (default: $DISCO_BINARIES)"),
    switch("json", "print JSON (docs/json.md)"),
];

/// Every command, in the order in which they are listed.
pub fn commands() -> impl Iterator<Item = &'static Spec> {
    [folder::SPECS, services::SPECS, machines::SPECS, values::SPECS, folder::LAST, OTHERS].into_iter().flatten()
}

/// The command of exactly these words.
pub fn find(words: &[String]) -> Option<&'static Spec> {
    commands().find(|s| s.words.iter().eq(words.iter()))
}

/// Whether these words begin longer commands, as `node` does.
pub fn is_group(words: &[String]) -> bool {
    commands().any(|s| s.words.len() > words.len() && s.words.iter().zip(words).all(|(a, b)| a == b))
}

/// The command's own flags, then the global ones.
pub fn flags(spec: Option<&'static Spec>) -> impl Iterator<Item = &'static Flag> {
    spec.map_or(&[][..], |s| s.flags).iter().chain(GLOBAL)
}

pub fn flag(spec: Option<&'static Spec>, is: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    flags(spec).find(|f| is(f))
}
