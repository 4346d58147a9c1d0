//! The house rules that a machine can check, checked.
//!
//! Floors, the one folder with `unsafe`, who may know which library, length, stories and the code map. Each rule is a
//! function that returns what breaks it, so that one run lists everything.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A file is one idea; past this many lines it is two.
const LINES_MAX: usize = 500;

/// One source file, its path relative to the top.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers: without comments, and without the tests at the end of a file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let production = self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        production.enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }

    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    fn is_test_module(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

fn without_comment(line: &str) -> &str {
    // A `//` inside a string is an address (`https://`): nothing that follows one is a rule's business either.
    line.find("//").map_or(line, |at| &line[..at])
}

/// Every .rs file of the workspace.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for package in ["agent", "ctl", "memprof", "proto", "sigv4-ec2"] {
        collect(&Path::new(ROOT).join(package), &mut |path| path.extension().is_some_and(|is| is == "rs"), &mut paths);
    }
    let read = |path: PathBuf| Source { path: relative(&path), text: fs::read_to_string(&path).expect("it was just listed") };
    let found: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found
}

fn collect(folder: &Path, wanted: &mut dyn FnMut(&Path) -> bool, into: &mut Vec<PathBuf>) {
    let Ok(listing) = fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with(".disco") {
                collect(&path, wanted, into);
            }
        } else if wanted(&path) {
            into.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(ROOT).expect("the walk began at the top").to_string_lossy().into_owned()
}

/// Whether `word` stands in `line` with nothing of a name on either side.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    line.match_indices(word).any(|(at, _)| {
        let bytes = line.as_bytes();
        !is_name(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_name(bytes.get(at + word.len()))
    })
}

/// Lines of code in `folders`, but not in `except`, that hold one of `words`.
fn uses(folders: &[&str], except: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        if !source.is_under(folders) || source.is_under(except) || source.is_test_module() {
            continue;
        }
        for (number, line) in source.code() {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                found.push(format!("{}:{number}: `{word}` in: {}", source.path, line.trim()));
            }
        }
    }
    found
}

fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn the_model_needs_no_operating_system() {
    let banned = ["std", "smol", "libc", "rustix", "proto", "raft", "redb", "serde", "log", "logic", "drivers", "daemon"];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.is_under(&["agent/src/model/"])) {
        for (number, line) in source.code() {
            let paths = banned.iter().filter(|name| line.contains(&format!("{name}::")) && has_word(line, name));
            broken.extend(paths.map(|name| format!("{}:{number}: `{name}`", source.path)));
            if let Some(first) = line.trim_start().strip_prefix("use ").and_then(|path| path.split("::").next()) {
                let known = ["core", "alloc", "heapless", "minicbor", "super", "self", "crate"];
                if !known.contains(&first.trim_end_matches(';')) {
                    broken.push(format!("{}:{number}: use of `{first}`", source.path));
                }
            }
        }
    }
    assert_none("model sees core, alloc, heapless and minicbor only", broken);
}

#[test]
fn the_mind_has_no_hands_and_no_clock() {
    let banned = [
        "drivers",
        "daemon",
        "std::fs",
        "std::net",
        "std::io",
        "std::time",
        "std::thread",
        "std::process",
        "std::env",
        "Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "thread_rng",
        "smol",
        "async",
        "libc",
        "proto::v1",
        "log::error",
        "log::warn",
        "log::info",
        "log::debug",
    ];
    assert_none("logic has no I/O, clock, chance, thread or hash order", uses(&["agent/src/logic/"], &[], &banned));
}

#[test]
fn imports_point_down() {
    assert_none(
        "drivers never see logic or daemon",
        uses(&["agent/src/drivers/"], &[], &["crate::logic", "crate::daemon", "agent::logic"]),
    );
    assert_none("logic never sees drivers or daemon", uses(&["agent/src/logic/"], &[], &["crate::drivers", "crate::daemon"]));
}

#[test]
fn each_library_is_known_in_one_place() {
    let rules: [(&str, &[&str], &[&str]); 4] = [
        ("only drivers/api and drivers/peers know protobuf types", &["agent/src/drivers/api", "agent/src/drivers/peers"], &["v1"]),
        ("only drivers/script knows Boa", &["agent/src/drivers/script/"], &["boa_engine", "boa_gc"]),
        ("only logic/raft knows raft-rs", &["agent/src/logic/raft"], &["use raft", "eraftpb", "RawNode", "prost_for_raft", "slog"]),
        ("only drivers/store knows redb", &["agent/src/drivers/store/"], &["use redb", "redb::"]),
    ];
    for (rule, home, words) in rules {
        assert_none(rule, uses(&["agent/src/", "ctl/src/"], &[home, &["ctl/src/"][..]].concat(), words));
    }
    assert_none("ctl reaches Boa, redb and raft-rs through agent", uses(&["ctl/src/"], &[], &["boa_engine", "use redb", "eraftpb"]));
}

#[test]
fn unsafe_lives_in_one_folder_and_each_block_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for source in sources() {
        // This file has to name the word.
        if source.path == "agent/tests/tidy.rs" {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| has_word(without_comment(line), "unsafe")) {
            let home = source.is_under(&["agent/src/drivers/syscall/"]);
            let explained =
                lines[index.saturating_sub(6)..=index].iter().any(|above| above.contains("SAFETY") || above.contains("# Safety"));
            if !home || !explained {
                broken.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
        if source.text.contains("allow(unsafe_code)")
            && !source.is_under(&["agent/src/drivers/syscall/"])
            && source.path != "agent/src/drivers/mod.rs"
        {
            broken.push(format!("{}: allows unsafe code", source.path));
        }
    }
    assert_none("unsafe only in drivers/syscall/, each with a SAFETY sentence", broken);
}

#[test]
fn a_file_is_one_idea_and_says_why_it_exists() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            broken.push(format!("{}: {lines} lines, at most {LINES_MAX}", source.path));
        }
        if !source.text.starts_with("//!") {
            broken.push(format!("{}: does not begin with its story (`//!`)", source.path));
        }
    }
    assert_none("a file is one idea", broken);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let words = [["#[ign", "ore"], ["TO", "DO"], ["FIX", "ME"], ["allow(dead", "_code)"], ["unimpl", "emented!"], ["to", "do!("]]
        .map(|parts| parts.concat());
    let mut broken = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            broken.extend(words.iter().filter(|word| line.contains(*word)).map(|word| format!("{}:{}: {word}", source.path, index + 1)));
        }
    }
    assert_none("no stub, no ignored test", broken);
}

#[test]
fn the_code_map_in_the_readme_is_complete() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md lies at the top");
    let map = readme.split("## Code map").nth(1).expect("README.md has a section `Code map`");
    let mut folders = Vec::new();
    for entry in fs::read_dir(ROOT).expect("the top can be listed").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" {
            folders.push(format!("{name}/"));
        }
    }
    for package in ["agent", "ctl", "memprof"] {
        modules(&Path::new(ROOT).join(package).join("src"), &mut folders);
    }
    let missing: Vec<String> = folders.into_iter().filter(|folder| !map.contains(&format!("`{folder}`"))).collect();
    assert_none("the code map does not name", missing);
}

/// Folders below a package's `src/`, as the code map names them: `drivers/store/`.
fn modules(source: &Path, into: &mut Vec<String>) {
    let mut files = Vec::new();
    collect(source, &mut |_| true, &mut files);
    for file in files {
        let folder = file.parent().and_then(|folder| folder.strip_prefix(source).ok()).expect("the walk began there");
        let name = format!("{}/", folder.to_string_lossy());
        if name != "/" && !into.contains(&name) {
            into.push(name);
        }
    }
}

#[test]
fn scripts_run_and_end_only_what_they_started() {
    let mut broken = Vec::new();
    let mut files = Vec::new();
    let is_script = |path: &Path| path.extension().is_none() || path.extension().is_some_and(|is| is == "sh");
    collect(&Path::new(ROOT).join("scripts"), &mut |path| is_script(path), &mut files);
    files.push(Path::new(ROOT).join(".ci/run"));
    for path in files {
        let text = fs::read_to_string(&path).expect("it was just listed");
        let name = relative(&path);
        for broad in [["pk", "ill"], ["kill", "all"]].map(|parts| parts.concat()) {
            if text.contains(&broad) {
                broken.push(format!("{name}: {broad} ends other people's processes"));
            }
        }
        let runs = fs::metadata(&path).expect("it was just read").permissions().mode() & 0o111 != 0;
        // What others source has no first line of its own.
        if text.starts_with("#!") && !runs {
            broken.push(format!("{name}: is not executable"));
        }
        if !text.starts_with("#!") && path.extension().is_none() {
            broken.push(format!("{name}: does not say what runs it"));
        }
    }
    assert_none("scripts", broken);
}

#[test]
fn the_words_of_a_rule_are_whole_words() {
    assert!(has_word("use std::fs;", "std::fs") && !has_word("use std::fs_extra;", "std::fs"));
    assert!(!has_word("unsafe_code", "unsafe") && has_word("let x = unsafe { y };", "unsafe"));
    assert_eq!(without_comment("let a = 1; // unsafe"), "let a = 1; ");
}

#[test]
fn every_test_program_of_the_command_is_in_a_part() {
    let parts = fs::read_to_string(Path::new(ROOT).join("scripts/test")).expect("it is there");
    for entry in fs::read_dir(Path::new(ROOT).join("ctl/tests")).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("it is text").to_owned();
        let runs = path.is_file() || path.join("main.rs").exists();
        assert!(!runs || parts.contains(&format!("--test {name} ")), "scripts/test never runs ctl/tests/{name}");
    }
}
