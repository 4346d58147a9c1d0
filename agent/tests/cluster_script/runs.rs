//! What works.

use crate::rig::{eval, leader, load, plan, script, until_key, until_runs};

#[test]
fn what_configure_declares_runs_and_what_it_registers_is_called() {
    let node = leader();
    let source = script(
        r#"
        export function configure(cluster) {
          cluster.service("sleeper", { command: ["sleep", "1000"], replicas: 2 });
          cluster.key("greeting").set("hello");
          cluster.key("ask").on("change", async (value) => { await cluster.key("answer").set(`${value}!`); });
          let ticks = 0;
          const timer = every("200ms", async () => {
            await cluster.key("ticks").set(`${++ticks}`);
            if (ticks === 3) timer.stop();
          });
        }
        export async function leader(cluster, node) { await cluster.key("leader").set(`${node}`); }
        export const twice = (n) => 2 * n;
        "#,
    );
    let changes: Vec<_> = plan(&node, &source).changes.into_iter().map(|c| format!("{} {}: {}", c.sign, c.subject, c.detail)).collect();
    assert_eq!(changes, ["+ service sleeper: 2 of `sleep 1000`", "+ key greeting: hello"]);
    load(&node, &source);
    until_runs(&node, "sleeper", 2);
    until_key(&node, "greeting", "hello");
    until_key(&node, "leader", "n1");
    node.set("ask", "who").expect("it leads");
    until_key(&node, "answer", "who!");
    until_key(&node, "ticks", "3");
    assert_eq!(plan(&node, &source).changes.len(), 0, "nothing to do");

    assert_eq!(eval(&node, "1 + 1").value, "2");
    assert_eq!(
        eval(&node, "(await cluster.services()).map((s) => `${s.name} ${s.running}/${s.desired}`)").value,
        "[\n  \"sleeper 2/2\"\n]"
    );
    assert_eq!(eval(&node, "const x = twice(4); return `${x}`").value, "\"8\"");
    eval(&node, "cluster.service('sleeper').scale(1)");
    until_runs(&node, "sleeper", 1);
}
