//! A folder that lasts as long as a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for one test; it is removed when this is dropped.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        Self::in_folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "")
    }

    /// One with a short path, for unix sockets: theirs have 107 bytes at most.
    pub(crate) fn for_sockets() -> Self {
        Self::in_folder(&std::env::temp_dir(), "mcp-")
    }

    fn in_folder(parent: &Path, prefix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{}-{number}", std::process::id());
        let path = parent.join(name);
        // A test run that was killed may have left one of that name behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // A server that outlived the test may still be writing into it.
        let _ = fs::remove_dir_all(&self.0);
    }
}
