//! From words on a command line to a [`Command`] that cannot be wrong in form.
//!
//! One table (`table/`) says what commands, operands and flags there are; parsing, `--help`, the suggestions and the
//! shells' completions all read it, so they cannot disagree.

mod command;
pub mod completions;
pub mod help;
pub mod table;
pub mod units;

pub use command::{Command, Shell};

use crate::message::Failure;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// One row of the table.
pub struct Spec {
    /// What is typed, e.g. `["node", "ls"]`.
    pub words: &'static [&'static str],
    pub operands: &'static [Operand],
    pub flags: &'static [Flag],
    /// One line for the list of commands.
    pub summary: &'static str,
    /// More, for the command's own help; may be empty.
    pub about: &'static str,
    pub parse: fn(&Words) -> Result<Command, Failure>,
}

pub struct Operand {
    pub name: &'static str,
    pub required: bool,
}

pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// The value's name in help; `None` for a switch.
    pub value: Option<&'static str>,
    /// What a value may be, where that is a closed set.
    pub choices: &'static [&'static str],
    pub required: bool,
    pub help: &'static str,
}

/// What was typed after the command's own words.
#[derive(Default)]
pub struct Words {
    operands: Vec<String>,
    flags: BTreeMap<&'static str, String>,
}

impl Words {
    pub fn operand(&self, index: usize) -> Option<&str> {
        self.operands.get(index).map(String::as_str)
    }

    /// An operand the table calls required: the parser has checked that it is there.
    pub fn required(&self, index: usize) -> String {
        self.operand(index).expect("the table says it is required, and parse() checked").to_owned()
    }

    pub fn value(&self, flag: &str) -> Option<&str> {
        self.flags.get(flag).map(String::as_str)
    }

    pub fn switch(&self, flag: &str) -> bool {
        self.flags.contains_key(flag)
    }
}

/// Flags every command takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    pub dir: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub discod: Option<PathBuf>,
    pub binaries: Option<PathBuf>,
    pub json: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    pub global: Global,
    pub command: Command,
}

/// Reads a command line (without the program's own name).
///
/// # Errors
/// Names the first word that has no place, with the nearest one that has.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Failure> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut typed: Vec<String> = Vec::new();
    let mut spec: Option<&'static Spec> = None;
    let mut words = Words::default();
    let mut help = false;
    let mut version = false;
    while let Some(argument) = parser.next().map_err(usage)? {
        let (shown, flag) = match argument {
            Value(word) => {
                let word = word.into_string().map_err(|w| Failure::broke(format!("`{}` is not UTF-8", w.to_string_lossy())))?;
                match spec {
                    Some(_) => words.operands.push(word),
                    None => {
                        typed.push(word);
                        spec = table::find(&typed);
                        if spec.is_none() && !help && !table::is_group(&typed) {
                            return Err(unknown_command(&typed));
                        }
                    }
                }
                continue;
            }
            Long("help") | Short('h') => {
                help = true;
                continue;
            }
            Long("version") | Short('V') => {
                version = true;
                continue;
            }
            Long(name) => (format!("--{name}"), table::flag(spec, |f| f.long == name)),
            Short(letter) => (format!("-{letter}"), table::flag(spec, |f| f.short == Some(letter))),
        };
        let Some(flag) = flag else { return if help { continue } else { Err(unknown_flag(&shown, spec)) } };
        let value = match flag.value {
            None => String::new(),
            Some(name) => {
                let value = parser.value().map_err(|_| Failure::broke(format!("`{shown}` needs a value: {shown} {name}")))?;
                value.into_string().map_err(|v| Failure::broke(format!("`{}` is not UTF-8", v.to_string_lossy())))?
            }
        };
        if !flag.choices.is_empty() && !flag.choices.contains(&value.as_str()) {
            return Err(Failure::broke(format!("`{shown}` cannot be `{value}`")).hint(format!("it is one of: {}", flag.choices.join(", "))));
        }
        if words.flags.insert(flag.long, value).is_some() && flag.value.is_some() {
            return Err(Failure::broke(format!("`{shown}` is there twice")));
        }
    }
    let command = match spec {
        None if help && !typed.is_empty() && !table::is_group(&typed) => return Err(unknown_command(&typed)),
        _ if help => Command::Help(typed),
        _ if version => Command::Version,
        Some(spec) => {
            check_operands(spec, &words)?;
            (spec.parse)(&words)?
        }
        None => Command::Help(typed),
    };
    Ok(Invocation { global: global(&words), command })
}

fn global(words: &Words) -> Global {
    Global {
        dir: words.value("dir").map(PathBuf::from),
        socket: words.value("socket").map(PathBuf::from),
        discod: words.value("discod").map(PathBuf::from),
        binaries: words.value("binaries").map(PathBuf::from),
        json: words.switch("json"),
    }
}

fn check_operands(spec: &Spec, words: &Words) -> Result<(), Failure> {
    let name = spec.words.join(" ");
    let given = words.operands.len();
    if let Some(missing) = spec.operands.iter().skip(given).find(|o| o.required) {
        return Err(Failure::broke(format!("`disco {name}` needs {}", missing.name)).hint(format!("usage: {}", help::usage(spec))));
    }
    if let Some(extra) = words.operands.get(spec.operands.len()) {
        return Err(Failure::broke(format!("`{extra}` has no place in `disco {name}`")).hint(format!("usage: {}", help::usage(spec))));
    }
    Ok(())
}

fn usage(error: lexopt::Error) -> Failure {
    Failure::broke(error.to_string()).hint("see `disco --help`")
}

fn unknown_command(typed: &[String]) -> Failure {
    let all = typed.join(" ");
    let failure = Failure::broke(format!("there is no command `{all}`"));
    match nearest(&all, table::commands().map(|s| s.words.join(" "))) {
        Some(near) => failure.hint(format!("did you mean `disco {near}`?")),
        None => failure.hint("see `disco --help`"),
    }
}

fn unknown_flag(shown: &str, spec: Option<&'static Spec>) -> Failure {
    let of = spec.map_or(String::from("disco"), |s| format!("disco {}", s.words.join(" ")));
    let failure = Failure::broke(format!("`{of}` has no flag `{shown}`"));
    match nearest(shown, table::flags(spec).map(|f| format!("--{}", f.long))) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(format!("see `{of} --help`")),
    }
}

/// The candidate that takes the fewest edits, if that is at most a third of the word.
pub fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates.map(|c| (distance(word, &c), c)).filter(|(d, c)| *d <= 1 + c.len().max(word.len()) / 3).min().map(|(_, c)| c)
}

/// Levenshtein: insertions, deletions and substitutions, one each.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests;
