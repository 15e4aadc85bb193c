//! What the system tells of a process in a file. The process may have any name, also one that is no text.

use std::io;
use std::path::Path;

/// All that is in such a file. What is no text in it is replaced.
///
/// # Errors
/// Those of reading a file.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_keeps_nobody_from_reading_the_rest() {
        let path = std::env::temp_dir().join(format!("mcp-proc-text-{}", std::process::id()));
        std::fs::write(&path, b"Name:\t\xff\nVmRSS:\t1 kB\n").unwrap();
        let text = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "Name:\t\u{fffd}\nVmRSS:\t1 kB\n");
    }
}
