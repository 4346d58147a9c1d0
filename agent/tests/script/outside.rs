//! How scripts reach the world: `fetch` against real sockets, `run` with real programs, each within its bounds.

use std::{
    future::Future,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    pin::Pin,
    thread,
};

use agent::drivers::script::{HostOps, Limits, Modules, ScriptError, ScriptHost, ScriptOptions};
use serde_json::{Value, json};

struct Nobody;

impl HostOps for Nobody {
    fn call<'a>(&'a self, op: &'a str, _: Value) -> Pin<Box<dyn Future<Output = Result<Value, String>> + 'a>> {
        Box::pin(async move { Err(format!("{op} is not asked for here")) })
    }

    fn console(&self, _: &str, _: &str) {}
}

fn bootstrap_within(limits: Limits, statements: &str) -> Result<Value, String> {
    let source = format!("export async function bootstrap() {{\n  {statements}\n}}");
    let modules = Modules::Memory([("client.js".to_owned(), source)].into());
    let options = ScriptOptions { exe: PathBuf::from(env!("CARGO_BIN_EXE_discod")), limits, ..ScriptOptions::new(modules) };
    let run = async {
        let mut host = ScriptHost::start(options).await?;
        host.load("client.js", &Nobody).await?;
        host.call("bootstrap", Vec::new(), &Nobody).await
    };
    smol::block_on(run).map_err(|e: ScriptError| e.to_string())
}

fn bootstrap(statements: &str) -> Result<Value, String> {
    bootstrap_within(Limits::default(), statements)
}

#[track_caller]
fn check(table: &[(&str, Result<Value, &str>)]) {
    for (statements, expected) in table {
        match (bootstrap(statements), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, *expected, "{statements}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{statements}\n--- gave\n{error}\n--- not\n{part}"),
            (got, expected) => panic!("{statements}: {got:?}, not {expected:?}"),
        }
    }
}

/// Answers each connection by its path until it is told to stop, by `/stop`.
fn serve(listener: &TcpListener) {
    let mut kept = Vec::new();
    for connection in listener.incoming() {
        let mut connection = connection.expect("accepted");
        let request = read_request(&mut connection);
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, body) = match path {
            "/stop" => return,
            "/hang" => {
                kept.push(connection);
                continue;
            }
            "/json" => ("200 OK", r#"{"answer":42}"#.to_owned()),
            "/echo" => (
                "201 Created",
                format!("{method} {} {}", request.contains("x-test: yes"), request.rsplit("\r\n\r\n").next().unwrap_or_default()),
            ),
            "/large" => ("200 OK", "x".repeat(1024 * 1024 + 1)),
            _ => ("404 Not Found", "nothing here".to_owned()),
        };
        // The client may hang up on a large answer.
        let _ = write!(connection, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    }
}

fn read_request(connection: &mut TcpStream) -> String {
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let n = connection.read(&mut buffer).unwrap_or(0);
        request.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let body_at = text.find("\r\n\r\n").map(|at| at + 4);
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok()).unwrap_or(0);
        if n == 0 || body_at.is_some_and(|at| request.len() >= at + length) {
            return String::from_utf8_lossy(&request).into_owned();
        }
    }
}

#[test]
fn fetch_reads_answers_within_its_bounds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("bound and closed again");
    let server = thread::spawn(move || serve(&listener));
    let at = |path: &str| format!("`http://{address}{path}`");
    let statements = [
        format!("const r = await fetch({}); return [r.status, r.ok, (await r.json()).answer];", at("/json")),
        format!(
            "const r = await fetch({}, {{ method: 'post', headers: {{ 'x-test': 'yes' }}, body: 'hello' }}); return [r.status, await r.text()];",
            at("/echo")
        ),
        format!("const r = await fetch({}); return [r.status, r.ok, await r.text()];", at("/none")),
        format!("await fetch({});", at("/large")),
        format!("await fetch({}, {{ timeout: '100ms' }});", at("/hang")),
        format!("await fetch('http://{dead}/');"),
        "await fetch('ftp://127.0.0.1/');".to_owned(),
        "await fetch('http://127.0.0.1/', { tiemout: 1 });".to_owned(),
        format!("return (await Promise.all(Array.from({{ length: 20 }}, () => fetch({})))).map(r => r.status).join('');", at("/json")),
    ];
    let refused = format!("Error: cannot fetch http://{dead}/: Connection refused (os error 111)\n    at bootstrap (client.js:2:");
    check(&[
        (&statements[0], Ok(json!([200, true, 42]))),
        (&statements[1], Ok(json!([201, "POST true hello"]))),
        (&statements[2], Ok(json!([404, false, "nothing here"]))),
        (&statements[3], Err("/large: the answer is larger than 1024 KiB")),
        (&statements[4], Err("/hang: timeout: global")),
        (&statements[5], Err(&refused)),
        (&statements[6], Err("cannot fetch ftp://127.0.0.1/: ")),
        (
            &statements[7],
            Err("TypeError: fetch() has no option `tiemout` (it knows method, headers, body, timeout)\n    at bootstrap (client.js:2:"),
        ),
        (&statements[8], Ok(json!("200".repeat(20)))),
    ]);
    TcpStream::connect(address).and_then(|mut c| c.write_all(b"GET /stop HTTP/1.1\r\n\r\n")).expect("told to stop");
    server.join().expect("stopped");
}

#[test]
fn run_gives_output_and_status_within_its_bounds() {
    check(&[
        (
            "return await run('sh', ['-c', 'cat; echo oh >&2; exit 3'], { stdin: 'hello' });",
            Ok(json!({ "status": 3, "signal": null, "stdout": "hello", "stderr": "oh\n" })),
        ),
        ("return (await run('sh', ['-c', 'kill -9 $$'])).signal;", Ok(json!(9))),
        // No shell: what looks like one is an argument.
        ("return (await run('echo', ['$HOME; ls', '*'])).stdout;", Ok(json!("$HOME; ls *\n"))),
        ("return (await run('pwd', [], { cwd: '/' })).stdout;", Ok(json!("/\n"))),
        // More than a pipe holds, both ways at once.
        ("return (await run('cat', [], { stdin: 'x'.repeat(1024).repeat(500) })).stdout.length;", Ok(json!(512_000))),
        // A program that does not read its input, and one that closes its output first.
        ("return (await run('true', [], { stdin: 'x'.repeat(1024).repeat(500) })).status;", Ok(json!(0))),
        ("return (await run('sh', ['-c', 'exec >&- 2>&-; exit 4'])).status;", Ok(json!(4))),
        (
            "await run('sleep', ['600'], { timeout: '100ms' });",
            Err("Error: `sleep` took longer than 100 ms and was stopped\n    at bootstrap (client.js:2:"),
        ),
        ("await run('yes');", Err("Error: `yes` wrote more than 1024 KiB and was stopped")),
        ("await run('/none/such');", Err("Error: cannot run `/none/such`: No such file or directory (os error 2)\n    at bootstrap")),
        ("await run('true', 'all');", Err("TypeError: run()'s arguments must be a list of texts, not \"all\"")),
        ("await run('true', [], { shell: true });", Err("TypeError: run() has no option `shell` (it knows stdin, timeout, cwd)")),
        // The program has the address space that the script has not, and ends first when memory is out.
        ("return (await run('sh', ['-c', 'ulimit -v; cat /proc/self/oom_score_adj'])).stdout;", Ok(json!("unlimited\n1000\n"))),
        // Our end of the socket is not for programs.
        ("return (await run('ls', ['/proc/self/fd'])).stdout;", Ok(json!("0\n1\n2\n3\n"))),
        ("return (await run('ls', ['-l', '/proc/self/fd'])).stdout.includes('socket');", Ok(json!(false))),
    ]);
}

#[test]
fn no_more_programs_run_at_once_than_allowed() {
    let limits = Limits { commands_max: 2, ..Limits::default() };
    let folder = tempfile::tempdir().expect("a folder");
    // Each leaves a file there while it runs, and counts them.
    let statements = format!(
        r#"const count = ': > "$0/$$"; ls "$0" | wc -l; rm "$0/$$"';
           const all = await Promise.all(Array.from({{ length: 12 }}, () => run("sh", ["-c", count, {:?}])));
           return Math.max(...all.map((r) => Number(r.stdout)));"#,
        folder.path()
    );
    let seen = bootstrap_within(limits, &statements).expect("they run").as_u64().expect("a number");
    assert!((1..=2).contains(&seen), "{seen} at once");
}
