//! One server process: our ends of its pipes, how it ended, and how far it was urged to go.

mod state;

use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub(super) use self::state::ServerState;
use super::pipe_widener::PipeWidener;
use super::system::{Linux, System};
use super::unread::Unread;
use super::{Channel, Due};
use crate::process::escalation::Escalation;
use crate::pump::{READ_BYTES, READS_PER_RUN, Transport};
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::timers::Deadline;
use crate::scheduler::SessionKey;
use crate::session::report::Exit;
use crate::share::ProcessKey;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// What the loop watches with.
pub(super) type Reactor<S> = crate::reactor::Reactor<Channel, Due, <S as System>::Poller>;

/// A server process and its pipes. A pipe that has ended is closed.
pub struct Server<S: System> {
    pub(super) pid: Pid,
    /// What it is a server of.
    pub(super) service: ServiceKey,
    /// What it is used by. A server without a user is a spare, or on its way out.
    pub(super) user: Option<User>,
    pub(super) life: Life,
    /// It was reaped, and its user has not been told.
    pub(super) exit: Option<Box<Exit>>,
    /// It is to go. Few are at any time.
    pub(super) stopping: Option<Box<Stopping>>,
    /// When it was started, until it writes something to its stdout.
    pub(super) unheard_since: Option<Time>,
    pub(super) stdin: Option<Io<S::Stdin>>,
    pub(super) stdout: Option<Io<S::Output>>,
    pub(super) stderr: Option<Io<S::Output>>,
    stdin_widener: PipeWidener,
    stdout_widener: PipeWidener,
}

/// What a server is used by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum User {
    /// It serves this session.
    Session(SessionKey),
    /// It serves many, as this one of the processes that are shared.
    Share(ProcessKey),
}

/// What is left of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It was not reaped.
    Running,
    /// It was, and of its group there may be more.
    Reaped,
    /// Nothing, or nothing that any signal can end.
    Gone,
}

/// The end of its input, and force when that is due.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) escalation: Escalation,
    pub(super) deadline: Deadline,
}

/// There are thousands. A release build needs less.
const _: () = assert!(size_of::<Server<Linux>>() <= 160);

impl<S: System> Server<S> {
    /// A process, without its pipes.
    pub(super) fn new(service: ServiceKey, pid: Pid) -> Self {
        Self {
            pid,
            service,
            user: None,
            life: Life::Running,
            exit: None,
            stopping: None,
            unheard_since: None,
            stdin: None,
            stdout: None,
            stderr: None,
            stdin_widener: PipeWidener::default(),
            stdout_widener: PipeWidener::default(),
        }
    }

    /// The number of the process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The session that it serves, if it serves one alone.
    pub fn user(&self) -> Option<SessionKey> {
        match self.user {
            Some(User::Session(session)) => Some(session),
            Some(User::Share(_)) | None => None,
        }
    }

    /// What is left of the process.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Latches what an event says of a pipe. Returns whether it was about one that is here.
    pub(super) fn latch(
        &mut self,
        channel: Channel,
        token: mio::Token,
        readiness: Readiness,
    ) -> bool {
        let output = match channel {
            Channel::Stdin => {
                let stdin = self.stdin.as_mut();
                return stdin.is_some_and(|stdin| stdin.latch(token, readiness));
            }
            Channel::Stdout => self.stdout.as_mut(),
            _ => self.stderr.as_mut(),
        };
        output.is_some_and(|output| output.latch(token, readiness))
    }

    /// It has ended. All that it had written is in its pipes, whether or not an event has told of it.
    pub(super) fn reaped(&mut self, exit: Exit) {
        self.life = Life::Reaped;
        self.exit = Some(Box::new(exit));
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.assume_readable();
        }
    }

    /// Closes our ends of its pipes.
    pub(super) fn close(&mut self) {
        self.stdin = None;
        self.stdout = None;
        self.stderr = None;
    }

    /// Whether nobody reads what it is sent, or it writes nothing more.
    pub(super) fn is_useless(&self) -> bool {
        let is_open = self.stdin.is_some() && self.stdout.is_some();
        !is_open || self.is_deaf() || self.stdout.as_ref().is_some_and(Io::is_read_closed)
    }

    /// Whether nobody reads what is written to it, and that is not known yet.
    pub(super) fn is_deaf(&self) -> bool {
        self.stdin.as_ref().is_some_and(Io::is_write_closed)
    }

    /// Once nobody reads its input any more, closes our end, and takes what nobody has read of it. Only one that has
    /// exited is examined for that, or one of which an event has told it.
    pub(super) fn take_left_unread(&mut self) -> Option<Vec<u8>> {
        let is_told = self.is_deaf();
        if !is_told && self.exit.is_none() {
            return None;
        }
        let unread = self.stdin.as_ref()?.source().take_unread();
        if unread.is_none() && !is_told {
            return None;
        }
        self.stdin = None;
        Some(unread.unwrap_or_default())
    }

    /// Whether it has yet to read some of what it was sent.
    pub(super) fn has_unread_input(&self) -> bool {
        let stdin = self.stdin.as_ref();
        stdin.is_some_and(|stdin| stdin.source().has_unread())
    }

    /// Whether there is anything to be told of it but what it says on stdout.
    pub(super) fn has_news(&self) -> bool {
        self.exit.is_some() || self.is_deaf() || self.has_stderr()
    }

    /// Whether there may be something to read on its stderr.
    pub(super) fn has_stderr(&self) -> bool {
        self.stderr.as_ref().is_some_and(Io::is_readable)
    }

    /// Hands out what it has written to stderr, within a budget.
    pub(super) fn read_stderr(&mut self, scratch: &mut [u8], mut take: impl FnMut(&[u8])) {
        for _ in 0..READS_PER_RUN {
            let Some(stderr) = self.stderr.as_mut().filter(|stderr| stderr.is_readable()) else {
                return;
            };
            match stderr.read(&mut scratch[..READ_BYTES]) {
                Input::Bytes(count) => take(&scratch[..count]),
                Input::End | Input::Broken(_) => self.stderr = None,
                Input::Blocked => return,
            }
        }
    }
}

/// The stdout and the stdin of a server.
impl<S: System> Transport for Server<S> {
    fn is_readable(&self) -> bool {
        self.stdout.as_ref().is_some_and(Io::is_readable)
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> Input {
        let Some(stdout) = &mut self.stdout else {
            return Input::Blocked;
        };
        let input = stdout.read(buffer);
        match &input {
            Input::Bytes(count) => {
                let wanted = buffer.len();
                let widener = &mut self.stdout_widener;
                widener.was_read(*count, wanted, stdout.source());
            }
            Input::End | Input::Broken(_) => self.stdout = None,
            Input::Blocked => {}
        }
        input
    }

    fn is_writable(&self) -> bool {
        self.stdin.as_ref().is_some_and(Io::is_writable)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(0);
        };
        let taken = stdin.write(bytes);
        if let Ok(count) = &taken {
            let widener = &mut self.stdin_widener;
            widener.was_left(bytes.len() - count, stdin.source());
        }
        taken
    }

    fn take_unread(&mut self) -> Option<Vec<u8>> {
        self.stdin.take()?.source().take_unread()
    }
}

/// What stands in a server's place while there is none.
pub(super) struct NoServer;

impl Transport for NoServer {
    fn is_readable(&self) -> bool {
        false
    }

    fn read(&mut self, _: &mut [u8]) -> Input {
        Input::Blocked
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use mio::unix::pipe;
    use mio::{Interest, Token};

    use super::*;

    #[test]
    fn a_server_with_one_pipe_alone_is_useless() {
        for (has_stdin, has_stdout) in [(true, true), (true, false), (false, true), (false, false)]
        {
            let (sender, receiver) = pipe::new().unwrap();
            let mut server = Server::<Linux>::new(ServiceKey::ONLY, Pid::from_raw(1));
            server.stdin = has_stdin.then(|| Io::new(sender, Token(0), Interest::WRITABLE));
            server.stdout = has_stdout.then(|| Io::new(receiver, Token(1), Interest::READABLE));
            assert_eq!(server.is_useless(), !(has_stdin && has_stdout));
        }
    }
}
