//! Completion scripts, made from the table: commands, flags and the values of closed sets.

use super::{Shell, Spec, table};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        // zsh reads bash's own way of completing (zshcompsys(1), bashcompinit).
        Shell::Zsh => format!("#compdef disco\nautoload -U +X bashcompinit && bashcompinit\n{}", bash()),
        Shell::Fish => fish(),
    }
}

/// For every typed beginning, the words that may follow: `"" -> init bootstrap …`, `"node" -> ls inspect rm`.
fn next_words() -> BTreeMap<String, Vec<&'static str>> {
    let mut next: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for spec in table::commands() {
        for (i, word) in spec.words.iter().enumerate() {
            let words = next.entry(spec.words[..i].join(" ")).or_default();
            if !words.contains(word) {
                words.push(word);
            }
        }
    }
    next
}

/// What may follow a complete command besides flags.
fn operands(spec: &Spec) -> &'static [&'static str] {
    if spec.words == ["completions"] { &["bash", "zsh", "fish"] } else { &[] }
}

fn bash() -> String {
    let mut text = String::from(
        "_disco() {\n  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} typed=\"\" i next=\"\"\n  \
         for ((i = 1; i < COMP_CWORD; i++)); do\n    case ${COMP_WORDS[i]} in\n",
    );
    let valued: Vec<String> = table::GLOBAL.iter().filter(|f| f.value.is_some()).map(|f| format!("--{}", f.long)).collect();
    let _ = write!(
        text,
        "      {}) ((i++));;\n      -*) ;;\n      *) typed=\"${{typed:+$typed }}${{COMP_WORDS[i]}}\";;\n    esac\n  done\n",
        valued.join("|")
    );
    text.push_str("  case $before in\n    --dir|--binaries) COMPREPLY=($(compgen -d -- \"$word\")); return;;\n    --socket|--discod) COMPREPLY=($(compgen -f -- \"$word\")); return;;\n");
    let mut chosen = BTreeMap::new();
    for flag in table::commands().flat_map(|s| s.flags).filter(|f| !f.choices.is_empty()) {
        chosen.insert(flag.long, flag.choices.join(" "));
    }
    for (long, choices) in chosen {
        let _ = writeln!(text, "    --{long}) COMPREPLY=($(compgen -W '{choices}' -- \"$word\")); return;;");
    }
    text.push_str("  esac\n  case $typed in\n");
    for (typed, words) in next_words() {
        let _ = writeln!(text, "    '{typed}') next='{}';;", words.join(" "));
    }
    for spec in table::commands() {
        let mut words: Vec<String> = operands(spec).iter().map(|w| (*w).to_owned()).collect();
        words.extend(spec.flags.iter().map(|f| format!("--{}", f.long)));
        let _ = writeln!(text, "    '{}'*) next='{}';;", spec.words.join(" "), words.join(" "));
    }
    let global: Vec<String> = table::GLOBAL.iter().map(|f| format!("--{}", f.long)).collect();
    let _ = write!(
        text,
        "  esac\n  if [[ $word == -* ]]; then next=\"$next {} --help\"; fi\n  COMPREPLY=($(compgen -W \"$next\" -- \"$word\"))\n}}\ncomplete -F _disco disco\n",
        global.join(" ")
    );
    text
}

fn fish() -> String {
    let mut text = String::from("complete -c disco -f\n");
    for spec in table::commands() {
        let (last, before) = spec.words.split_last().expect("a command has words");
        let condition = match before.first() {
            None => "__fish_use_subcommand".to_owned(),
            Some(group) => format!("__fish_seen_subcommand_from {group}"),
        };
        let _ = writeln!(text, "complete -c disco -n '{condition}' -a {last} -d '{}'", quoted(spec.summary));
        if let Some(group) = before.first().filter(|g| !text.contains(&format!("-n '__fish_use_subcommand' -a {g} "))) {
            let _ = writeln!(text, "complete -c disco -n '__fish_use_subcommand' -a {group} -d ''");
        }
        for word in operands(spec) {
            let _ = writeln!(text, "complete -c disco -n '__fish_seen_subcommand_from {last}' -a {word}");
        }
        for flag in spec.flags {
            let short = flag.short.map(|c| format!(" -s {c}")).unwrap_or_default();
            let value = match (flag.value, flag.choices) {
                (None, _) => String::new(),
                (Some(_), []) => " -x".to_owned(),
                (Some(_), choices) => format!(" -x -a '{}'", choices.join(" ")),
            };
            let _ = writeln!(
                text,
                "complete -c disco -n '__fish_seen_subcommand_from {last}' -l {}{short}{value} -d '{}'",
                flag.long,
                quoted(flag.help)
            );
        }
    }
    for flag in table::GLOBAL {
        let value = if flag.value.is_some() { " -r -F" } else { "" };
        let _ = writeln!(text, "complete -c disco -l {}{value} -d '{}'", flag.long, quoted(flag.help));
    }
    text
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn bash_completes_commands_subcommands_flags_and_values() {
        for (line, expected) in [
            ("disco boot", "bootstrap"),
            ("disco node in", "inspect"),
            ("disco --dir x kv wa", "watch"),
            ("disco status --wa", "--watch"),
            ("disco token create --role ma", "manager"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let program =
                format!("{}\nCOMP_WORDS=({line}); COMP_CWORD={}; _disco; echo \"${{COMPREPLY[*]}}\"", script(Shell::Bash), words.len() - 1);
            let output = Command::new("bash").args(["-c", &program]).output().expect("bash is there");
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    #[test]
    fn fish_and_zsh_know_every_command() {
        let (fish, zsh) = (script(Shell::Fish), script(Shell::Zsh));
        for spec in table::commands() {
            let last = spec.words[spec.words.len() - 1];
            assert!(fish.contains(&format!("-a {last} -d")) && zsh.contains(last), "{last}");
        }
    }
}
