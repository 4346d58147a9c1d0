//! What a person sees of cluster.js and of the services it declares: words, exit codes, and what stays as it was.

mod common;

use common::{Project, kill, text, wait_until};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Output, Stdio},
    sync::mpsc::channel,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);

/// One node, and a cluster.js whose configure() is this.
fn alone(configure: &str) -> Project {
    let project = Project::new();
    project.write(
        "client.js",
        "export async function init() { return new Cluster({ name: 'one', provider: await LocalProvider.init({ name: 'l' }) }) }
        export async function bootstrap(cluster) { await cluster.start_instance(); await cluster.scale(1) }",
    );
    declare(&project, configure);
    project
}

fn declare(project: &Project, configure: &str) {
    let init = "export async function init() { return new Cluster({ name: 'one', provider: await LocalProvider.init({ name: 'l' }) }) }";
    project.write("cluster.js", &format!("{init}\nexport function configure(cluster) {{\n{configure}\n}}\n"));
}

fn tick(replicas: u32) -> String {
    format!("cluster.service('tick', {{ command: ['sh', '-c', 'echo $DISCO_TASK begins; exec sleep 1000000'], replicas: {replicas} }})")
}

/// Exit code, standard output, standard error.
fn run(project: &Project, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = project.disco(args);
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

fn json(project: &Project, args: &[&str]) -> Value {
    serde_json::from_str(&project.ok(args)).expect("it prints JSON")
}

/// desired, running, scaled by hand
fn tick_is(project: &Project) -> (u64, u64, bool) {
    let service = json(project, &["service", "inspect", "tick", "--json"]);
    let number = |name: &str| service[name].as_u64().expect("a number");
    (number("desired"), number("running"), service["scaled_by_hand"] == true)
}

#[test]
fn a_plan_is_shown_before_anything_changes_and_every_roll_is_watched_to_its_end() {
    let project = alone(&tick(2));
    let (code, _, words) = run(&project, &["bootstrap", "--yes"]);
    assert!(code == 0 && words.contains("loaded cluster.js") && words.contains("tick 2/2 running"), "{words}");
    assert_eq!(run(&project, &["plan"]), (0, String::new(), "nothing to change\n".into()));

    declare(&project, &format!("{}; cluster.key('motd').set('hi')", tick(3)));
    let difference = "~ service tick  replicas 2 -> 3\n+ key motd      hi\n";
    assert_eq!(run(&project, &["plan"]), (2, difference.into(), "1 to add, 1 to change, 0 to remove\n".into()));
    let (code, document, _) = run(&project, &["plan", "--json"]);
    let document: Value = serde_json::from_str(&document).expect("it prints JSON");
    assert_eq!((code, &document[0]["sign"], &document[0]["subject"]), (2, &"~".into(), &"service tick".into()));

    let (code, _, words) = run(&project, &["apply"]);
    assert!(code == 1 && words.contains(difference) && words.ends_with("error: nothing was applied\n"), "{words}");
    assert_eq!(tick_is(&project), (2, 2, false));
    let (code, _, words) = run(&project, &["apply", "--yes"]);
    assert!(code == 0 && words.contains("tick 3/3 running\n"), "{words}");
    assert_eq!((tick_is(&project), project.ok(&["kv", "get", "motd"])), ((3, 3, false), "hi\n".into()));

    let (code, _, words) = run(&project, &["apply", "--rollback"]);
    let back = "~ service tick  replicas 3 -> 2\n";
    assert!(code == 1 && words.contains(back) && words.ends_with("error: nothing was changed\n"), "{words}");
    project.ok(&["apply", "--rollback", "--yes"]);
    assert_eq!(tick_is(&project), (2, 2, false));
    let (code, _, words) = run(&project, &["apply", "--rollback", "--yes"]);
    assert!(code == 1 && words.contains("there are no earlier modules to go back to"), "{words}");

    let (code, _, words) = run(&project, &["service", "restart", "tick"]);
    assert!(code == 0 && words.contains("of the version before") && words.ends_with("service tick is restarted\n"), "{words}");
    project.ok(&["service", "scale", "tick", "0"]);
    assert_eq!(tick_is(&project), (0, 0, true));
    let applied = json(&project, &["apply", "--yes", "--json"]);
    assert!(applied["index"].as_u64() > Some(0) && applied["changes"][0]["detail"] == "replicas 0 (by hand) -> 3", "{applied}");

    let (code, _, words) = run(&project, &["service", "rm", "tikc", "--yes"]);
    assert_eq!((code, words.as_str()), (1, "error: there is no service `tikc`\nhint: did you mean `tick`?\n"));
    assert_eq!(run(&project, &["service", "rm", "tick"]).0, 1, "nobody said yes");
    project.ok(&["service", "rm", "tick", "--yes"]);
    assert_eq!(json(&project, &["service", "ls", "--json"]), Value::Array(vec![]));
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_plan_without_a_cluster_shows_what_would_be_and_does_nothing() {
    let project = Project::new();
    let plan = |statements: &str| {
        project.write(
            "client.js",
            &format!(
                "export async function init() {{ return new Cluster({{ name: 'one', provider: await LocalProvider.init({{ name: 'l' }}) }}) }}
                export async function bootstrap(cluster) {{ {statements} }}"
            ),
        );
        run(&project, &["plan"])
    };
    let (code, out, words) = plan("console.warn('careful'); await cluster.scale(await ask('Five?') ? 5 : 2)");
    assert_eq!((code, out.as_str()), (2, "+ 2 nodes on the local provider, without cost\n"), "{words}");
    assert!(words.contains("warning: careful\n") && words.contains("Five? no (a plan agrees to nothing)\n"), "{words}");
    for (statement, name) in [("run('touch', ['made'])", "run()"), ("fetch('http://127.0.0.1:9/')", "fetch()")] {
        let (code, _, words) = plan(&format!("await {statement}"));
        assert!(code == 1 && words.contains(&format!("{name} is not done while `disco plan` only rehearses")), "{words}");
        assert_eq!(plan(&format!("try {{ await {statement} }} catch {{ await cluster.scale(1) }}")).0, 2, "a script may go on without");
    }
    assert!(!project.path().join("made").exists() && !project.path().join(".disco").exists());
}

#[test]
fn a_script_that_fails_changes_nothing_and_is_told_with_its_line() {
    let project = alone("throw new Error('no luck')");
    let (code, _, words) = run(&project, &["bootstrap", "--yes"]);
    assert!(code == 1 && words.contains("no luck") && words.contains("cluster.js:3"), "{words}");
    assert!(words.contains("hint: the cluster stays; mend cluster.js and run `disco apply`"), "{words}");
    let (code, screen, _) = run(&project, &["status"]);
    assert!(code == 1 && screen.contains("the script failed: ") && screen.contains("script.failed"), "{screen}");

    declare(&project, &tick(1));
    project.ok(&["apply", "--yes"]);
    assert_eq!(run(&project, &["status"]).0, 0);
    let good = json(&project, &["status", "--json"])["script"].clone();
    assert_eq!((&good["version"], &good["error"]), (&good["applied"], &Value::Null));
    for (source, part) in [
        ("throw new Error('again')", "again"),
        ("cluster.service('tick', { comand: ['x'] })", "`comand`"),
        ("return missing()", "missing is not defined"),
        ("}}", "cluster.js:"),
    ] {
        declare(&project, source);
        for command in [&["plan"][..], &["apply", "--yes"]] {
            let (code, _, words) = run(&project, command);
            assert!(code == 1 && words.starts_with("error: the script failed\n") && words.contains(part), "{source}: {words}");
        }
        assert_eq!(json(&project, &["status", "--json"])["script"], good, "{source}");
    }
    project.write("cluster.js", "import './missing.js'");
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let (code, _, words) = run(&project, command);
        assert!(code == 1 && words.contains("cluster.js:1: import of \"./missing.js\"") && words.contains("no such file"), "{words}");
    }
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn a_second_bootstrap_undoes_nothing_and_brings_what_is_new() {
    let project = alone(&tick(1));
    project.ok(&["bootstrap", "--yes"]);
    let version = |project: &Project| json(project, &["status", "--json"])["script"]["version"].as_u64().expect("a number");
    let first = version(&project);
    project.ok(&["service", "scale", "tick", "2"]);
    project.ok(&["bootstrap", "--yes"]);
    assert_eq!((version(&project), tick_is(&project)), (first, (2, 2, true)));

    declare(&project, &tick(3));
    project.ok(&["apply", "--yes"]);
    project.ok(&["apply", "--yes", "--rollback"]);
    project.ok(&["bootstrap", "--yes"]);
    assert_eq!((version(&project), tick_is(&project)), (first, (1, 1, false)), "what was taken back stays so");

    declare(&project, &tick(2));
    project.ok(&["bootstrap", "--yes"]);
    assert_eq!(tick_is(&project), (2, 2, false));
    assert!(version(&project) > first);
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn what_cannot_run_is_not_waited_for_and_says_why() {
    let project = alone(&tick(1));
    project.ok(&["bootstrap", "--yes"]);
    declare(&project, &format!("{}; cluster.service('big', {{ command: ['sleep', '1000000'], memory: '900GiB' }})", tick(1)));
    let (code, _, words) = run(&project, &["apply", "--yes"]);
    assert!(code == 1 && words.contains("error: service `big` does not run as it should\n"), "{words}");
    assert!(words.contains("no node has 900 GiB free") && words.contains("hint: the cluster goes on trying"), "{words}");
    project.ok(&["apply", "--yes", "--no-wait"]);

    declare(&project, "cluster.service('tick', { command: ['sh', '-c', 'exit 3'] })");
    let (code, _, words) = run(&project, &["apply", "--yes"]);
    assert!(code == 1 && words.contains("the update of service `tick` to version 2 stopped\n"), "{words}");
    assert!(words.contains("did not stay up") && words.contains("`disco logs tick` shows what the new one said"), "{words}");
    assert_eq!(tick_is(&project).1, 1, "the old one goes on");
    let (code, _, words) = run(&project, &["apply", "--yes"]);
    assert!(code == 1 && words.contains("nothing to change") && words.contains("version 2 stopped\n"), "no success by repeating: {words}");

    let (code, _, words) = run(&project, &["node", "drain", "n1"]);
    assert!(
        code == 1 && words.contains("error: node `n1` still runs tasks\n") && words.contains("`disco node drain n1 --off` ends that"),
        "{words}"
    );
    project.ok(&["node", "drain", "n1", "--off"]);
    assert!(project.ok(&["node", "ls"]).contains(" ready "));
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn expressions_are_evaluated_one_by_one_or_line_by_line() {
    let project = alone(&tick(1));
    project.ok(&["bootstrap", "--yes"]);
    assert_eq!(project.ok(&["eval", "(await cluster.services()).map(s => s.name).join()"]), "\"tick\"\n");
    assert_eq!(json(&project, &["eval", "1 + 1", "--json"])["value"], "2");
    let (code, out, words) = run(&project, &["eval", "nothing.here"]);
    assert!(code == 1 && out.is_empty() && words.contains("nothing is not defined"), "{words}");

    let mut repl =
        project.command(&["repl"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = repl.stdin.take().expect("it is piped");
    lines
        .write_all(b"cluster.name\n\nthrow new Error('no')\nawait cluster.key('a').set('b')\n(await cluster.key('a').get()) + 1")
        .expect("it reads");
    drop(lines);
    let output = repl.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "\"one\"\nnull\n\"b1\"\n".into()), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).matches("error: the expression failed").count(), 1);
    project.ok(&["destroy", "--yes"]);
}

/// A counting task on each of three nodes; the leader's agent is killed while somebody follows.
#[test]
fn whoever_follows_logs_misses_and_repeats_nothing_when_the_leader_dies() {
    let project = Project::new();
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    project.write(
        "cluster.js",
        &format!(
            "export async function init() {{ return new Cluster({{ name: 'example', provider: await LocalProvider.init({{ name: 'local' }}) }}) }}
            export function configure(cluster) {{ cluster.service('count', {{ command: ['sh', '-c', '{count}'], replicas: 3 }}) }}"
        ),
    );
    project.ok(&["bootstrap", "--yes"]);
    let mut following =
        project.command(&["logs", "count", "-f", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let stdout = BufReader::new(following.stdout.take().expect("it is piped"));
    let (send, lines) = channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));

    let mut counts: std::collections::BTreeMap<String, u64> = Default::default();
    let mut take = |until: &dyn Fn(&std::collections::BTreeMap<String, u64>) -> bool, what: &str| {
        let began = Instant::now();
        while !until(&counts) {
            assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}: {counts:?}\n{}", project.tell());
            let Ok(line) = lines.recv_timeout(SOON) else { panic!("no more lines: {what}: {counts:?}\n{}", project.tell()) };
            let line: Value = serde_json::from_str(&line).expect("it prints JSON");
            let Some(task) = line["task"].as_str() else { continue };
            let number: u64 = line["text"].as_str().and_then(|text| text.parse().ok()).expect("it counts");
            let before = counts.insert(task.to_owned(), number).unwrap_or(0);
            assert_eq!(number, before + 1, "{task} counts on, without gap and repetition");
        }
        counts.clone()
    };
    let first = take(&|counts| counts.len() == 3 && counts.values().all(|n| *n > 5), "three tasks count");
    let leader = project.leader_instance().expect("a leader");
    kill(project.pid(&leader).expect("it runs"));
    let later = take(&|counts| counts.iter().all(|(task, n)| *n > first[task] + 60), "all three count on");
    println!("followed {} lines", later.values().sum::<u64>());
    let _ = following.kill();
    let _ = following.wait();
    wait_until(SOON, "three managers again", || project.ready_managers() == 3, || project.tell());
    project.ok(&["destroy", "--yes"]);
}
