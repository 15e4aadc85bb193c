//! Processes that have ended, and signals to groups.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};

use crate::session::report::Exit;

/// What there was to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// Nothing more.
    Nothing,
    /// A child, or an orphan of one.
    Process(Pid, Exit),
    /// A child, but there is no telling which.
    Unknown,
}

/// Reaps one process that has ended, orphans of servers included.
pub fn reap() -> Reaped {
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Reaped::Process(pid, Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                Reaped::Process(pid, Exit::Signal(signal as i32))
            }
            // It was reaped, but nix has no name for the signal and does not tell whose it was.
            Err(Errno::EINVAL) => Reaped::Unknown,
            Ok(WaitStatus::StillAlive) | Err(_) => Reaped::Nothing,
            Ok(_) => continue,
        };
    }
}

/// Whether a process of this number is there, reaped or not.
pub fn exists(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Whether anyone is left in a group.
///
/// A pid is not used again as long as a group of that number exists (fork(2)), so the group that is asked for is the
/// server's, up to the moment in which it is found to be empty. Members that changed their user can't be signalled, and
/// dead ones whose parent does not reap them are members still.
pub fn group_exists(leader: Pid) -> bool {
    matches!(killpg(leader, None), Ok(()) | Err(Errno::EPERM))
}

/// Sends a signal to a process that was not reaped, so that its pid is still its own, and to its group. The process may
/// have left the group. An error tells that the signal can't have reached the process itself, whoever else has got it.
pub fn signal_process(leader: Pid, signal: Signal) -> nix::Result<()> {
    let to_group = killpg(leader, signal);
    if getpgid(Some(leader)) != Ok(leader) {
        return kill(leader, signal);
    }
    // With one member that may be signalled the group takes the signal, although the leader may have another user.
    to_group.and_then(|()| kill(leader, None))
}

/// Sends a signal to all of a group.
pub fn signal_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    killpg(leader, signal)
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getpgrp, getpid};

    use super::*;

    /// No process has it (`pid_max`, `proc_sys_kernel(5)`).
    const NOBODY: Pid = Pid::from_raw(i32::MAX);

    #[test]
    fn processes_and_groups_that_are_there_and_that_are_not() {
        assert!(exists(getpid()) && !exists(NOBODY));
        assert!(group_exists(getpgrp()) && !group_exists(NOBODY));
        assert_eq!(signal_group(NOBODY, Signal::SIGTERM), Err(Errno::ESRCH));
        assert_eq!(signal_process(NOBODY, Signal::SIGTERM), Err(Errno::ESRCH));
    }
}
