//! Lines of earlier sessions: a file of this user's alone, bounded, and nothing to fail for.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

/// Lines kept over sessions.
pub const LINES_MAX: usize = 1000;
const BYTES_MAX: u64 = 256 * 1024;

pub struct HistoryFile {
    /// `None`: nowhere to keep it.
    path: Option<PathBuf>,
}

impl HistoryFile {
    /// `$XDG_STATE_HOME/disco/history`, or `~/.local/state/disco/history` (XDG Base Directory Specification).
    pub fn find() -> HistoryFile {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
        HistoryFile { path: state.map(|state| state.join("disco/history")) }
    }

    /// Oldest first. When there are too many, the file keeps the newer half.
    pub fn lines(&mut self) -> Vec<String> {
        let Some(path) = &self.path else { return Vec::new() };
        let mut text = String::new();
        if File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text)).is_err() {
            return Vec::new();
        }
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() > LINES_MAX || text.len() as u64 > BYTES_MAX {
            lines.drain(..lines.len() / 2);
            lines.drain(..lines.len().saturating_sub(LINES_MAX / 2));
            let kept: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            let _ = crate::context::replace_file(path, kept.as_bytes(), 0o600);
        }
        lines
    }

    /// At once, so that two sessions lose nothing of each other. A line that begins with a space is nobody's business, as in bash.
    pub fn add(&mut self, line: &str) {
        if line.starts_with(' ') {
            return;
        }
        let Some(path) = &self.path else { return };
        if let Some(folder) = path.parent() {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        let line = line.replace('\n', " ") + "\n";
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        if file.and_then(|mut file| file.write_all(line.as_bytes())).is_err() {
            // A read-only home is no reason to end a session, nor to say so at each line.
            self.path = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn lines_are_kept_for_this_user_alone_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disco/history");
        let mut history = HistoryFile { path: Some(path.clone()) };
        assert_eq!(history.lines(), Vec::<String>::new());
        (0..=LINES_MAX).for_each(|n| history.add(&format!("line {n}")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        history.add(" cluster.key('password').set('x')");
        let lines = history.lines();
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (LINES_MAX / 2, Some("line 1000")));
        assert_eq!(history.lines(), lines);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nowhere_to_keep_it_is_no_failure() {
        let mut history = HistoryFile { path: Some("/proc/none/history".into()) };
        history.add("line");
        assert_eq!(history.lines(), Vec::<String>::new());
    }
}
