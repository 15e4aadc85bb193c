//! Starts server processes: three pipes, a group of their own, clean signals and limits.

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::{env, io};

use mio::unix::pipe;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, pipe2};

use super::fd_limit::DescriptorLimit;
use super::program::check_program;
use crate::malloc::is_own_variable;

/// Starts server processes, all by the same command.
#[derive(Debug)]
pub struct Spawner {
    command: Vec<CString>,
    environment: Vec<CString>,
    attributes: PosixSpawnAttr,
    descriptors: DescriptorLimit,
}

/// A process that was started, and our ends of its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid, which is its group's too.
    pub pid: Pid,
    /// What it reads.
    pub stdin: pipe::Sender,
    /// What it writes.
    pub stdout: pipe::Receiver,
    /// What it has to say about itself.
    pub stderr: pipe::Receiver,
}

impl Spawner {
    /// Looks whether the command can be run at all. Servers get the environment and the working directory of the
    /// proxy, and the limit of descriptors that the proxy was started with.
    pub fn new(command: &[OsString], descriptors: DescriptorLimit) -> io::Result<Self> {
        let Some(program) = command.first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the command is empty",
            ));
        };
        check_program(program)?;
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
        let pid = self.descriptors.with_original(|| {
            posix_spawnp(
                &self.command[0],
                &actions,
                &self.attributes,
                &self.command,
                &self.environment,
            )
        })??;
        Ok(Spawned {
            pid,
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }
}

/// A group of its own, no signal blocked, and SIGPIPE, which Rust programs ignore, as it was.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let mut defaults = SigSet::empty();
    defaults.add(Signal::SIGPIPE);
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
