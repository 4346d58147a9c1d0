//! The modules that make up a cluster's script: cluster.js and what it imports, and nothing else of the folder.
//!
//! Following imports, instead of sending all there is, keeps private files where they are. Whatever is wrong (a missing
//! file, too much of it) is said here, before anything is sent.

mod imports;

use crate::context::Context;
use crate::message::Failure;
use agent::drivers::pki;
use agent::drivers::script::{is_built_in, read_file, resolve};
use agent::model::limits::{SCRIPT_MODULES_MAX, SCRIPT_SOURCE_BYTES_MAX};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// The module that a cluster's script begins with.
pub const ENTRY: &str = "cluster.js";
/// The largest modules are named when there is too much.
const NAMED: usize = 3;

/// Path inside the folder to source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules(pub BTreeMap<String, String>);

impl Modules {
    pub fn are_there(context: &Context) -> bool {
        context.folder.join(ENTRY).symlink_metadata().is_ok()
    }

    /// # Errors
    /// There is no cluster.js, an import leads nowhere or out of the folder, or it is too much.
    pub fn collect(context: &Context) -> Result<Modules, Failure> {
        if !Modules::are_there(context) {
            return Err(Failure::no(format!("there is no {ENTRY} in {}", context.folder.display()))
                .hint("`disco init` writes a starting folder; `--dir` names another one"));
        }
        let text = read_file(&context.folder, ENTRY).map_err(|why| Failure::no(format!("cannot send {ENTRY}")).because(why))?;
        let mut modules = BTreeMap::from([(ENTRY.to_owned(), text)]);
        let mut open = VecDeque::from([ENTRY.to_owned()]);
        while let Some(importer) = open.pop_front() {
            for import in imports::imports(&modules[&importer]) {
                if is_built_in(&import.specifier) {
                    continue;
                }
                let refuse = |why: String| {
                    Failure::no(format!("cannot send {ENTRY}: an import of {importer} leads nowhere"))
                        .because(format!("{importer}:{}: import of \"{}\"", import.line, import.specifier))
                        .because(why)
                };
                let name = resolve(&import.specifier, Some(Path::new(&importer))).map_err(refuse)?;
                if modules.contains_key(&name) {
                    continue;
                }
                if Path::new(&name).components().any(|part| part.as_os_str().to_string_lossy().starts_with('.')) {
                    return Err(refuse(format!("{name} is hidden, and hidden files are not sent")));
                }
                let text = read_file(&context.folder, &name).map_err(refuse)?;
                modules.insert(name.clone(), text);
                check(&modules)?;
                open.push_back(name);
            }
        }
        check(&modules)?;
        Ok(Modules(modules))
    }

    /// The same for the same files.
    pub fn digest(&self) -> String {
        let mut bytes = Vec::new();
        for (name, text) in &self.0 {
            for part in [name, text] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        crate::render::hex(&pki::sha256(&bytes))
    }

    /// `cluster.js and 2 more`
    pub fn summary(&self) -> String {
        match self.0.len() {
            1 => ENTRY.to_owned(),
            many => format!("{ENTRY} and {} more", many - 1),
        }
    }

    /// Asks what these would change.
    pub fn request(&self) -> proto::v1::PlanRequest {
        proto::v1::PlanRequest { files: self.files(), rollback: false }
    }

    pub fn files(&self) -> std::collections::HashMap<String, String> {
        self.0.clone().into_iter().collect()
    }
}

/// The state has the same bounds; here the file to blame is known.
fn check(modules: &BTreeMap<String, String>) -> Result<(), Failure> {
    if modules.len() > SCRIPT_MODULES_MAX {
        return Err(Failure::no(format!("{ENTRY} imports too much"))
            .because(format!("it and its imports are more than {SCRIPT_MODULES_MAX} modules")));
    }
    let bytes: usize = modules.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes <= SCRIPT_SOURCE_BYTES_MAX {
        return Ok(());
    }
    let mut sizes: Vec<(usize, &str)> = modules.iter().map(|(name, text)| (text.len(), name.as_str())).collect();
    sizes.sort_by_key(|(size, _)| usize::MAX - size);
    let largest: Vec<String> = sizes.iter().take(NAMED).map(|(size, name)| format!("{name} {size}")).collect();
    Err(Failure::no(format!("{ENTRY} and its imports take {bytes} bytes, the most is {SCRIPT_SOURCE_BYTES_MAX}"))
        .because(format!("the largest are, in bytes: {}", largest.join(", ")))
        .hint("values that scripts read belong in keys: `disco kv set`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use std::fs;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let context = Context::new(&Global { dir: Some(dir.path().to_owned()), ..Global::default() }).unwrap();
        (dir, context)
    }

    #[test]
    fn only_what_cluster_js_reaches_is_taken() {
        let (_dir, context) = folder(&[
            ("cluster.js", "import { web } from './lib/web.js';\nimport { Cluster } from 'disco';"),
            ("lib/web.js", "import '../names.js'; import '../cluster.js';"),
            ("names.js", "export const n = 1;"),
            ("client.js", "import './secret.js'"),
            ("secret.js", "export const password = 'x'"),
        ]);
        let modules = Modules::collect(&context).unwrap();
        assert_eq!(modules.0.keys().collect::<Vec<_>>(), ["cluster.js", "lib/web.js", "names.js"]);
        assert_eq!((modules.summary().as_str(), modules.digest().len()), ("cluster.js and 2 more", 64));
    }

    #[test]
    fn an_import_that_leads_nowhere_is_named_with_its_importer_and_line() {
        let table = [
            ("\nimport './lib/a.js'", "cluster.js:2: import of \"./lib/a.js\": cannot read lib/a.js: there is no such file"),
            (
                "import '../a.js'",
                "cluster.js:1: import of \"../a.js\": cluster.js cannot import \"../a.js\": it is outside the script's folder",
            ),
            ("import 'lodash'", "cluster.js:1: import of \"lodash\": cluster.js cannot import \"lodash\": a module is"),
            ("import './.disco/x.js'", "cluster.js:1: import of \"./.disco/x.js\": .disco/x.js is hidden, and hidden files are not sent"),
            ("import './lib'", "cluster.js:1: import of \"./lib\": cannot read lib: it is not a file"),
        ];
        for (source, why) in table {
            let (_dir, context) = folder(&[("cluster.js", source), (".disco/x.js", ""), ("lib/other.js", "")]);
            let failure = Modules::collect(&context).expect_err(source);
            let expected = format!("cannot send cluster.js: an import of cluster.js leads nowhere: {why}");
            assert!(failure.in_one_line().starts_with(&expected), "{}", failure.in_one_line());
        }
        let (_dir, context) = folder(&[]);
        assert!(Modules::collect(&context).expect_err("there is none").what().starts_with("there is no cluster.js in /"));
    }

    #[test]
    fn too_much_is_refused_with_the_largest_named() {
        let large = "x".repeat(SCRIPT_SOURCE_BYTES_MAX);
        let (_dir, context) = folder(&[("cluster.js", "import './large.js'; import './small.js'"), ("large.js", &large), ("small.js", "")]);
        let failure = Modules::collect(&context).expect_err("it is too much");
        let line = failure.in_one_line();
        assert!(line.contains("the most is 262144: the largest are, in bytes: large.js 262144, cluster.js 40"), "{line}");

        let many: String = (0..SCRIPT_MODULES_MAX).map(|n| format!("import './m{n}.js';\n")).collect();
        let names: Vec<String> = (0..SCRIPT_MODULES_MAX).map(|n| format!("m{n}.js")).collect();
        let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        files.push(("cluster.js", &many));
        let (_dir, context) = folder(&files);
        let failure = Modules::collect(&context).expect_err("it is too many");
        assert_eq!(failure.in_one_line(), "cluster.js imports too much: it and its imports are more than 64 modules");
    }

    #[test]
    fn a_digest_changes_with_every_name_and_text() {
        let of = |files: &[(&str, &str)]| Modules(files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect()).digest();
        let digests = [of(&[("a", "b")]), of(&[("ab", "")]), of(&[("a", "c")]), of(&[("a", ""), ("b", "")])];
        assert!((1..digests.len()).all(|i| !digests[..i].contains(&digests[i])));
        assert_eq!(digests[0], of(&[("a", "b")]));
    }
}
