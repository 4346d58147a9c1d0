//! What the person did wrong, and how it is said.

use agent::drivers::script::{Modules, ScriptHost};
use serde_json::json;

use crate::desk::{Desk, bootstrap, memory, options, returns, seen};

#[test]
fn mistakes_are_named_with_file_and_line() {
    let table = [
        ("const a = 1;\nlet b = = 2;\n", "client.js failed: SyntaxError: client.js:2:9: unexpected token '='"),
        ("export function bootstrap() {\n", "client.js failed: SyntaxError: client.js:1"),
        (
            "import { x } from '../secret.js';",
            "client.js failed: TypeError: client.js cannot import \"../secret.js\": it is outside the script's folder",
        ),
        ("import fs from 'fs';", "client.js failed: TypeError: client.js cannot import \"fs\": a module is \"disco\""),
        ("import { x } from './none.js';", "client.js failed: TypeError: there is no module none.js"),
        ("import { Clutser } from 'disco';", "client.js failed: SyntaxError"),
        ("nonsense();", "client.js failed: ReferenceError: nonsense is not defined\n    at client.js:1:1"),
        (
            "// nonsenses\nexport function bootstrap() {\n  const a = 'a.nonsense';\n  return a + nonsense();\n}",
            "client.js: bootstrap() failed: ReferenceError: nonsense is not defined\n    at bootstrap (client.js:4:14)",
        ),
        ("const a = 1;\nthrow new Error('top');", "client.js failed: Error: top\n    at client.js:2:7"),
        ("export function bootstrap() {\n  `abc", "client.js failed: SyntaxError: client.js:2: unterminated template literal"),
        (
            "export function bootstrap() {\n  JSON.parse('{');\n}",
            "SyntaxError: EOF while parsing an object at line 1 column 1\n    at bootstrap (client.js:2:",
        ),
        ("export const a = 1;", "client.js: bootstrap() failed: there is no exported function bootstrap()"),
        (
            "function inner() {\n  throw new RangeError('too far');\n}\nexport function bootstrap() {\n  inner();\n}",
            "client.js: bootstrap() failed: RangeError: too far\n    at inner (client.js:2:9)\n    at bootstrap (client.js:5:8)",
        ),
        (
            "export async function bootstrap() {\n  await delay(1);\n  null.x;\n}",
            "client.js: bootstrap() failed: TypeError: cannot convert 'null' or 'undefined' to object\n    at bootstrap (client.js:3:",
        ),
        ("export async function bootstrap() {\n  await ask('?');\n  throw 'a word';\n}", "client.js: bootstrap() failed: a word"),
        (
            "export async function bootstrap() {\n  new Cluster({ nmae: 'x' });\n}",
            "client.js: bootstrap() failed: TypeError: `new Cluster` has no option `nmae` (it knows name, provider, managers,",
        ),
        (
            "export async function bootstrap() {\n  new Cluster({ name: 'x', provider: {} });\n}",
            "`provider` of the cluster must be a provider, like `await LocalProvider.init({ name: \"…\" })`, not [object Object]\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  const c = new Cluster({ name: 'x', provider: new Provider.Local({ name: 'l' }) });\n  await c.destroy();\n}",
            "client.js: bootstrap() failed: Error: the cluster is locked\n    at bootstrap (client.js:3:18)",
        ),
        (
            "export async function bootstrap() {\n  const c = new Cluster({ name: 'x', provider: new Provider.Local({ name: 'l' }), managers: 2 });\n}",
            "TypeError: `managers` must be one of 1, 3, 5, 7, not 2\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  await AwsProvider.init({ name: 'a', region: 'Frankfurt' });\n}",
            "TypeError: the aws provider's `region` must be one like \"eu-central-1\", not \"Frankfurt\"\n    at ",
        ),
        ("export function bootstrap() {\n  new Provider.Hosts({});\n}", "TypeError: the hosts provider's `name` must be"),
        (
            "export function bootstrap() {\n  new Provider.Hosts({ name: 'h', hosts: [] });\n}",
            "TypeError: the hosts provider's `hosts` must be a list like [{ address: \"10.0.0.5\" }], not ",
        ),
        ("export function bootstrap() {\n  new Provider.Hosts({ name: 'h', hosts: [{ address: 'a', key: 'k' }] });\n}", "a host"),
        (
            "export function bootstrap() {\n  new Provider.Hosts({ name: 'h', hosts: [{ address: 'a' }, { address: 'a' }] });\n}",
            "Error: host `a` is listed twice\n    at ",
        ),
        (
            "export function bootstrap() {\n  new FileStorage.S3({ bucket: 'b' });\n}",
            "Error: S3 storage is not available yet in this version\n    at bootstrap (client.js:2:",
        ),
        (
            "export function bootstrap() {\n  every('1s', () => {});\n}",
            "Error: every() works only in cluster.js\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  Promise.reject(new Error('lost'));\n  await delay(10);\n}",
            "client.js: bootstrap() failed: a promise was rejected and nothing handles it (is an `await` missing?): Error: lost\n    at bootstrap (client.js:2:",
        ),
        (
            "export async function bootstrap() {\n  setTimeout(() => { throw new Error('late'); }, 1);\n  await delay(50);\n}",
            "client.js: bootstrap() failed: Error: late\n    at client.js:2:",
        ),
        (
            "export async function bootstrap() { await new Promise(() => {}); }",
            "client.js: bootstrap() failed: it waits for a promise that nothing can resolve any more: no timer and no request is pending",
        ),
        ("await new Promise(() => {});", "client.js failed: it waits for a promise that nothing can resolve any more"),
        (
            "function f() { f(); }\nexport function bootstrap() { f(); }",
            "client.js: bootstrap() failed: RuntimeLimitError: reached the maximum number of recursive calls on this execution\n    at f (client.js:1:",
        ),
        (
            "export function bootstrap() { let a = []; for (let i = 0; i < 100; i++) a = [a]; return a; }",
            "client.js: bootstrap() failed: a value is nested deeper than 64 levels",
        ),
        ("export function bootstrap() { return 'x'.repeat(1.5 * 1024 * 1024); }", "client.js: bootstrap() failed: the result is too large"),
        (
            "export async function bootstrap() {\n  await ask('x'.repeat(1.5 * 1024 * 1024));\n}",
            "client.js: bootstrap() failed: Error: ask(): 1572",
        ),
    ];
    for (source, expected) in table {
        let error = seen(source).0.expect_err(source);
        assert!(error.contains(expected), "{source}\n--- gave\n{error}\n--- not\n{expected}");
    }
    assert_eq!(returns("return 1"), json!(1));
}

#[test]
fn init_must_return_a_cluster() {
    let desk = Desk::default();
    let run = async {
        let mut host =
            ScriptHost::start(options(memory(&[("client.js", "export async function init() { return { name: 'x' }; }")]))).await?;
        host.load("client.js", &desk).await?;
        host.call("init", Vec::new(), &desk).await
    };
    let error = smol::block_on(run).expect_err("no cluster").to_string();
    assert!(error.starts_with("client.js: init() failed: init() must return a Cluster, not {"), "{error}");
}

#[test]
fn files_of_a_folder_are_bounded_and_stay_inside_it() {
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("secret.js"), "export const secret = 1;").expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::os::unix::fs::symlink(outside.path().join("secret.js"), folder.path().join("link.js")).expect("linked");
    std::os::unix::fs::symlink(outside.path(), folder.path().join("dir")).expect("linked");
    write("inside.js", "export const x = 'inside';");
    std::os::unix::fs::symlink("inside.js", folder.path().join("alias.js")).expect("linked");
    std::fs::create_dir(folder.path().join("sub.js")).expect("made");
    write("large.js", &format!("export const x = 1; //{}", "x".repeat(300 * 1024)));
    write("binary.js", "");
    std::fs::write(folder.path().join("binary.js"), [0xff, 0xfe]).expect("written");
    // client.js and the file itself are two of them.
    for modules in [64, 65] {
        let imports: String = (2..modules).map(|n| format!("import './m{n}.js';\n")).collect();
        (2..modules).for_each(|n| write(&format!("m{n}.js"), ""));
        let body = "import { Cluster } from 'disco';\nimport * as provider from '@disco/provider';\n";
        write(&format!("many{modules}.js"), &format!("{body}{imports}"));
    }
    let table = [
        ("import { x } from './alias.js'; export const bootstrap = () => x;", Ok("inside")),
        ("import { secret } from './link.js';", Err("cannot read link.js: it is a link that leaves the script's folder")),
        ("import { secret } from './dir/secret.js';", Err("cannot read dir/secret.js: it is a link that leaves the script's folder")),
        ("import './none.js';", Err("cannot read none.js: there is no such file")),
        ("import './sub.js';", Err("cannot read sub.js: it is not a file")),
        ("import './binary.js';", Err("cannot read binary.js: it is not UTF-8 text")),
        ("import './many64.js'; export const bootstrap = () => 'as many';", Ok("as many")),
        ("import './many65.js';", Err("a script has at most 64 modules")),
        ("import './large.js';", Err("cannot load large.js: a script's modules are at most 256 KiB together")),
        ("export async function bootstrap() { return (await import('./inside.js')).x }", Ok("inside")),
        ("export async function bootstrap() { return (await run('ls', ['alias.js'])).stdout }", Ok("alias.js\n")),
    ];
    for (source, expected) in table {
        write("client.js", source);
        let result = smol::block_on(bootstrap(options(Modules::Folder(folder.path().to_owned())), &Desk::default()));
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, json!(expected)),
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e}"),
            (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
        }
    }
}
