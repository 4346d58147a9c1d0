//! `disco init`: a folder to start from. The example that the project tests is the one it writes.

use crate::args::Global;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::Out;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

const FILES: [(&str, &str); 5] = [
    ("client.js", include_str!("../../../scripts/examples/local/client.js")),
    ("cluster.js", include_str!("../../../scripts/examples/local/cluster.js")),
    ("server.js", include_str!("../../../scripts/examples/local/server.js")),
    ("disco.d.ts", include_str!("../../../docs/disco.d.ts")),
    (".gitignore", ".disco/\n"),
];

pub fn run(global: &Global, out: Out) -> Result<Exit, Failure> {
    if let Some(folder) = &global.dir {
        fs::create_dir_all(folder).map_err(|e| Failure::broke(format!("cannot make the folder {}", folder.display())).caused_by(&e))?;
    }
    let context = Context::new(global)?;
    let paths: Vec<PathBuf> = FILES.iter().map(|(name, _)| context.folder.join(name)).collect();
    // All or nothing: looked at first, so that a folder in use stays as it is.
    if let Some(there) = paths.iter().find(|p| p.symlink_metadata().is_ok()) {
        return Err(Failure::no(format!("{} is there already", there.display()))
            .hint("`disco init` overwrites nothing; choose another folder with --dir"));
    }
    for ((_, text), path) in FILES.iter().zip(&paths) {
        let write = || -> io::Result<()> { OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes()) };
        write().map_err(|e| Failure::broke(format!("cannot write {}", path.display())).caused_by(&e))?;
    }
    out.say(format!("wrote {} in {}", FILES.map(|(name, _)| name).join(", "), context.folder.display()));
    out.say("next: `disco bootstrap` makes the cluster");
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_writes_once_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { dir: Some(dir.path().join("new")), ..Global::default() };
        let out = Out { json: false, paint: crate::render::Paint::off() };
        run(&global, out).unwrap();
        let client = dir.path().join("new/client.js");
        fs::write(&client, "mine").unwrap();
        fs::remove_file(dir.path().join("new/cluster.js")).unwrap();
        let refused = run(&global, out).expect_err("client.js is there");
        assert_eq!(refused.exit(), Exit::No);
        assert_eq!(fs::read_to_string(client).unwrap(), "mine");
        assert!(!dir.path().join("new/cluster.js").exists());
    }
}
