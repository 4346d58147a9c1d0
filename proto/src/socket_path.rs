//! Socket files in deep folders: a socket's path may have 107 bytes (unix(7), `sun_path`), a file's 4095.
//!
//! The kernel reaches any folder through a descriptor of it, and that path is short.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `sun_path` without its closing zero.
const SUN_PATH_BYTES_MAX: usize = 107;

/// A path of the same file that fits; good while the folder it may hold open is.
pub(crate) struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    /// # Errors
    /// The path is too long and its folder cannot be opened.
    pub(crate) fn of(path: &Path) -> io::Result<SocketPath> {
        let fits = path.as_os_str().len() <= SUN_PATH_BYTES_MAX;
        let (false, Some(folder), Some(name)) = (fits, path.parent(), path.file_name()) else {
            return Ok(SocketPath { path: path.to_owned(), _folder: None });
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(SocketPath { path, _folder: Some(folder) })
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_socket_in_a_deep_folder_is_made_and_found() {
        let top = std::env::temp_dir().join(format!("disco-deep-{}", std::process::id()));
        let folder = top.join("d".repeat(120));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("control.sock");
        let listener = UnixListener::bind(SocketPath::of(&path).expect("it opens").as_path()).expect("it listens");
        UnixStream::connect(SocketPath::of(&path).expect("it opens").as_path()).expect("it connects");
        assert!(path.exists());
        drop(listener);
        std::fs::remove_dir_all(top).expect("ours");
        assert_eq!(SocketPath::of(Path::new("a/b.sock")).expect("short").as_path(), Path::new("a/b.sock"));
    }
}
