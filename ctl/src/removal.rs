//! The end of `.disco/`, file by file, which may be cut off between any two.
//!
//! It begins when the cluster is gone. What finds machines goes after everything else, then what tells whose they were, then
//! the locked file: so whatever is left tells whether there is still something to be looked for.

use crate::context::{AWS, CLUSTER, Context, JOURNAL, LOCK, Lock};
use crate::message::Failure;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is removed last, in this order.
const LAST: [&str; 4] = [AWS, CLUSTER, JOURNAL, LOCK];

impl Context {
    /// Whether a removal of `.disco/` was cut off when there was nothing left but what tells whose it was. All else is
    /// removed before, and only once the cluster is gone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn is_half_removed(&self) -> Result<bool, Failure> {
        let folder = self.disco();
        let entries = fs::read_dir(&folder).map_err(|e| Failure::broke(format!("cannot read {}", folder.display())).caused_by(&e))?;
        let names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        Ok(names.iter().all(|name| LAST[1..].iter().any(|last| name == last)))
    }

    /// Removes what such a removal left, but for the lock.
    ///
    /// # Errors
    /// As removing files goes.
    pub fn finish_removal(&self) -> Result<(), Failure> {
        [CLUSTER, JOURNAL].iter().map(|name| self.file(name)).try_for_each(|path| match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::broke(format!("cannot remove {}", path.display())).caused_by(&e)),
            _ => Ok(()),
        })
    }

    /// Removes `.disco/`: the locked file last, what tells whose it was before it, so that it can be run again.
    ///
    /// # Errors
    /// As removing files goes.
    pub fn remove_disco(&self, lock: Lock) -> Result<(), Failure> {
        let folder = self.disco();
        let broken = |path: &Path, e: &dyn std::error::Error| Failure::broke(format!("cannot remove {}", path.display())).caused_by(e);
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&folder).map_err(|e| broken(&folder, &e))?.filter_map(|e| Some(e.ok()?.path())).collect();
        let last = |path: &PathBuf| LAST.iter().position(|n| path.ends_with(n)).map_or(0, |i| i + 1);
        paths.sort_by_key(last);
        for path in paths {
            let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| broken(&path, &e))?;
        }
        fs::remove_dir(&folder).map_err(|e| broken(&folder, &e))?;
        drop(lock);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;

    #[test]
    fn a_removal_that_was_cut_off_is_finished_only_where_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context::new(&Global { dir: Some(dir.path().to_owned()), ..Global::default() }).unwrap();
        let lock = context.lock().unwrap();
        for name in [JOURNAL, CLUSTER, AWS, "admin.crt"] {
            fs::write(context.file(name), "").unwrap();
        }
        for name in ["admin.crt", AWS] {
            assert!(!context.is_half_removed().unwrap(), "{name} is there");
            fs::remove_file(context.file(name)).unwrap();
        }
        assert!(context.is_half_removed().unwrap());
        context.finish_removal().unwrap();
        context.finish_removal().unwrap();
        assert_eq!(fs::read_dir(context.disco()).unwrap().count(), 1, "the lock");
        context.remove_disco(lock).unwrap();
    }
}
