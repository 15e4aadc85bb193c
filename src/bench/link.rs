//! What one session is made of below its lines: a connection that is made step by step, or the pipes of a process.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::Interest;
use mio::unix::pipe;
use nix::unistd::Pid;

use super::place::{Place, Way};
use super::run::{Channel, Due};
use crate::connect::{Tls, about_unix_socket};
use crate::process::Spawned;
use crate::reactor::Reactor;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::token::Target;
use crate::transport::connection::Connection;
use crate::transport::socket::Socket;

/// What is kept of the stderr of a process, in bytes: its last words.
const LAST_WORDS_BYTES: usize = 1024;

/// A session's descriptors.
pub(super) struct Link {
    stage: Stage,
    wire: Wire,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// This address is being tried.
    Connecting(usize),
    /// The TLS handshake is under way.
    Shaking,
    Up,
}

enum Wire {
    Socket(Io<Connection>),
    Process(Pipes),
}

struct Pipes {
    pid: Pid,
    stdin: Io<pipe::Sender>,
    stdout: Io<pipe::Receiver>,
    stderr: Io<pipe::Receiver>,
    last_words: Vec<u8>,
}

/// Why a link could not be opened.
pub(super) enum NotOpened {
    /// A unix socket has no room for one more connection now (unix(7), EAGAIN).
    Crowded,
    Failed(String),
}

/// What became of a step.
pub(super) enum Step {
    /// It goes on with the next event.
    Pending,
    /// The session can begin, or goes on.
    Up,
    Failed(String),
}

impl Link {
    /// Begins to connect, or starts a process.
    pub(super) fn open(
        place: &Place,
        key: usize,
        reactor: &mut Reactor<Channel, Due>,
    ) -> Result<Self, NotOpened> {
        match &place.way {
            Way::Tcp { addresses, .. } => {
                Self::try_from(addresses, 0, key, reactor).map_err(NotOpened::Failed)
            }
            Way::Unix(path) => {
                let socket = Socket::connect_unix(path);
                let io = socket.and_then(|socket| watch(socket, key, reactor));
                let io = io.map_err(|error| NotOpened::of_unix_socket(&error))?;
                Ok(Self {
                    stage: Stage::Connecting(0),
                    wire: Wire::Socket(io),
                })
            }
            Way::Process(spawner) => {
                let process = spawner.spawn(None).map_err(|error| {
                    NotOpened::Failed(format!("the server can't be started: {error}"))
                })?;
                let pipes = Pipes::watch(process, key, reactor)
                    .map_err(|error| NotOpened::Failed(error.to_string()))?;
                Ok(Self {
                    stage: Stage::Up,
                    wire: Wire::Process(pipes),
                })
            }
        }
    }

    /// Tries these addresses, from this one on.
    fn try_from(
        addresses: &[SocketAddr],
        first: usize,
        key: usize,
        reactor: &mut Reactor<Channel, Due>,
    ) -> Result<Self, String> {
        let mut failure = String::new();
        for (at, address) in addresses.iter().enumerate().skip(first) {
            let socket = Socket::connect(*address);
            match socket.and_then(|socket| watch(socket, key, reactor)) {
                Ok(io) => {
                    return Ok(Self {
                        stage: Stage::Connecting(at),
                        wire: Wire::Socket(io),
                    });
                }
                Err(error) => failure = format!("{address} can't be connected to: {error}"),
            }
        }
        Err(failure)
    }

    /// Latches what an event says, if it is about this link.
    pub(super) fn latch(&mut self, channel: Channel, token: mio::Token, readiness: Readiness) {
        match (&mut self.wire, channel) {
            (Wire::Socket(io), _) => io.latch(token, readiness),
            (Wire::Process(pipes), Channel::Input) => pipes.stdin.latch(token, readiness),
            (Wire::Process(pipes), Channel::Errors) => pipes.stderr.latch(token, readiness),
            (Wire::Process(pipes), _) => pipes.stdout.latch(token, readiness),
        };
    }

    /// Goes on with connecting, after an event.
    pub(super) fn advance(
        &mut self,
        place: &Place,
        key: usize,
        reactor: &mut Reactor<Channel, Due>,
    ) -> Step {
        let Wire::Socket(io) = &mut self.wire else {
            return Step::Up;
        };
        match self.stage {
            Stage::Up => Step::Up,
            Stage::Shaking => self.shake(),
            Stage::Connecting(at) => match io.source().socket().is_connected() {
                Ok(false) => Step::Pending,
                Ok(true) => self.connected(place),
                Err(error) => self.try_next(at, &error, place, key, reactor),
            },
        }
    }

    fn connected(&mut self, place: &Place) -> Step {
        let Way::Tcp { tls: Some(tls), .. } = &place.way else {
            self.stage = Stage::Up;
            return Step::Up;
        };
        self.begin_tls(tls)
    }

    fn begin_tls(&mut self, tls: &Tls) -> Step {
        let Wire::Socket(io) = &mut self.wire else {
            return Step::Up;
        };
        if let Err(error) = tls.begin(io.source_mut()) {
            return Step::Failed(error.to_string());
        }
        self.stage = Stage::Shaking;
        self.shake()
    }

    fn shake(&mut self) -> Step {
        let Wire::Socket(io) = &mut self.wire else {
            return Step::Up;
        };
        match io.source_mut().shake() {
            Ok(false) => Step::Pending,
            Ok(true) => {
                // What came with the end of the handshake is decrypted already.
                io.note_readable();
                io.expect_short_writes();
                self.stage = Stage::Up;
                Step::Up
            }
            Err(error) => Step::Failed(error.words_for_client()),
        }
    }

    fn try_next(
        &mut self,
        failed: usize,
        error: &io::Error,
        place: &Place,
        key: usize,
        reactor: &mut Reactor<Channel, Due>,
    ) -> Step {
        let addresses = match &place.way {
            Way::Tcp { addresses, .. } => &addresses[..],
            Way::Unix(_) | Way::Process(_) => &[],
        };
        let address = addresses.get(failed);
        let name = address.map_or_else(|| "it".to_owned(), ToString::to_string);
        match Self::try_from(addresses, failed + 1, key, reactor) {
            Ok(link) => {
                *self = link;
                Step::Pending
            }
            Err(next) if !next.is_empty() => Step::Failed(next),
            Err(_) => Step::Failed(format!("{name} can't be connected to: {error}")),
        }
    }

    /// The process, if it is one.
    pub(super) fn pid(&self) -> Option<Pid> {
        match &self.wire {
            Wire::Socket(_) => None,
            Wire::Process(pipes) => Some(pipes.pid),
        }
    }

    /// Whether a read may find something.
    pub(super) fn is_readable(&self) -> bool {
        match &self.wire {
            Wire::Socket(io) => io.is_readable(),
            Wire::Process(pipes) => pipes.stdout.is_readable(),
        }
    }

    /// Whether a write may take something.
    pub(super) fn is_writable(&self) -> bool {
        match &self.wire {
            Wire::Socket(io) => io.is_writable(),
            Wire::Process(pipes) => pipes.stdin.is_writable(),
        }
    }

    /// Whether lines can be sent and heard.
    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        match &mut self.wire {
            Wire::Socket(io) => {
                let input = io.read(buffer);
                if io.source().holds_input() {
                    io.note_readable();
                }
                input
            }
            Wire::Process(pipes) => pipes.stdout.read(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Socket(io) => io.write(bytes),
            Wire::Process(pipes) => pipes.stdin.write(bytes),
        }
    }

    /// Sends what TLS has left to be sent.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Socket(io) if io.source().unsent() > 0 && io.is_writable() => io.flush(),
            Wire::Socket(_) | Wire::Process(_) => Ok(()),
        }
    }

    /// Reads what a process says about itself.
    pub(super) fn drain_errors(&mut self, buffer: &mut [u8]) {
        if let Wire::Process(pipes) = &mut self.wire {
            pipes.drain_errors(buffer);
        }
    }

    /// Why a link has ended that has ended by itself.
    pub(super) fn end_words(&mut self, error: Option<&io::Error>, buffer: &mut [u8]) -> String {
        let mut words = match (&self.wire, error) {
            (Wire::Socket(_), None) => "the connection was closed".to_owned(),
            (Wire::Socket(_), Some(error)) => format!("the connection broke: {error}"),
            (Wire::Process(_), _) => "the server ended".to_owned(),
        };
        if let Wire::Process(pipes) = &mut self.wire {
            // The event that tells of its last words may not have come.
            pipes.stderr.assume_readable();
            pipes.drain_errors(buffer);
            if let Some(last) = pipes.last_line() {
                words.push_str("; it said: ");
                words.push_str(&last);
            }
        }
        words
    }

    /// Closes it. What is left is a process, if it was one: its input has ended.
    pub(super) fn close(self) -> Option<Pid> {
        match self.wire {
            Wire::Socket(mut io) => {
                io.source_mut().end();
                None
            }
            Wire::Process(pipes) => Some(pipes.pid),
        }
    }
}

impl NotOpened {
    fn of_unix_socket(error: &io::Error) -> Self {
        if error.kind() == ErrorKind::WouldBlock {
            Self::Crowded
        } else {
            Self::Failed(about_unix_socket(error))
        }
    }
}

fn watch(
    socket: Socket,
    key: usize,
    reactor: &mut Reactor<Channel, Due>,
) -> io::Result<Io<Connection>> {
    socket.configure()?;
    let target = Target {
        key,
        channel: Channel::Output,
    };
    let interest = Interest::READABLE | Interest::WRITABLE;
    reactor.register(Connection::from(socket), target, interest)
}

impl Pipes {
    fn watch(
        spawned: Spawned,
        key: usize,
        reactor: &mut Reactor<Channel, Due>,
    ) -> io::Result<Self> {
        let target = |channel| Target { key, channel };
        Ok(Self {
            pid: spawned.pid,
            stdin: reactor.register(spawned.stdin, target(Channel::Input), Interest::WRITABLE)?,
            stdout: reactor.register(
                spawned.stdout,
                target(Channel::Output),
                Interest::READABLE,
            )?,
            stderr: reactor.register(
                spawned.stderr,
                target(Channel::Errors),
                Interest::READABLE,
            )?,
            last_words: Vec::new(),
        })
    }

    fn drain_errors(&mut self, buffer: &mut [u8]) {
        while self.stderr.is_readable() {
            let Input::Bytes(count) = self.stderr.read(buffer) else {
                return;
            };
            self.last_words.extend_from_slice(&buffer[..count]);
            let surplus = self.last_words.len().saturating_sub(LAST_WORDS_BYTES);
            self.last_words.drain(..surplus);
        }
    }

    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.last_words);
        let last = text.lines().rfind(|line| !line.trim().is_empty())?;
        Some(last.trim().to_owned())
    }
}
