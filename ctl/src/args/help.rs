//! `--help`, made from the table.

use super::{Flag, Spec, table};
use std::fmt::Write as _;

/// `disco kv set KEY VALUE`
pub fn usage(spec: &Spec) -> String {
    let mut line = format!("disco {}", spec.words.join(" "));
    for operand in spec.operands {
        let _ = if operand.required { write!(line, " {}", operand.name) } else { write!(line, " [{}]", operand.name) };
    }
    for flag in spec.flags {
        let _ = if flag.required { write!(line, " {}", spelled(flag)) } else { write!(line, " [{}]", spelled(flag)) };
    }
    line
}

/// Help for a command, a group of commands (`node`), or all.
pub fn text(words: &[String]) -> String {
    match table::find(words) {
        Some(spec) => of_command(spec),
        None => of_group(words),
    }
}

fn of_command(spec: &Spec) -> String {
    let mut text = format!("{}\n\nusage: {}\n", sentence(spec.summary), usage(spec));
    if !spec.about.is_empty() {
        let _ = writeln!(text, "\n{}", spec.about);
    }
    if !spec.flags.is_empty() {
        text.push_str("\nflags:\n");
        list(&mut text, spec.flags);
    }
    text.push_str("\neverywhere:\n");
    list(&mut text, table::GLOBAL);
    text
}

fn of_group(words: &[String]) -> String {
    let mut text = String::new();
    if words.is_empty() {
        text.push_str("disco makes and runs a cluster from a folder with client.js and cluster.js.\n\nusage: disco COMMAND\n\ncommands:\n");
    } else {
        let _ = writeln!(text, "usage: disco {} COMMAND\n\ncommands:", words.join(" "));
    }
    let of_group = |s: &&Spec| s.words.iter().zip(words).all(|(a, b)| a == b);
    let lines: Vec<(String, &str)> = table::commands()
        .filter(of_group)
        .map(|s| {
            let operands: String =
                s.operands.iter().map(|o| if o.required { format!(" {}", o.name) } else { format!(" [{}]", o.name) }).collect();
            (s.words.join(" ") + &operands, s.summary)
        })
        .collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, summary) in lines {
        let _ = writeln!(text, "  {name:width$}  {summary}");
    }
    text.push_str("\neverywhere:\n");
    list(&mut text, table::GLOBAL);
    text.push_str("\n`disco COMMAND --help` says more. Exit status: 0 done, 1 the answer is no, 2 something broke.\n");
    text
}

fn list(text: &mut String, flags: &[Flag]) {
    let width = flags.iter().map(|f| spelled(f).len()).max().unwrap_or(0);
    for flag in flags {
        let _ = writeln!(text, "  {:width$}  {}", spelled(flag), flag.help);
    }
}

fn spelled(flag: &Flag) -> String {
    let mut text = flag.short.map(|c| format!("-{c}, ")).unwrap_or_default();
    let _ = write!(text, "--{}", flag.long);
    if let Some(value) = flag.value {
        let _ = write!(text, " {value}");
    }
    text
}

fn sentence(summary: &str) -> String {
    let mut letters = summary.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("disco: {first}{}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_explains_itself_and_stands_in_the_list() {
        let all = text(&[]);
        for spec in table::commands() {
            let words: Vec<String> = spec.words.iter().map(|w| (*w).to_owned()).collect();
            assert!(all.contains(&format!("  {}", spec.words.join(" "))), "{words:?} is not listed");
            let own = text(&words);
            assert!(own.contains(&usage(spec)) && spec.flags.iter().all(|f| own.contains(f.help)), "{own}");
        }
    }

    #[test]
    fn only_what_may_be_left_out_stands_in_brackets() {
        let usage = |words: &[&str]| usage(table::find(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).expect("there is"));
        assert_eq!(usage(&["token", "create"]), "disco token create --role ROLE [--ttl TIME] [--uses N]");
        assert_eq!(usage(&["token", "revoke"]), "disco token revoke ID");
        for spec in table::commands().filter(|spec| spec.flags.iter().any(|flag| flag.required)) {
            assert!((spec.parse)(&Default::default()).is_err(), "{}", spec.words.join(" "));
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_should_need_to_be() {
        for line in text(&[]).lines() {
            assert!(line.len() <= 100, "{line}");
        }
    }
}
