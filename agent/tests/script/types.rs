//! The shipped `docs/disco.d.ts` and the executor's bindings name the same things: editors complete what works, and
//! nothing works that no editor knows.

use std::{collections::BTreeSet, future::Future, path::PathBuf, pin::Pin};

use agent::drivers::script::{HostOps, Modules, ScriptHost, ScriptOptions};
use serde_json::Value;

const TYPES: &str = include_str!("../../../docs/disco.d.ts");

/// Names that exist only to refuse clearly (mistakes.rs reads their errors); the types do not promise them.
const REFUSED: [&str; 3] = ["Cluster.link", "Cluster.secret", "FileStorage"];

const INIT: &str = "export function init() { return new Cluster({ name: 'c', provider: new Provider.Local({ name: 'l' }) }); }\n";

struct Nobody;

impl HostOps for Nobody {
    fn call<'a>(&'a self, op: &'a str, _: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        Box::pin(async move { Err(format!("{op} is not asked for here")) })
    }

    fn console(&self, _: &str, text: &str) {
        panic!("nothing is printed here: {text}");
    }
}

/// `delay`, `Cluster`, `Cluster.scale`, `Provider.Local`, `console.log`, …: what a script finds.
fn bound() -> BTreeSet<String> {
    let source = r#"
        import * as disco from "disco";
        const standard = new Set(["constructor", "length", "name", "prototype"]);
        const members = (object) => Object.getOwnPropertyNames(object).filter((name) => !standard.has(name));
        export function list() {
          const found = [];
          for (const name of Object.keys(disco)) {
            const value = disco[name];
            if (globalThis[name] !== value) throw new Error(`${name} is no global`);
            found.push(name);
            if (typeof value === "function" && Object.getOwnPropertyDescriptor(value, "prototype")?.writable === false) {
              found.push(...members(value).map((m) => `${name}.${m}`));
              for (const m of Object.getOwnPropertyNames(value.prototype)) if (m !== "constructor") found.push(`${name}.${m}`);
            } else if (typeof value === "object" && name !== "ENV") {
              found.push(...members(value).map((m) => `${name}.${m}`));
            }
          }
          const cluster = new Cluster({ name: "c", provider: new Provider.Local({ name: "l" }) });
          for (const object of [cluster.key("k"), cluster.service("s")])
            for (const m of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) if (m !== "constructor") found.push(`${object.constructor.name}.${m}`);
          return JSON.stringify(found);
        }
    "#;
    let modules = Modules::Memory([("cluster.js".to_owned(), format!("{INIT}{source}"))].into());
    let options = ScriptOptions { exe: PathBuf::from(env!("CARGO_BIN_EXE_discod")), ..ScriptOptions::new(modules) };
    let list = smol::block_on(ScriptHost::for_cluster(options).evaluate("list()", "c", &Nobody));
    let list: String = serde_json::from_str(&list.expect("the bindings can be listed")).expect("a text, printed as JSON");
    serde_json::from_str(&list).expect("a list of names")
}

/// The same, as the types declare them.
fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside: Option<String> = None;
    for line in TYPES.lines() {
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(declaration) = ["declare function ", "declare const ", "declare class "].iter().find_map(|d| line.strip_prefix(d)) {
            names.insert(word(declaration));
            inside = line.ends_with('{').then(|| word(declaration));
        } else if let Some((owner, rest)) =
            ["Key", "Service"].iter().find_map(|o| Some((o, line.strip_prefix(&format!("interface {o} {{ "))?)))
        {
            let members = rest.split("; ").map(|member| word(member.trim_start_matches("readonly ")));
            names.extend(members.filter(|name| !name.is_empty()).map(|name| format!("{owner}.{name}")));
        } else if line.starts_with('}') {
            inside = None;
        } else if let (Some(owner), Some(member)) = (&inside, line.strip_prefix("  ")) {
            let member = member.trim_start_matches("static ").trim_start_matches("readonly ");
            if !member.starts_with([' ', '/', '}', '*']) && !member.starts_with("private ") && !member.starts_with("constructor") {
                names.insert(format!("{owner}.{}", word(member)));
            }
        }
    }
    names
}

#[test]
fn the_types_declare_exactly_what_the_bindings_have() {
    let refused = |name: &String| !REFUSED.iter().any(|r| name == r || name.strip_prefix(r).is_some_and(|rest| rest.starts_with('.')));
    let (bound, declared) = (bound(), declared());
    assert!(declared.contains("Cluster.scale") && declared.contains("Key.set") && declared.len() > 30, "the types were read: {declared:?}");
    for name in REFUSED {
        assert!(bound.contains(name) && !declared.contains(name), "{name} is refused, so it exists and is not declared");
    }
    let bound: BTreeSet<String> = bound.into_iter().filter(refused).collect();
    let undeclared: Vec<_> = bound.difference(&declared).collect();
    let unbound: Vec<_> = declared.difference(&bound).collect();
    assert!(undeclared.is_empty() && unbound.is_empty(), "not declared: {undeclared:?}; not bound: {unbound:?}");
}
