//! Whether files were replaced or written to since they were last looked at (`--watch`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files, and what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// The file itself, and when it was last written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    time: (i64, i64),
}

impl Stamps {
    /// These, and others.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// What these files are now.
    pub(super) fn of(paths: Vec<PathBuf>) -> Self {
        let stamps = paths.into_iter().map(|path| {
            let stamp = fs::metadata(&path).ok().map(|found| Stamp {
                device: found.dev(),
                inode: found.ino(),
                time: (found.mtime(), found.mtime_nsec()),
            });
            (path, stamp)
        });
        Self(stamps.collect())
    }

    /// Whether any of them is not what it was.
    pub(super) fn have_changed(&self) -> bool {
        let paths = self.0.iter().map(|(path, _)| path.clone());
        *self != Self::of(paths.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_removed_or_new_has_changed() {
        let name = format!("mcp-tcp-proxy-stamps-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let other = std::env::temp_dir().join(name + "-other");
        let stamps = || Stamps::of(vec![path.clone()]);
        let none = stamps();
        assert!(!none.have_changed());
        fs::write(&path, "1").unwrap();
        assert!(none.have_changed());
        let first = stamps();
        assert!(!first.have_changed());
        fs::write(&other, "1").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(first.have_changed());
        let second = stamps();
        fs::remove_file(&path).unwrap();
        assert!(second.have_changed() && !none.have_changed());
    }
}
