//! Signals read from a descriptor, and the state in which the parent left them.
//!
//! Blocked and ignored signals survive execve(2), so the program may start with any of them. The rule: only what is read
//! here is blocked; SIGCHLD is handled; any other signal that the parent ignores stays ignored, except SIGTERM.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log::{debug, info, warn};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::timers;
use crate::util::proc_text;
use crate::util::time::Time;

/// Signals that a write can raise. SIGXFSZ ends a program that writes past the limit of a file's size (setrlimit(2),
/// `RLIMIT_FSIZE`); SIGTTOU stops a background job that writes to a terminal which wants no such output (termios(3),
/// `TOSTOP`), and all its sessions with it. While they are blocked, the first write fails and the second one succeeds.
const WRITE_SIGNALS: [Signal; 2] = [Signal::SIGXFSZ, Signal::SIGTTOU];

/// Signals that make other programs reopen a log or reload a file. By default they would end this one at once, with its
/// servers left behind.
const USER_SIGNALS: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals that ask the program to stop. SIGTERM always does; the others unless the parent ignores them. SIGALRM comes
/// from wrappers that limit a program's time (alarms survive execve(2)), SIGXCPU when the limit of processor time is
/// reached (setrlimit(2)), and SIGPWR from container managers to the first process of a container.
const STOP_SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGALRM,
    Signal::SIGXCPU,
    Signal::SIGPWR,
];

/// Signals that stay ignored in servers if the parent ignores them: nohup(1) and the shell's `&` are about a whole job.
pub(crate) const KEPT_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// A stop signal this soon after the first is an echo of it: the terminal sends ^C to the whole foreground group, and
/// wrappers such as npx(1) forward theirs on top.
const ECHO_TIME: Duration = Duration::from_millis(500);

/// Undoes what the parent did to signals. To be called before any thread or process is started.
///
/// Without this, a parent that ignores SIGCHLD has the kernel reap all our children, and waitpid(2) knows of none.
pub fn reset_inherited() -> io::Result<()> {
    // Any handler replaces SIG_IGN; there is no safe way to ask for SIG_DFL. It hardly ever runs, as the signal is
    // blocked from `Signals::register` on, and execve(2) resets it.
    signal_hook::flag::register(Signal::SIGCHLD as i32, Arc::new(AtomicBool::new(false)))?;
    let mask: SigSet = WRITE_SIGNALS.into_iter().chain(USER_SIGNALS).collect();
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?)
}

/// Blocks the signals that a write can raise. For the time before [`Signals::register`], which blocks them too: the log
/// is written to from the start.
pub fn block_write_signals() -> io::Result<()> {
    let mask: SigSet = WRITE_SIGNALS.into_iter().collect();
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?)
}

/// Lets stop signals end the program from now on, those too that have come and were not taken.
pub fn release() -> io::Result<()> {
    let mask: SigSet = STOP_SIGNALS.into_iter().collect();
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask), None)?)
}

/// The signals that the program acts on, and those that it must not be ended or stopped by.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    requests: StopRequests,
    /// Whether SIGHUP does not ask the program to stop.
    has_files: bool,
    /// Whether SIGUSR2 asks for another program.
    upgrades: bool,
    /// Whether SIGUSR1 asks for new servers.
    has_servers: bool,
}

/// What has come since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "signals have nothing to do with each other"
)]
pub struct Pending {
    /// Some child has ended. How many, a signal does not tell.
    pub child: bool,
    /// The program is to stop, or, if that is under way, to do so at once.
    pub stop: bool,
    /// Files are to be read again.
    pub hangup: bool,
    /// Another program is to go on in this process.
    pub upgrade: bool,
    /// New servers are to take the places of those that there are.
    pub swap: bool,
}

impl Signals {
    /// Blocks the signals, and takes them as events under `token` from now on. Those that were ignored when the program
    /// was started stay so.
    pub fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        let ignored = Ignored::read();
        let mut mask: SigSet = WRITE_SIGNALS.into_iter().collect();
        mask.add(Signal::SIGCHLD);
        for signal in STOP_SIGNALS.into_iter().chain(USER_SIGNALS) {
            if signal == Signal::SIGTERM || !ignored.contains(signal) {
                mask.add(signal);
            }
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let descriptor =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            descriptor,
            requests: StopRequests::default(),
            has_files: false,
            upgrades: false,
            has_servers: false,
        })
    }

    /// From now on, SIGHUP asks for files to be read again.
    pub fn reload_on_hangup(&mut self) {
        self.has_files = true;
    }

    /// Whether it does.
    pub fn reloads_on_hangup(&self) -> bool {
        self.has_files
    }

    /// From now on, SIGUSR1 asks for new servers.
    pub fn swap_on_user_signal(&mut self) {
        self.has_servers = true;
    }

    /// From now on, SIGUSR2 asks for another program to go on in this process.
    pub fn upgrade_on_request(&mut self) {
        self.upgrades = true;
    }

    /// Takes all signals that wait.
    pub fn take(&mut self) -> Pending {
        let mut pending = Pending::default();
        while let Ok(Some(signal)) = self.descriptor.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => pending.child = true,
                Ok(signal) if WRITE_SIGNALS.contains(&signal) => {}
                Ok(Signal::SIGUSR2) if self.upgrades => pending.upgrade = true,
                Ok(Signal::SIGUSR1) if self.has_servers => pending.swap = true,
                Ok(signal) if USER_SIGNALS.contains(&signal) => {
                    info!("{signal} is ignored; SIGTERM stops the program");
                }
                Ok(Signal::SIGHUP) if self.has_files => pending.hangup = true,
                Ok(signal) => pending.stop |= self.requests.admit(signal, timers::now()),
                Err(_) => {}
            }
        }
        pending
    }
}

/// Tells a second stop signal from an echo of the first.
#[derive(Debug, Default)]
struct StopRequests {
    first: Option<Time>,
}

impl StopRequests {
    fn admit(&mut self, signal: Signal, now: Time) -> bool {
        let Some(first) = self.first else {
            info!("{signal}: stopping; another signal (^C) forces the end");
            self.first = Some(now);
            return true;
        };
        let is_another = now.saturating_since(first) >= ECHO_TIME;
        if !is_another {
            debug!("{signal} is ignored, as it came right after the first signal");
        }
        is_another
    }
}

/// The signals that this process ignores, as `proc_pid_status(5)` tells.
struct Ignored(u64);

impl Ignored {
    /// None, where there is no `/proc`.
    fn read() -> Self {
        const STATUS: &str = "/proc/self/status";
        let status = proc_text::read(STATUS).unwrap_or_else(|error| {
            warn!("{STATUS}: {error}; SIGHUP stops the program, even under nohup");
            String::new()
        });
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or(0))
    }

    fn contains(&self, signal: Signal) -> bool {
        self.0 >> (signal as u32 - 1) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_right_after_the_first_is_its_echo() {
        let start = Time::from_nanos(1 << 40);
        let mut requests = StopRequests::default();
        let admitted: Vec<bool> = [0, 2, 499, 500, 501, 5000]
            .into_iter()
            .map(|millis| requests.admit(Signal::SIGINT, start + Duration::from_millis(millis)))
            .collect();
        assert_eq!(admitted, [true, false, false, true, true, true]);
    }
}
