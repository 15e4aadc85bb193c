//! Files that hold secrets: read only if nobody can read or change them who should not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What makes a file unfit for a secret: that everybody can read or write it, or its group can write it. A group that reads
/// it is fine: systemd's credentials and Kubernetes' secrets are 0440.
const UNFIT_MODE: u32 = 0o026;

/// More than any file of keys, certificates or tokens holds, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a file whose contents others must not know. The error says what to do, in one line and without the path.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    // Of what was opened, and not of what may have taken its place.
    let mode = file.metadata().map_err(|error| error.to_string())?.mode();
    if mode & UNFIT_MODE != 0 {
        return Err(format!(
            "its mode {:04o} lets others read or change it (chmod 640, or defaultMode: 0440 of a Kubernetes secret)",
            mode & 0o7777
        ));
    }
    read(file).map_err(|error| error.to_string())
}

/// Reads a file whose contents anybody may know.
pub fn read_public(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    read(file).map_err(|error| error.to_string())
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(name: &str, mode: u32) -> std::path::PathBuf {
        let name = format!("mcp-tcp-proxy-secret-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_read_only_from_a_file_of_which_others_are_kept_out() {
        let path = file("mode", 0o600);
        for mode in [0o600, 0o640, 0o440, 0o400, 0o650] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_secret(&path).unwrap(), b"secret", "{mode:o}");
        }
        for mode in [0o644, 0o660, 0o604, 0o602, 0o620, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path).unwrap_err();
            assert!(error.contains(&format!("its mode {mode:04o}")), "{error}");
            assert!(error.contains("chmod 640") && error.contains("defaultMode: 0440"));
            assert_eq!(read_public(&path).unwrap(), b"secret");
        }
        fs::remove_file(&path).unwrap();
        assert!(read_secret(&path).unwrap_err().contains("No such file"));
        assert!(read_public(&path).unwrap_err().contains("No such file"));
    }

    #[test]
    fn what_does_not_end_is_not_read_to_its_end() {
        let error = read_public(Path::new("/dev/zero")).unwrap_err();
        assert!(error.contains("larger"), "{error}");
    }
}
