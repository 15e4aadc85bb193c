//! The file itself.

use std::fmt::Display;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::secret_file::{FORBIDDEN_MODE, open_regular};

/// The largest file that is taken, in bytes: thousands of servers.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file, and whether others may.
///
/// # Errors
/// Why it can't be read, in a line with its name.
pub fn read_file(path: &Path) -> Result<(Vec<u8>, bool), String> {
    let shown = path.display();
    let failed = |error: &dyn Display| format!("cannot read {shown}: {error}");
    let (file, metadata) = open_regular(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(&format_args!(
            "it has more than {MAX_BYTES} bytes, and no configuration is that long (is it the right file?)"
        )));
    }
    Ok((bytes, metadata.mode() & FORBIDDEN_MODE != 0))
}
