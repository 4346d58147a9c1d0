//! What an apply would change: a line each, `+` new, `~` changed, `-` gone.

use super::{Paint, plain};
use proto::v1;
use std::fmt::Write as _;

/// `~ service web  replicas 2 -> 3`
pub fn lines(changes: &[v1::PlannedChange], paint: Paint) -> String {
    let width = changes.iter().map(|c| plain(&c.subject).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for change in changes {
        let line = format!("{} {:width$}  {}", plain(&change.sign), plain(&change.subject), plain(&change.detail));
        let line = match change.sign.as_str() {
            "+" => paint.green(line.trim_end()),
            "-" => paint.red(line.trim_end()),
            _ => paint.yellow(line.trim_end()),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// `1 to add, 2 to change, 0 to remove`
pub fn summary(changes: &[v1::PlannedChange]) -> String {
    let count = |sign: &str| changes.iter().filter(|c| c.sign == sign).count();
    format!("{} to add, {} to change, {} to remove", count("+"), count("~"), count("-"))
}

/// Names of the services that run differently afterwards.
pub fn services(changes: &[v1::PlannedChange]) -> Vec<String> {
    changes.iter().filter(|c| c.sign != "-").filter_map(|c| c.subject.strip_prefix("service ").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sign: &str, subject: &str, detail: &str) -> v1::PlannedChange {
        v1::PlannedChange { sign: sign.into(), subject: subject.into(), detail: detail.into() }
    }

    #[test]
    fn a_plan_is_a_line_a_change_and_their_numbers() {
        let changes = [
            change("+", "service web", "3 of `python3 -m http.server`"),
            change("~", "service api", "replicas 2 (by hand) -> 3"),
            change("-", "service old", ""),
            change("~", "key motd", "a\x1b[31m -> b"),
        ];
        let expected = "\
+ service web  3 of `python3 -m http.server`
~ service api  replicas 2 (by hand) -> 3
- service old
~ key motd     a?[31m -> b
";
        assert_eq!(lines(&changes, Paint::off()), expected);
        assert_eq!(summary(&changes), "1 to add, 2 to change, 1 to remove");
        assert_eq!(services(&changes), ["web", "api"]);
    }
}
