//! Our own stdin and stdout, as the two halves of the session's client.

use std::io::{self, ErrorKind};

use mio::{Interest, Token};

use super::{Channel, Due};
use crate::pump::Transport;
use crate::reactor::Reactor;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::stdio::Stdio;
use crate::reactor::token::Target;
use crate::session::{Context, Event, Session};

/// The program that started this one.
#[derive(Debug)]
pub(super) struct StdioPair {
    input: Io<Stdio>,
    output: Io<Stdio>,
}

impl StdioPair {
    /// Has both watched.
    pub(super) fn register(
        input: Stdio,
        output: Stdio,
        reactor: &mut Reactor<Channel, Due>,
    ) -> io::Result<Self> {
        let mut input = register(reactor, input, Channel::Stdin, Interest::READABLE)?;
        if input.source().reads_in_pieces() {
            input.assume_readable();
        }
        let output = register(reactor, output, Channel::Stdout, Interest::WRITABLE)?;
        Ok(Self { input, output })
    }

    /// Latches what an event says of stdin. Returns whether it was about it.
    pub(super) fn latch_input(&mut self, token: Token, readiness: Readiness) -> bool {
        self.input.latch(token, readiness)
    }

    /// Latches what an event says of stdout. Returns whether it was about it.
    pub(super) fn latch_output(&mut self, token: Token, readiness: Readiness) -> bool {
        self.output.latch(token, readiness)
    }

    /// Tells the session what events say although nothing is read or written at the moment.
    pub(super) fn notice_failures(&self, session: &mut Session, cx: &mut Context<'_>) {
        if self.output.is_write_closed() {
            session.handle(Event::ClientFailed(&ErrorKind::BrokenPipe.into()), cx);
        }
        if self.input.is_read_closed() {
            session.handle(Event::ClientHup, cx);
        }
    }
}

fn register(
    reactor: &mut Reactor<Channel, Due>,
    stdio: Stdio,
    channel: Channel,
    interest: Interest,
) -> io::Result<Io<Stdio>> {
    reactor.register(stdio, Target { key: 0, channel }, interest)
}

impl Transport for StdioPair {
    fn is_readable(&self) -> bool {
        self.input.is_readable()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.input.read(buffer)
    }

    fn is_writable(&self) -> bool {
        self.output.is_writable() || self.output.source().is_always_ready()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }
}
