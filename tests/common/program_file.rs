//! Programs that a test writes, and has run at once.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes `text` a program with these permissions, and returns its path.
///
/// A shell writes it. A test that did so itself would for a moment have it open for writing, and so would every process that
/// another test starts just then, until that one is another program: so long the kernel refuses to run it ("text file busy").
pub(crate) fn write_program(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> String {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod \"$2\" \"$1\"", "sh"])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_ref()).unwrap();
    drop(input);
    assert!(shell.wait().unwrap().success(), "{}", path.display());
    path.to_str().unwrap().to_owned()
}
