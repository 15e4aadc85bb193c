//! Signals as a descriptor.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that a write can raise. SIGXFSZ ends a program that writes past the limit of a file's size (setrlimit(2),
/// `RLIMIT_FSIZE`); SIGTTOU stops a background job that writes to a terminal which wants no such output (termios(3),
/// `TOSTOP`), and all its sessions with it. While they are blocked, the first write fails and the second one succeeds.
const WRITE_SIGNALS: [Signal; 2] = [Signal::SIGXFSZ, Signal::SIGTTOU];

/// Blocks the signals that a write can raise. For the time before [`Signals::register`], which blocks them too: the log
/// is written to from the start.
pub fn block_write_signals() -> io::Result<()> {
    let mask: SigSet = WRITE_SIGNALS.into_iter().collect();
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?)
}

/// The signals that the program acts on, and those that it must not be ended or stopped by.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

/// What has come since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Some child has ended. How many, a signal does not tell.
    pub child: bool,
    /// The program is to stop.
    pub stop: bool,
}

impl Signals {
    /// Blocks the signals, and takes them as events under `token` from now on.
    ///
    /// A SIGHUP that was ignored when the program was started (nohup(1)) stays so.
    pub fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut mask: SigSet = WRITE_SIGNALS.into_iter().collect();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        if !is_ignored(Signal::SIGHUP) {
            mask.add(Signal::SIGHUP);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let descriptor =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self { descriptor })
    }

    /// Takes all signals that wait.
    pub fn take(&mut self) -> Pending {
        let mut pending = Pending::default();
        while let Ok(Some(signal)) = self.descriptor.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => pending.child = true,
                Ok(signal) if WRITE_SIGNALS.contains(&signal) => {}
                _ => pending.stop = true,
            }
        }
        pending
    }
}

/// Whether this process was started with a signal ignored, as `proc_pid_status(5)` tells.
fn is_ignored(signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (signal as u32 - 1) & 1 == 1
}
