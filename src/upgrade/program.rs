//! The program that goes on: where it lies, what it is told, and its start in this process.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, dup2_stdin, execve, fexecve};
use serde::{Deserialize, Serialize};

use crate::logger;

/// What precedes all other arguments of a program that goes on where another was: how often that has happened.
pub const GENERATION: &str = "--generation";

/// The command by which a program is asked whether it could go on. The arguments with which it would follow.
pub const REHEARSE: &str = "rehearse-upgrade";

/// What systemd says of sockets that it has passed (`sd_listen_fds(3)`). They are passed once.
const PASSED_PREFIX: &str = "LISTEN_";

/// What this program is replaced by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    path: OsString,
    /// How often it has happened in this process.
    generation: u64,
}

impl Program {
    /// What lies at the path at which this program was found when it was started, or at another one. What lies there is
    /// only looked at when it is needed.
    pub fn of_start(chosen: Option<&Path>) -> Self {
        let path = chosen.map_or_else(own_path, absolute);
        Self {
            path: path.into_os_string(),
            generation: 0,
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// How often a program was replaced in this process.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same, as that of this generation.
    #[must_use]
    pub fn of_generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The same, once more.
    #[must_use]
    pub fn next(&self) -> Self {
        self.clone().of_generation(self.generation + 1)
    }

    /// What it is told, beginning with its name: what this program was told, and the generation.
    pub fn words(&self) -> Vec<OsString> {
        self.words_after(env::args_os().collect())
    }

    fn words_after(&self, mut words: Vec<OsString>) -> Vec<OsString> {
        if words.get(1).is_some_and(|word| word == GENERATION) {
            words.drain(1..words.len().min(3));
        }
        if words.is_empty() {
            words.push(self.path.clone());
        }
        let generation = self.generation.to_string();
        words.splice(1..1, [GENERATION.into(), generation.into()]);
        words
    }

    /// Has it go on in this process, with this stdin, and stdout as this program was given it. Returns only if it does not:
    /// then all is as it was.
    ///
    /// # Errors
    /// Those of execve(2).
    pub fn start(&self, stdin: &OwnedFd) -> io::Result<Infallible> {
        let path = c_string(&self.path)?;
        with_words(&self.words(), stdin, |words, environment| {
            Ok(execve(&path, words, environment)?)
        })
    }

    /// The same for a program that is open, and was told these words.
    ///
    /// # Errors
    /// Those of execve(2).
    pub fn start_open(
        &self,
        file: BorrowedFd<'_>,
        words: Vec<OsString>,
        stdin: &OwnedFd,
    ) -> io::Result<Infallible> {
        with_words(&self.words_after(words), stdin, |words, environment| {
            Ok(fexecve(file, words, environment)?)
        })
    }
}

fn with_words(
    words: &[OsString],
    stdin: &OwnedFd,
    start: impl FnOnce(&[CString], &[CString]) -> io::Result<Infallible>,
) -> io::Result<Infallible> {
    let words: Vec<CString> = words
        .iter()
        .map(|word| c_string(word))
        .collect::<io::Result<_>>()?;
    let environment = environment()?;
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(stdin)?;
    let started = logger::with_original_stdout(|| start(&words, &environment));
    dup2_stdin(&own)?;
    started?
}

fn c_string(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.as_bytes())?)
}

fn environment() -> io::Result<Vec<CString>> {
    let all = env::vars_os();
    all.filter(|(name, _)| !name.as_bytes().starts_with(PASSED_PREFIX.as_bytes()))
        .map(|(name, value)| {
            Ok(CString::new(
                [name.as_bytes(), b"=", value.as_bytes()].concat(),
            )?)
        })
        .collect()
}

/// Where this program was found. Links are not resolved: what they lead to may change, and that is the point.
fn own_path() -> PathBuf {
    let name = env::args_os().next().unwrap_or_default();
    found(&name, env::var_os("PATH").as_deref())
        .map(|path| absolute(&path))
        .or_else(|| env::current_exe().ok())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn found(name: &OsStr, search: Option<&OsStr>) -> Option<PathBuf> {
    let can_be_run = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(can_be_run);
    }
    let mut folders = env::split_paths(search?);
    folders.find_map(|folder| Some(folder.join(name)).filter(can_be_run))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let search = Some(OsStr::new("/nowhere:/usr/bin:/bin"));
        let shell = found(OsStr::new("sh"), search).unwrap();
        assert!(shell.ends_with("bin/sh"));
        assert_eq!(found(OsStr::new("/bin/sh"), None), Some("/bin/sh".into()));
        assert_eq!(found(OsStr::new("sh"), None), None);
        assert_eq!(found(OsStr::new("no such program"), search), None);
        assert_eq!(found(OsStr::new("/etc/passwd"), search), None);
    }

    #[test]
    fn the_generation_comes_first_and_counts() {
        let program = Program::of_start(Some(Path::new("x")));
        assert!(program.path().is_absolute());
        assert_eq!(program.generation(), 0);
        let words = program.next().next().words();
        assert_eq!(words[1..3], [GENERATION, "2"]);
        let count = words.iter().filter(|word| *word == GENERATION).count();
        assert_eq!(count, 1);
    }
}
