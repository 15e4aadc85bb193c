//! Starts server processes: three pipes, a group of their own, clean signals and limits.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::{env, io};

use log::warn;
use mio::unix::pipe;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, pipe2};

use super::fd_limit::DescriptorLimit;
use super::program::{Program, RunBy, SHELL, find_program};
use crate::malloc::is_own_variable;
use crate::reactor::signals::KEPT_IGNORED;

/// Starts server processes, all by the same command.
#[derive(Debug)]
pub struct Spawner {
    command: Vec<CString>,
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
    /// Checks that the command can be run at all. Servers get the environment and the working directory of the
    /// proxy, and the limit of descriptors that the proxy was started with.
    pub fn new(command: &[OsString], descriptors: DescriptorLimit) -> io::Result<Self> {
        let Some(program) = command.first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the command is empty",
            ));
        };
        let Program { path, run_by } = find_program(program)?;
        if run_by == RunBy::Shell {
            let path = path.display();
            warn!("{path} has no #! line, so {SHELL} runs it");
        }
        let command = command
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()?;
        let environment = env::vars_os()
            .filter(|(name, _)| !is_own_variable(name))
            .filter_map(|(name, value)| {
                CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
            });
        Ok(Self {
            command,
            environment: environment.collect(),
            attributes: attributes()?,
            descriptors,
        })
    }

    /// Starts a process. Errors are those of pipe(2), `posix_spawn(3)` and execve(2).
    pub fn spawn(&self) -> io::Result<Spawned> {
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
        let pid = match self.spawn_with(&self.command, &actions)? {
            Err(Errno::ENOEXEC) => self.spawn_with(&by_shell(&self.command)?, &actions)??,
            result => result?,
        };
        Ok(Spawned {
            pid,
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    fn spawn_with(
        &self,
        command: &[CString],
        actions: &PosixSpawnFileActions,
    ) -> io::Result<nix::Result<Pid>> {
        self.descriptors.with_original(|| {
            posix_spawnp(
                &command[0],
                actions,
                &self.attributes,
                command,
                &self.environment,
            )
        })
    }
}

/// Has [`SHELL`] run a file, as execvp(3) does with one of unknown format.
fn by_shell(command: &[CString]) -> io::Result<Vec<CString>> {
    let program = find_program(OsStr::from_bytes(command[0].to_bytes()))?;
    if program.run_by != RunBy::Shell {
        return Err(Errno::ENOEXEC.into());
    }
    // A shell takes a word that begins with a dash for an option.
    let path = Path::new(".").join(program.path);
    let mut words = vec![
        CString::new(SHELL)?,
        CString::new(path.into_os_string().into_vec())?,
    ];
    words.extend_from_slice(&command[1..]);
    Ok(words)
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
