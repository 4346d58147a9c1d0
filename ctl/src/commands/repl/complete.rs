//! What may follow what was typed: names of the language's world, members of the cluster, names of this cluster's things.

use proto::v1;

/// Members of `cluster` that work where the expression is evaluated (`disco.d.ts`).
const CLUSTER: [&str; 7] = ["key(", "leader()", "name", "nodes()", "scale(", "service(", "services()"];
const SERVICE: [&str; 5] = ["remove()", "restart()", "rollback()", "scale(", "status()"];
const KEY: [&str; 3] = ["delete()", "get()", "set("];
const GLOBALS: [&str; 10] = ["Array", "ENV", "JSON", "Math", "Object", "await", "cluster", "delay(", "fetch(", "run("];

/// What this cluster's people and scripts call things.
#[derive(Default)]
pub struct Words {
    services: Vec<String>,
    nodes: Vec<String>,
}

impl Words {
    pub fn of(status: &v1::Status) -> Words {
        Words {
            services: status.services.iter().map(|s| s.name.clone()).collect(),
            nodes: status.nodes.iter().map(|n| n.name.clone()).collect(),
        }
    }

    /// Where the word under the cursor begins, and what it may become.
    pub fn complete(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let typed = line.get(..at).unwrap_or(line);
        let start =
            typed.rfind(|c: char| !is_name(c)).map_or(0, |before| before + typed[before..].chars().next().map_or(1, char::len_utf8));
        let (before, word) = typed.split_at(start);
        let candidates: Vec<String> = match before.chars().next_back() {
            Some('.') => members(&before[..before.len() - 1]).iter().map(|m| (*m).to_owned()).collect(),
            Some('"' | '\'' | '`') if before.trim_end_matches(['"', '\'', '`']).ends_with("service(") => self.services.clone(),
            Some('"' | '\'' | '`') => self.nodes.iter().chain(&self.services).cloned().collect(),
            _ => GLOBALS.map(str::to_owned).into(),
        };
        (start, candidates.into_iter().filter(|c| c.starts_with(word) && c != word).collect())
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '-'
}

/// Members of what an expression that ends like this is.
fn members(expression: &str) -> &'static [&'static str] {
    let call = |name: &str| expression.ends_with(')') && expression.rfind('(').is_some_and(|open| expression[..open].ends_with(name));
    if expression.ends_with("cluster") {
        &CLUSTER
    } else if call("cluster.service") {
        &SERVICE
    } else if call("cluster.key") {
        &KEY
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_completed_with_what_fits_there() {
        let words = Words { services: vec!["web".into(), "worker".into()], nodes: vec!["n1".into(), "web-host".into()] };
        let table = [
            ("clu", 0, vec!["cluster"]),
            ("await cluster.no", 14, vec!["nodes()"]),
            ("cluster.s", 8, vec!["scale(", "service(", "services()"]),
            ("cluster.service(\"w", 17, vec!["web", "worker"]),
            ("cluster.service('web').re", 23, vec!["remove()", "restart()"]),
            ("cluster.key('a').", 17, vec!["delete()", "get()", "set("]),
            ("(await cluster.nodes()).find(n => n.name == 'we", 45, vec!["web-host", "web"]),
            ("JSON.str", 5, vec![]),
            ("über", 0, vec![]),
        ];
        for (line, start, expected) in table {
            assert_eq!(words.complete(line, line.len()), (start, expected.into_iter().map(str::to_owned).collect()), "{line}");
        }
    }

    #[test]
    fn nothing_is_offered_that_scripts_do_not_have() {
        let types = include_str!("../../../../docs/disco.d.ts");
        let language = ["Array", "JSON", "Math", "Object", "await", "cluster"];
        for candidate in CLUSTER.iter().chain(&SERVICE).chain(&KEY).chain(&GLOBALS).filter(|c| !language.contains(c)) {
            let name = candidate.trim_end_matches(['(', ')']);
            let there = [format!("{name}("), format!("readonly {name}:"), format!("const {name}:")];
            assert!(there.iter().any(|form| types.contains(form)), "disco.d.ts has no `{name}`");
        }
    }

    #[test]
    fn a_cursor_inside_a_character_does_no_harm() {
        assert_eq!(Words::default().complete("ü", 1).1, Vec::<String>::new());
    }
}
