//! Finds the `discod` for a machine's architecture among the files that may be it.
//!
//! The program is looked for in the folder of `--binaries` (or `$DISCO_BINARIES`) alone, if it is given; otherwise as
//! `--discod`, beside `disco`, and in the project folder. In a folder the names are `discod-ARCH`, `ARCH/discod`, `discod`.
//! Names do not decide, the file does: an ELF header says what machine it is for.

use crate::context::read_whole;
use crate::message::Failure;
use crate::render::hex;
use agent::drivers::pki::sha256;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A program that is larger is not ours.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A `discod` for one architecture.
pub struct Program {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// In hex, as sha256sum(1) prints it.
    pub sha256: String,
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `--binaries`: looked at alone, if it is given.
    pub folder: Option<PathBuf>,
    /// `--discod`, or the one beside `disco`.
    pub discod: Option<PathBuf>,
    pub beside: Option<PathBuf>,
    pub project: Option<PathBuf>,
}

impl Places {
    fn candidates(&self, arch: &str) -> Vec<PathBuf> {
        let names = |folder: &PathBuf| [format!("discod-{arch}"), format!("{arch}/discod"), "discod".into()].map(|name| folder.join(name));
        if let Some(folder) = &self.folder {
            return names(folder).to_vec();
        }
        let folders = self.beside.iter().chain(&self.project).flat_map(names);
        self.discod.iter().cloned().chain(folders).collect()
    }

    /// The program for `arch`, as `uname -m` says it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn find(&self, arch: &str) -> Result<Program, Failure> {
        let arch = canonical(arch);
        let candidates = self.candidates(arch);
        let mut others = Vec::new();
        for path in &candidates {
            match machine_of(path) {
                Some(found) if found == arch => return read(path),
                Some(found) => others.push(format!("{} is for {found}", path.display())),
                None => {}
            }
        }
        let failure = Failure::broke(format!("there is no discod for {arch} machines"));
        let failure = match others.is_empty() {
            true => candidates.iter().fold(failure, |f, path| f.because(format!("no {}", path.display()))),
            false => others.into_iter().fold(failure, Failure::because),
        };
        Err(failure.hint(format!("put one as discod-{arch} beside disco or in the project folder, or name its folder with --binaries DIR")))
    }
}

/// The kernel has several words for one thing.
fn canonical(arch: &str) -> &str {
    match arch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// For which machine an ELF file is (elf(5), `e_machine`); `None` if it is none.
fn machine_of(path: &Path) -> Option<&'static str> {
    let mut header = [0; 20];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    if &header[..4] != b"\x7fELF" {
        return None;
    }
    Some(match (header[4], header[5], u16::from_le_bytes([header[18], header[19]])) {
        (2, 1, 62) => "x86_64",
        (2, 1, 183) => "aarch64",
        (2, 1, 243) => "riscv64",
        (1, 1, 40) => "armv7l",
        _ => "another kind of machine",
    })
}

fn read(path: &Path) -> Result<Program, Failure> {
    let broken = |e: &dyn std::error::Error| Failure::broke(format!("cannot read {}", path.display())).caused_by(e);
    let bytes = read_whole(path, BYTES_MAX).map_err(|e| broken(&e))?;
    let sha256 = hex(&sha256(&bytes));
    Ok(Program { path: path.to_owned(), bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    #[test]
    fn the_file_says_which_machine_it_is_for_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, project) = (dir.path().join("bin"), dir.path().join("project"));
        [&beside, &project].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        std::fs::write(beside.join("discod"), elf(62)).unwrap();
        std::fs::write(beside.join("discod-aarch64"), elf(62)).unwrap();
        std::fs::write(project.join("discod-aarch64"), elf(183)).unwrap();
        let places = Places { beside: Some(beside.clone()), project: Some(project.clone()), ..Places::default() };
        let path = |arch| places.find(arch).map(|program| program.path).map_err(|failure| failure.in_one_line());
        assert_eq!(path("x86_64"), Ok(beside.join("discod")));
        assert_eq!(path("arm64"), Ok(project.join("discod-aarch64")));
        let failure = places.find("riscv64").err().expect("there is none");
        assert!(failure.in_one_line().contains("bin/discod is for x86_64"), "{}", failure.in_one_line());
        let alone = Places { folder: Some(dir.path().join("empty")), ..places };
        let failure = alone.find("x86_64").err().expect("only that folder counts");
        assert!(failure.in_one_line().contains("empty/discod-x86_64"), "{}", failure.in_one_line());
    }

    #[test]
    fn a_programs_digest_is_sha256sums() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("discod"), elf(62)).unwrap();
        let places = Places { folder: Some(dir.path().to_owned()), ..Places::default() };
        let found = places.find("x86_64").unwrap_or_else(|failure| panic!("{}", failure.in_one_line()));
        let told = std::process::Command::new("sha256sum").arg(&found.path).output().unwrap().stdout;
        assert!(told.starts_with(found.sha256.as_bytes()));
    }
}
