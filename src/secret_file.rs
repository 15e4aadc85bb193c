//! Reads files that hold secrets, and refuses those that others can read or change.

use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// What a mode must not have: everybody reads or writes, the group writes. That the group reads is fine: the credentials of
/// systemd and the secrets of Kubernetes are like that.
pub const FORBIDDEN_MODE: u32 = 0o026;

/// The largest file that is taken, in bytes: ten thousand tokens, or any chain of certificates.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file of text. Errors name it, and what is to be done.
///
/// What is checked is the file that was opened: its name may be another's a moment later.
pub fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: &dyn Display| format!("cannot read {shown}: {error}");
    let (file, metadata) = open_regular(path).map_err(|error| failed(&error))?;
    check(&metadata).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(&format_args!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Opens a file to read it. Nothing else is waited for.
///
/// # Errors
/// Why it can't be opened, without its name.
pub fn open_regular(path: &Path) -> Result<(File, Metadata), String> {
    // Without O_NONBLOCK, a FIFO would stop the program until somebody writes.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    Ok((file, metadata))
}

fn check(metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode() & 0o7777;
    if mode & FORBIDDEN_MODE == 0 {
        return Ok(());
    }
    Err(format!(
        "it holds a secret, and its mode {mode:04o} lets others read or change it (chmod 640; for a secret of Kubernetes: \
         defaultMode: 0440)"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A file that is gone after the test.
    struct Secret(PathBuf);

    impl Secret {
        fn new(name: &str, mode: u32) -> Self {
            let name = format!("mcp-tcp-proxy-secret-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, "secret\n").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Self(path)
        }
    }

    impl Drop for Secret {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        for mode in [0o600, 0o400, 0o440, 0o640, 0o700, 0o711, 0o750] {
            let file = Secret::new("good", mode);
            assert_eq!(read(&file.0).as_deref(), Ok("secret\n"), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o660, 0o620, 0o444, 0o777] {
            let file = Secret::new("bad", mode);
            let error = read(&file.0).unwrap_err();
            for part in ["chmod 640", "defaultMode: 0440", &format!("{mode:04o}")] {
                assert!(error.contains(part), "{error}");
            }
            assert!(!error.contains("secret\n"));
        }
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused() {
        let error = read(Path::new("/dev/null")).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
        assert!(read(Path::new("/does/not/exist")).is_err());
        let large = Secret::new("large", 0o600);
        fs::write(&large.0, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(read(&large.0).unwrap_err().contains("more than"));
    }
}
