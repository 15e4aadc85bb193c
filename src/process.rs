//! Server processes: started with three pipes in a group of their own, reaped, and stopped with all that is left of
//! their group.

use std::collections::HashMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use log::{debug, warn};
use mio::unix::pipe;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{AccessFlags, Pid, access, pipe2};
use slab::Slab;

use crate::reactor::timers::{Timer, Timers};
use crate::session::report::Exit;
use crate::stop_ladder::{Rung, StopLadder};
use crate::timer_wheel::TimerId;

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
        let environment = env::vars_os().filter_map(|(name, value)| {
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

/// Whether a program is there and may be run, so that a mistyped name is told at the start and not to each client.
fn check_program(program: &OsStr) -> io::Result<()> {
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

/// The program that a script names in its first line (execve(2), "Interpreter scripts").
fn interpreter(path: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut start = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(256)
        .read_to_end(&mut start)
        .ok()?;
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let name = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    Some(PathBuf::from(OsString::from_vec(name.to_vec())))
}

/// How many descriptors this process may have open.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorLimit {
    original: u64,
    raised: u64,
}

impl DescriptorLimit {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> io::Result<Self> {
        let (original, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Self {
            original,
            raised: hard,
        })
    }

    /// The limit of this process.
    pub fn get(&self) -> u64 {
        self.raised
    }

    /// Does something under the limit that this process was started with. Descriptors that are open stay open.
    fn with_original<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        setrlimit(Resource::RLIMIT_NOFILE, self.original, self.raised)?;
        let result = action();
        setrlimit(Resource::RLIMIT_NOFILE, self.raised, self.raised)?;
        Ok(result)
    }
}

/// The server processes that are not gone for good.
#[derive(Debug, Default)]
pub struct Processes {
    all: Slab<Process>,
    by_pid: HashMap<i32, usize>,
    /// Those of which the leader was reaped, but not all of the group.
    remnants: Vec<usize>,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    session: usize,
    reaped: bool,
    stopping: Option<(StopLadder, Option<TimerId>)>,
}

/// A server that was reaped.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What [`Processes::add`] returned for it.
    pub process: usize,
    /// The slot of its session.
    pub session: usize,
    /// How it ended.
    pub exit: Exit,
}

impl Processes {
    /// Takes note of a process and of the slot of its session.
    pub fn add(&mut self, pid: Pid, session: usize) -> usize {
        let process = self.all.insert(Process {
            pid,
            session,
            reaped: false,
            stopping: None,
        });
        self.by_pid.insert(pid.as_raw(), process);
        process
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The input of a process has been closed: it is to go. A [`Timer::Process`] tells when force is due.
    pub fn stop(&mut self, process: usize, now: Instant, timers: &mut Timers) {
        let Some(entry) = self.all.get_mut(process) else {
            return;
        };
        if entry.stopping.is_none() {
            let ladder = StopLadder::new(now);
            entry.stopping = Some((ladder, set_timer(&ladder, process, timers)));
        }
    }

    /// Uses force, as it is due.
    pub fn climb(&mut self, process: usize, now: Instant, timers: &mut Timers) {
        let Some(entry) = self.all.get_mut(process) else {
            return;
        };
        let Some((ladder, timer)) = &mut entry.stopping else {
            return;
        };
        let rung = ladder.climb(now);
        *timer = set_timer(ladder, process, timers);
        let signal = match rung {
            Some(Rung::Terminate) => Signal::SIGTERM,
            Some(Rung::Kill) => Signal::SIGKILL,
            Some(Rung::Abandon) => {
                warn!(
                    "server pid {}: its process group outlived SIGKILL and is left alone",
                    entry.pid
                );
                return self.forget_empty_groups(timers);
            }
            None => return,
        };
        match killpg(entry.pid, signal) {
            Ok(()) => warn!(
                "server pid {} did not go by itself: {signal} to its process group",
                entry.pid
            ),
            Err(error) => debug!("server pid {}: {signal}: {error}", entry.pid),
        }
        self.forget_empty_groups(timers);
    }

    /// Sends SIGKILL to every group.
    pub fn kill_all(&self) {
        for (_, process) in &self.all {
            let _ = killpg(process.pid, Signal::SIGKILL);
        }
    }

    /// Reaps all that have ended, orphans of servers included. Returns the servers among them. What is left of the
    /// group of one is stopped.
    pub fn reap(&mut self, now: Instant, timers: &mut Timers) -> Vec<Ended> {
        let mut ended = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    ended.extend(self.reaped(pid, Exit::Code(code)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    ended.extend(self.reaped(pid, Exit::Signal(signal as i32)));
                }
                // It was reaped, but nix has no name for the signal and does not tell whose it was.
                Err(Errno::EINVAL) => ended.extend(self.find_reaped()),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.forget_empty_groups(timers);
        for ended in &ended {
            self.stop(ended.process, now, timers);
        }
        ended
    }

    /// Lets go of reaped servers that have left nothing behind in their groups.
    ///
    /// A pid is not used again as long as a group of that number exists (fork(2)), so the group that is asked for is
    /// the server's, up to the moment in which it is found to be empty.
    fn forget_empty_groups(&mut self, timers: &mut Timers) {
        let all = &mut self.all;
        self.remnants.retain(|index| {
            let Some(process) = all.get(*index) else {
                return false;
            };
            let exhausted = process
                .stopping
                .is_some_and(|(ladder, _)| ladder.deadline().is_none());
            let left = match killpg(process.pid, None) {
                // No signal ends a zombie that its parent does not reap, nor members that changed their user.
                Ok(()) | Err(Errno::EPERM) => !exhausted,
                Err(_) => false,
            };
            if !left {
                let process = all.remove(*index);
                if let Some((_, Some(timer))) = process.stopping {
                    timers.cancel(timer);
                }
            }
            left
        });
    }

    fn reaped(&mut self, pid: Pid, exit: Exit) -> Option<Ended> {
        let process = self.by_pid.remove(&pid.as_raw())?;
        let entry = self.all.get_mut(process)?;
        entry.reaped = true;
        self.remnants.push(process);
        Some(Ended {
            process,
            session: entry.session,
            exit,
        })
    }

    fn find_reaped(&mut self) -> Vec<Ended> {
        let gone: Vec<Pid> = self
            .all
            .iter()
            .filter(|(_, process)| !process.reaped && kill(process.pid, None) == Err(Errno::ESRCH))
            .map(|(_, process)| process.pid)
            .collect();
        gone.into_iter()
            .filter_map(|pid| self.reaped(pid, Exit::Unknown))
            .collect()
    }
}

fn set_timer(ladder: &StopLadder, process: usize, timers: &mut Timers) -> Option<TimerId> {
    ladder
        .deadline()
        .map(|at| timers.set(at, Timer::Process(process)))
}
