//! `disco init`: a folder to start from. The example that the project tests is the one it writes.

use crate::args::Global;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::{Out, now_ms};
use agent::drivers::pki::{Authority, ImageFiles, JoinToken, ca_digest, random_bytes};
use agent::model::ids::ClusterId;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

type Files = &'static [(&'static str, &'static str)];

const LOCAL: Files = &[
    ("client.js", include_str!("../../../scripts/examples/local/client.js")),
    ("cluster.js", include_str!("../../../scripts/examples/local/cluster.js")),
    ("server.js", include_str!("../../../scripts/examples/local/server.js")),
];
const AWS: Files = &[
    ("client.js", include_str!("../../../scripts/examples/aws/client.js")),
    ("cluster.js", include_str!("../../../scripts/examples/aws/cluster.js")),
];
const HOSTS: Files = &[
    ("client.js", include_str!("../../../scripts/examples/hosts/client.js")),
    ("cluster.js", include_str!("../../../scripts/examples/hosts/cluster.js")),
    ("hosts.js", include_str!("../../../scripts/examples/hosts/hosts.js")),
];
/// Whatever the provider.
const COMMON: [(&str, &str); 2] = [("disco.d.ts", include_str!("../../../docs/disco.d.ts")), (".gitignore", ".disco/\n")];

/// Beside the CA and the token in `image/`.
const IMAGE_TOML: &str = "\
# Bake this folder into the machine image as /etc/disco, and start `discod --config /etc/disco/disco.toml`.
data_dir = \"/var/lib/disco\"
image = \".\"
originate = true
# Where the machines find each other: addresses, names, or https://... of a list.
seeds = []
";

/// `disco init --image`: what machines need that are to form one cluster by starting.
pub fn image(global: &Global, out: Out) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    let folder = context.folder.join("image");
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|e| Failure::no(format!("cannot make the folder {}", folder.display())).caused_by(&e))?;
    let authority = Authority::create(ClusterId(u64::from_be_bytes(random_bytes())), now_ms());
    let secret = crate::render::hex(&random_bytes::<20>());
    let token = JoinToken { ca_digest: ca_digest(authority.certificate()), secret: format!("i{secret}") };
    let broken = |what: &str| format!("cannot write {what} in {}", folder.display());
    ImageFiles::new(&folder)
        .write(&authority.key(), authority.certificate(), &token.to_string())
        .map_err(|e| Failure::broke(broken("the CA and the token")).caused_by(&e))?;
    let toml = folder.join("disco.toml");
    fs::write(toml, IMAGE_TOML).map_err(|e| Failure::broke(broken("disco.toml")).caused_by(&e))?;
    out.say(format!("wrote ca.crt, ca.key, token, disco.toml in {}: whoever reads ca.key can sign for the cluster", folder.display()));
    out.say("next: set `seeds` in disco.toml, and bake the folder into the image");
    Ok(Exit::Done)
}

pub fn run(global: &Global, out: Out, provider: &str) -> Result<Exit, Failure> {
    let (own, next) = match provider {
        "aws" => (AWS, "set the region in client.js; then `disco bootstrap` makes the cluster, which costs money"),
        "hosts" => (HOSTS, "list your machines in hosts.js; then `disco bootstrap` makes the cluster"),
        _ => (LOCAL, "`disco bootstrap` makes the cluster"),
    };
    let files: Vec<(&str, &str)> = own.iter().copied().chain(COMMON).collect();
    if let Some(folder) = &global.dir {
        fs::create_dir_all(folder).map_err(|e| Failure::broke(format!("cannot make the folder {}", folder.display())).caused_by(&e))?;
    }
    let context = Context::new(global)?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| context.folder.join(name)).collect();
    // All or nothing: looked at first, so that a folder in use stays as it is.
    if let Some(there) = paths.iter().find(|p| p.symlink_metadata().is_ok()) {
        return Err(Failure::no(format!("{} is there already", there.display()))
            .hint("`disco init` overwrites nothing; choose another folder with --dir"));
    }
    for ((_, text), path) in files.iter().zip(&paths) {
        let write = || -> io::Result<()> { OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes()) };
        write().map_err(|e| Failure::broke(format!("cannot write {}", path.display())).caused_by(&e))?;
    }
    out.say(format!("wrote {} in {}", files.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "), context.folder.display()));
    out.say(format!("next: {next}"));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_a_ca_and_a_token_of_it_and_is_the_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let global = Global { dir: Some(dir.path().to_owned()), ..Global::default() };
        let out = Out { json: false, paint: crate::render::Paint::off() };
        image(&global, out).unwrap();
        let (key, certificate, token) = ImageFiles::new(&dir.path().join("image")).read().unwrap();
        let authority = Authority::open(&key, &certificate).unwrap();
        assert_eq!(token.parse::<JoinToken>().unwrap().ca_digest, ca_digest(authority.certificate()));
        for secret in ["", "ca.key", "token"] {
            let mode = fs::metadata(dir.path().join("image").join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{secret}");
        }
        assert!(image(&global, out).is_err(), "it overwrites nothing");
    }

    #[test]
    fn init_writes_once_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { dir: Some(dir.path().join("new")), ..Global::default() };
        let out = Out { json: false, paint: crate::render::Paint::off() };
        run(&global, out, "local").unwrap();
        let client = dir.path().join("new/client.js");
        fs::write(&client, "mine").unwrap();
        fs::remove_file(dir.path().join("new/cluster.js")).unwrap();
        let refused = run(&global, out, "hosts").expect_err("client.js is there");
        assert_eq!(refused.exit(), Exit::No);
        assert_eq!(fs::read_to_string(client).unwrap(), "mine");
        assert!(!dir.path().join("new/cluster.js").exists());
    }
}
