//! The file itself.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// The largest file that is taken, in bytes: thousands of servers.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Readable or writable by everybody, or writable by the group.
const OPEN_TO_OTHERS: u32 = 0o026;

/// Reads a file, and whether others may.
///
/// # Errors
/// Why it can't be read, in a line with its name.
pub fn read_file(path: &Path) -> Result<(Vec<u8>, bool), String> {
    let shown = path.display();
    let failed = |error: &dyn Display| format!("cannot read {shown}: {error}");
    // Without O_NONBLOCK, a FIFO would stop the program until somebody writes.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(failed(&"it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(&format_args!(
            "it has more than {MAX_BYTES} bytes, and no configuration is that long (is it the right file?)"
        )));
    }
    Ok((bytes, metadata.mode() & OPEN_TO_OTHERS != 0))
}
