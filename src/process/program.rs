//! Finds the program of a command and checks that it can be run, so that a mistake is reported at the start and not to
//! each client.
//!
//! Files are only read, never run. For what the kernel does with a file see execve(2), and for the search execvp(3).

mod elf;
mod script;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, io};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use self::script::Interpreter;

/// What execvp(3) runs a script with that names no interpreter.
pub(super) const SHELL: &str = "/bin/sh";

/// Bytes of a file that the kernel looks at to tell what it is (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: usize = 256;

/// Scripts may be run by scripts, to this depth (execve(2), ELOOP).
const MAX_INTERPRETERS: u32 = 5;

/// A file that can be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) run_by: RunBy,
}

/// What runs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunBy {
    /// The kernel, or what it was told to run such a file by.
    Kernel,
    /// [`SHELL`]: the kernel does not know what it is, and it is text.
    Shell,
}

/// Why a file can't be run.
enum Refusal {
    /// There is none.
    Missing,
    /// The search goes on in the next folder.
    Passed(String),
    /// The search ends here.
    Final(String),
}

/// Where programs are searched for: the folders of a `PATH`. Relative ones are those of the working directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchPath<'a>(&'a OsStr);

impl<'a> SearchPath<'a> {
    /// That of an environment with this `PATH`.
    pub(super) fn new(path: Option<&'a OsStr>) -> Self {
        // What execvp(3) falls back to.
        Self(path.unwrap_or(OsStr::new("/bin:/usr/bin")))
    }

    /// The files that may be meant, in this order: one, unless `program` is a mere name.
    pub(super) fn candidates(self, program: &OsStr) -> Vec<PathBuf> {
        if program.is_empty() {
            return Vec::new();
        }
        if program.as_bytes().contains(&b'/') {
            return vec![program.into()];
        }
        env::split_paths(self.0)
            .map(|folder| folder.join(program))
            .collect()
    }

    /// Looks for a program as execvp(3) does, and checks whether it can be run.
    pub(super) fn find(self, program: &OsStr) -> io::Result<Program> {
        find(program, self, MAX_INTERPRETERS).map_err(io::Error::other)
    }
}

/// Whether this file is one that [`SHELL`] has to run.
pub(super) fn is_for_shell(path: &Path, search: SearchPath<'_>) -> bool {
    matches!(check_file(path, search, MAX_INTERPRETERS), Ok(RunBy::Shell))
}

fn find(program: &OsStr, search: SearchPath<'_>, depth: u32) -> Result<Program, String> {
    let is_path = program.as_bytes().contains(&b'/');
    let mut refusal = None;
    for path in search.candidates(program) {
        let named = |why| {
            if is_path {
                return why;
            }
            format!("{}: {why}", path.display())
        };
        match check_file(&path, search, depth) {
            Ok(run_by) => return Ok(Program { path, run_by }),
            Err(Refusal::Missing) => {}
            Err(Refusal::Passed(why)) => refusal = Some(named(why)),
            Err(Refusal::Final(why)) => return Err(named(why)),
        }
    }
    Err(refusal.unwrap_or_else(|| {
        if is_path {
            missing("there is no such file", program)
        } else {
            not_in_path(program)
        }
    }))
}

fn not_in_path(program: &OsStr) -> String {
    if !program.is_empty() && Path::new(program).is_file() {
        let name = program.display();
        return format!(
            "there is no such program in PATH (write ./{name} for the file in the working directory)"
        );
    }
    missing("there is no such program in PATH", program)
}

/// A word with blanks in it is more often a command in quotes than the name of a program.
fn missing(what: &str, program: &OsStr) -> String {
    if program.as_bytes().contains(&b' ') {
        format!(
            "{what}; it is one word with spaces in it (leave out the quotes to give a program and its arguments)"
        )
    } else {
        what.to_owned()
    }
}

fn check_file(path: &Path, search: SearchPath<'_>, depth: u32) -> Result<RunBy, Refusal> {
    check_permission(path)?;
    // A program may be executable and not readable. Then there is nothing to check.
    let Some((file, head)) = read_head(path) else {
        return Ok(RunBy::Kernel);
    };
    if head.is_empty() {
        return Err(Refusal::Final("the file is empty".to_owned()));
    }
    if head.starts_with(b"\xef\xbb\xbf#!") {
        let why = "it has a byte order mark before its #! line (save it without)";
        return Err(Refusal::Final(why.to_owned()));
    }
    if head.starts_with(b"#!") {
        return check_script(&head, search, depth);
    }
    if head.starts_with(elf::MAGIC) {
        return check_elf(&file, &head);
    }
    match script::check_text(&head) {
        Ok(()) => check_interpreter(Path::new(SHELL), search, depth).map(|()| RunBy::Shell),
        Err(_) if has_foreign_formats() => Ok(RunBy::Kernel),
        Err(why) => Err(Refusal::Final(why.to_owned())),
    }
}

fn check_permission(path: &Path) -> Result<(), Refusal> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::Missing,
        _ => Refusal::Passed(error.to_string()),
    })?;
    let refused = |why: &str| Err(Refusal::Passed(why.to_owned()));
    if metadata.is_dir() {
        return refused("it is a folder");
    }
    if !metadata.is_file() {
        return refused("it is not a regular file");
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return refused("it is not executable (chmod +x, or put its interpreter before it)");
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Ok(()) => Ok(()),
        Err(error) => Err(Refusal::Passed(format!(
            "{} (this user may not run it, or its file system is mounted noexec)",
            error.desc()
        ))),
    }
}

fn read_head(path: &Path) -> Option<(File, Vec<u8>)> {
    let file = File::open(path).ok()?;
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    while filled < HEAD_BYTES {
        match file.read_at(&mut head[filled..], filled as u64).ok()? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    Some((file, head))
}

fn check_script(head: &[u8], search: SearchPath<'_>, depth: u32) -> Result<RunBy, Refusal> {
    let Interpreter { path, argument } = script::interpreter(head).map_err(Refusal::Final)?;
    check_interpreter(&path, search, depth)?;
    if let Some(name) = argument
        .as_deref()
        .and_then(|argument| script::run_by_env(&path, argument))
    {
        find(name, search, depth - 1).map_err(|why| {
            Refusal::Final(format!("its interpreter '{}': {why}", name.display()))
        })?;
    }
    Ok(RunBy::Kernel)
}

/// `depth` is how many more interpreters there may be, this one included.
fn check_interpreter(path: &Path, search: SearchPath<'_>, depth: u32) -> Result<(), Refusal> {
    let refusal = match depth
        .checked_sub(1)
        .map(|depth| check_file(path, search, depth))
    {
        Some(Ok(RunBy::Kernel)) => return Ok(()),
        // The shell is for the outermost file alone.
        Some(Ok(RunBy::Shell)) => Refusal::Final("it has no #! line itself".to_owned()),
        Some(Err(refusal)) => refusal,
        None => Refusal::Final("interpreters are nested too deeply".to_owned()),
    };
    let named = |why: &str| format!("its interpreter {}: {why}", path.display());
    Err(match refusal {
        Refusal::Missing => Refusal::Passed(named("there is no such file")),
        Refusal::Passed(why) => Refusal::Passed(named(&why)),
        Refusal::Final(why) => Refusal::Final(named(&why)),
    })
}

fn check_elf(file: &File, head: &[u8]) -> Result<RunBy, Refusal> {
    if let Some(machine) = elf::foreign_machine(head) {
        return if has_foreign_formats() {
            Ok(RunBy::Kernel)
        } else {
            let own = env::consts::ARCH;
            Err(Refusal::Final(format!(
                "it is a program for {machine}, and this machine is {own}"
            )))
        };
    }
    let loader = elf::loader(file, head).map_err(|why| Refusal::Final(why.to_owned()))?;
    if let Some(loader) = loader {
        check_permission(&loader).map_err(|_| {
            let loader = loader.display();
            Refusal::Passed(format!(
                "its loader {loader} is missing (it was built for another system, or for another C library)"
            ))
        })?;
    }
    Ok(RunBy::Kernel)
}

/// Whether the kernel was told how to run more formats (`binfmt_misc`), such as another machine's programs by an emulator.
/// Then it knows better what can be run.
fn has_foreign_formats() -> bool {
    let is_format = |name: OsString| name != "register" && name != "status";
    fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| is_format(entry.file_name())))
    })
}
