//! Server processes: reaped, and stopped with all that is left of their groups.

pub mod escalation;
mod fd_limit;
mod program;
mod spawn;

use std::collections::HashMap;

use log::{debug, warn};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub use self::fd_limit::DescriptorLimit;
pub use self::spawn::{Spawned, Spawner};
use crate::process::escalation::{Escalation, Step};
use crate::reactor::timers::Timers;
use crate::serve::Due;
use crate::session::report::Exit;
use crate::util::time::Time;
use crate::util::timer_wheel::TimerId;

/// The server processes that are not gone for good.
#[derive(Debug, Default)]
pub struct Processes {
    /// By numbers that are never used again: what is still to be done to one process must not hit another.
    all: HashMap<usize, Process>,
    last: usize,
    by_pid: HashMap<i32, usize>,
    /// Those of which the leader was reaped, but not all of the group.
    remnants: Vec<usize>,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    owner: Owner,
    reaped: bool,
    stopping: Option<Box<Stopping>>,
}

/// A process on its way out. Few are at any time.
#[derive(Debug)]
struct Stopping {
    ladder: Escalation,
    timer: Option<TimerId>,
}

/// Who has a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The session in this slot.
    Session(usize),
    /// The pool of waiting servers; this is the slot there.
    Spares(usize),
}

/// A server that was reaped.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What [`Processes::add`] returned for it.
    pub process: usize,
    /// Who had it.
    pub owner: Owner,
    /// How it ended.
    pub exit: Exit,
}

impl Processes {
    /// Takes note of a process and of its owner.
    pub fn add(&mut self, pid: Pid, owner: Owner) -> usize {
        self.last += 1;
        let process = self.last;
        self.all.insert(
            process,
            Process {
                pid,
                owner,
                reaped: false,
                stopping: None,
            },
        );
        self.by_pid.insert(pid.as_raw(), process);
        process
    }

    /// A process changes hands.
    pub fn set_owner(&mut self, process: usize, owner: Owner) {
        if let Some(entry) = self.all.get_mut(&process) {
            entry.owner = owner;
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The input of a process has been closed: it is to go. A [`Due::Process`] tells when force is due.
    pub fn stop(&mut self, process: usize, now: Time, timers: &mut Timers<Due>) {
        let Some(entry) = self.all.get_mut(&process) else {
            return;
        };
        if entry.stopping.is_none() {
            let ladder = Escalation::new(now);
            let timer = set_timer(&ladder, process, timers);
            entry.stopping = Some(Box::new(Stopping { ladder, timer }));
        }
    }

    /// Uses force, as it is due.
    pub fn escalate(&mut self, process: usize, now: Time, timers: &mut Timers<Due>) {
        let Some(entry) = self.all.get_mut(&process) else {
            return;
        };
        let Some(Stopping { ladder, timer }) = entry.stopping.as_deref_mut() else {
            return;
        };
        let rung = ladder.escalate(now);
        *timer = set_timer(ladder, process, timers);
        let signal = match rung {
            Some(Step::Terminate) => Signal::SIGTERM,
            Some(Step::Kill) => Signal::SIGKILL,
            Some(Step::Abandon) => {
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
        for process in self.all.values() {
            let _ = killpg(process.pid, Signal::SIGKILL);
        }
    }

    /// Reaps all that have ended, orphans of servers included. Returns the servers among them. What is left of the
    /// group of one is stopped.
    pub fn reap(&mut self, now: Time, timers: &mut Timers<Due>) -> Vec<Ended> {
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
    fn forget_empty_groups(&mut self, timers: &mut Timers<Due>) {
        let all = &mut self.all;
        self.remnants.retain(|index| {
            let Some(process) = all.get(index) else {
                return false;
            };
            let is_over = process
                .stopping
                .as_ref()
                .is_some_and(|stopping| stopping.ladder.deadline().is_none());
            // Members that changed their user can't be signalled, and dead ones whose parent does not reap them are
            // members still.
            let left = !is_over && matches!(killpg(process.pid, None), Ok(()) | Err(Errno::EPERM));
            if !left {
                let stopping = all.remove(index).and_then(|process| process.stopping);
                if let Some(timer) = stopping.and_then(|stopping| stopping.timer) {
                    timers.cancel(timer);
                }
            }
            left
        });
    }

    fn reaped(&mut self, pid: Pid, exit: Exit) -> Option<Ended> {
        let process = self.by_pid.remove(&pid.as_raw())?;
        let entry = self.all.get_mut(&process)?;
        entry.reaped = true;
        self.remnants.push(process);
        Some(Ended {
            process,
            owner: entry.owner,
            exit,
        })
    }

    fn find_reaped(&mut self) -> Vec<Ended> {
        let gone: Vec<Pid> = self
            .all
            .values()
            .filter(|process| !process.reaped && kill(process.pid, None) == Err(Errno::ESRCH))
            .map(|process| process.pid)
            .collect();
        gone.into_iter()
            .filter_map(|pid| self.reaped(pid, Exit::Unknown))
            .collect()
    }
}

fn set_timer(ladder: &Escalation, process: usize, timers: &mut Timers<Due>) -> Option<TimerId> {
    ladder
        .deadline()
        .map(|at| timers.set(at, Due::Process(process)))
}
