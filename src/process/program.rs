//! Whether a program is there and can be run, so that a mistyped name is told at the start and not to each client.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use nix::unistd::{AccessFlags, access};

/// Looks for a program where `posix_spawnp(3)` will.
pub(super) fn check_program(program: &OsStr) -> io::Result<()> {
    let candidates: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else {
        // What posix_spawnp(3) falls back to without a PATH.
        let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        env::split_paths(&path)
            .map(|folder| folder.join(program))
            .collect()
    };
    let mut refusal = io::Error::new(io::ErrorKind::NotFound, "there is no such program");
    for candidate in &candidates {
        match check_file(candidate) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => refusal = error,
            Err(_) => {}
        }
    }
    Err(refusal)
}

fn check_file(path: &Path) -> io::Result<()> {
    check_executable(path)?;
    match interpreter(path) {
        Some(interpreter) => check_executable(&interpreter).map_err(|error| {
            let interpreter = interpreter.display();
            io::Error::other(format!("its interpreter {interpreter}: {error}"))
        }),
        None => Ok(()),
    }
}

fn check_executable(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    Ok(access(path, AccessFlags::X_OK)?)
}

/// The kernel reads no more of a first line (execve(2), "Interpreter scripts").
const LINE_BYTES: u64 = 256;

/// The program that a script names in its first line (execve(2), "Interpreter scripts").
fn interpreter(path: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut start = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(LINE_BYTES)
        .read_to_end(&mut start)
        .ok()?;
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let name = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    Some(PathBuf::from(OsString::from_vec(name.to_vec())))
}
