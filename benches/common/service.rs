//! A program that listens. Its port is found in `/proc`, because not every contender can be asked for it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::end_to_end::processes;

/// How long a program may take to be ready: an interpreter has to load its modules.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to end after a SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A program that listens at 127.0.0.1. Dropping this ends it, with everything that it has started.
pub(crate) struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts it without stdin, stdout and stderr, and waits until it listens.
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let command = command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {command:?}: {error}"))?;
        let mut service = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let start = Instant::now();
        loop {
            if let Some(&port) = processes::listening_ports(service.pid()).first() {
                service.address.set_port(port);
                return Ok(service);
            }
            if let Ok(Some(status)) = service.child.try_wait() {
                return Err(format!("{command:?} ended at once: {status}"));
            }
            if start.elapsed() > START_LIMIT {
                return Err(format!("{command:?} does not listen"));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let below = processes::descendants(self.pid());
        processes::send_signal(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < END_LIMIT {
            thread::sleep(POLL_INTERVAL);
        }
        // Fails only if it has ended after all.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in below {
            // A pid that was given away meanwhile belongs to somebody else.
            if processes::Process::find(process.pid).is_some_and(|now| now.name == process.name) {
                processes::send_signal(process.pid, Signal::SIGKILL);
            }
        }
    }
}
