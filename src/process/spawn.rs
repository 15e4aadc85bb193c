//! Starts server processes: three pipes, a group of their own, clean signals and limits.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use log::warn;
use mio::unix::pipe;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, Pid, access, pipe2};

use super::client_facts::ClientFacts;
use super::environment::Environment;
use super::fd_limit::DescriptorLimit;
use super::program::{Program, RunBy, SHELL, SearchPath, is_for_shell};
use super::working_directory::WorkingDirectory;
use crate::reactor::signals::KEPT_IGNORED;

/// What servers find around them.
#[derive(Debug)]
pub struct Surroundings {
    /// Their variables.
    pub environment: Environment,
    /// Where they are started. `None`: where the proxy is.
    pub directory: Option<WorkingDirectory>,
    /// Whether each is told of the client that it is started for.
    pub tells_clients: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn inherited() -> Self {
        Self {
            environment: Environment::inherited(false),
            directory: None,
            tells_clients: false,
        }
    }
}

/// Starts server processes, all by the same command.
#[derive(Debug)]
pub struct Spawner {
    command: Vec<CString>,
    surroundings: Surroundings,
    /// As execve(2) takes it, made once.
    environment: Vec<CString>,
    attributes: PosixSpawnAttr,
    descriptors: DescriptorLimit,
}

/// A process that was started, and our ends of its pipes: `I` goes in, `O` comes out.
#[derive(Debug)]
pub struct Spawned<I = pipe::Sender, O = pipe::Receiver> {
    /// Its pid, which is its group's too.
    pub pid: Pid,
    /// What it reads.
    pub stdin: I,
    /// What it writes.
    pub stdout: O,
    /// What it has to say about itself.
    pub stderr: O,
}

impl Spawner {
    /// Checks that the command can be run at all. Servers get the limit of descriptors that the proxy was started with.
    pub fn new(
        command: &[OsString],
        surroundings: Surroundings,
        descriptors: DescriptorLimit,
    ) -> io::Result<Self> {
        let Some(program) = command.first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the command is empty",
            ));
        };
        let command = command
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()?;
        let spawner = Self {
            command,
            environment: surroundings.environment.to_strings(),
            surroundings,
            attributes: attributes()?,
            descriptors,
        };
        let Program { path, run_by } = spawner.inside(|| spawner.search_path().find(program))??;
        if run_by == RunBy::Shell {
            let path = path.display();
            warn!("{path} has no #! line, so {SHELL} runs it");
        }
        Ok(spawner)
    }

    /// Whether a server is told of its client.
    pub fn tells_clients(&self) -> bool {
        self.surroundings.tells_clients
    }

    /// Starts a process, for this client if it is to be told. Errors are those of pipe(2), `posix_spawn(3)` and execve(2),
    /// and of chdir(2).
    pub fn spawn(&self, client: Option<&ClientFacts<'_>>) -> io::Result<Spawned> {
        let (child_stdin, stdin) = pipe2(OFlag::O_CLOEXEC)?;
        let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        // Each end is an open file description of its own: the server's ends stay blocking.
        for ours in [&stdin, &stdout, &stderr] {
            set_nonblocking(ours)?;
        }
        let mut actions = PosixSpawnFileActions::init()?;
        for (descriptor, number) in [(&child_stdin, 0), (&child_stdout, 1), (&child_stderr, 2)] {
            actions.add_dup2(descriptor.as_raw_fd(), number)?;
        }
        let client = client.filter(|_| self.tells_clients());
        let told = client.map_or_else(Vec::new, |client| {
            client.variables(&self.surroundings.environment)
        });
        let environment: Vec<&CStr> = self
            .environment
            .iter()
            .chain(&told)
            .map(|variable| &**variable)
            .collect();
        let start = |path: &Path, command: &[CString]| {
            posix_spawn(path, &actions, &self.attributes, command, &environment)
        };
        let pid =
            self.inside(|| self.descriptors.with_original(|| self.start_found(start)))???;
        Ok(Spawned {
            pid,
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    /// Starts the first file that the program's name may stand for and that can be run, as execvp(3) does; but it is the
    /// server's `PATH` that counts, and not the proxy's.
    fn start_found(
        &self,
        start: impl Fn(&Path, &[CString]) -> nix::Result<Pid>,
    ) -> nix::Result<Pid> {
        let program = OsStr::from_bytes(self.command[0].to_bytes());
        let candidates = self.search_path().candidates(program);
        let is_only = candidates.len() == 1;
        let mut failure = Errno::ENOENT;
        for path in candidates {
            // A look costs less than an attempt.
            let started = match access(&path, AccessFlags::F_OK) {
                Err(error) if !is_only => Err(error),
                _ => start(&path, &self.command),
            };
            let started = match started {
                Err(Errno::ENOEXEC) if is_for_shell(&path, self.search_path()) => {
                    let command = self.by_shell(path).ok_or(Errno::EINVAL)?;
                    start(Path::new(SHELL), &command)
                }
                other => other,
            };
            match started {
                Err(error) if leads_on(error) => {
                    if failure != Errno::EACCES {
                        failure = error;
                    }
                }
                settled => return settled,
            }
        }
        Err(failure)
    }

    /// Has [`SHELL`] run a file, as execvp(3) does with one of unknown format.
    fn by_shell(&self, path: PathBuf) -> Option<Vec<CString>> {
        // A shell takes a word that begins with a dash for an option.
        let path = Path::new(".").join(path);
        let path = CString::new(path.into_os_string().into_vec()).ok()?;
        let mut words = vec![CString::new(SHELL).ok()?, path];
        words.extend_from_slice(&self.command[1..]);
        Some(words)
    }

    fn search_path(&self) -> SearchPath<'_> {
        SearchPath::new(self.surroundings.environment.get("PATH"))
    }

    /// Does something where servers are started.
    fn inside<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        match &self.surroundings.directory {
            Some(directory) => directory.inside(action),
            None => Ok(action()),
        }
    }
}

/// Whether a server that could not be started for this reason can't be by another attempt: what is wrong is its command, or
/// where it is to be started.
pub fn is_for_good(error: &io::Error) -> bool {
    let is_format = error.raw_os_error() == Some(Errno::ENOEXEC as i32);
    is_format
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput
        )
}

/// Whether the search for a program goes on after this error (execvp(3)).
fn leads_on(error: Errno) -> bool {
    matches!(
        error,
        Errno::ENOENT
            | Errno::EACCES
            | Errno::ENOTDIR
            | Errno::ESTALE
            | Errno::ENODEV
            | Errno::ETIMEDOUT
    )
}

/// A group of its own, no signal blocked, and none ignored, whatever our parent ignores, but those that a user has a
/// whole job ignore.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let mut defaults = SigSet::all();
    for signal in KEPT_IGNORED {
        defaults.remove(signal);
    }
    attributes.set_sigdefault(&defaults)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    Ok(attributes)
}

/// The access mode stays what it is, whatever is said here (fcntl(2), `F_SETFL`).
fn set_nonblocking(descriptor: &OwnedFd) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}
