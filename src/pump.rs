//! Moves bytes between the two sides of a session and its state machine, within a budget.
//!
//! What a side is made of, one descriptor or several, is the business of whoever owns it.

use std::io::{Read, Write};

use mio::event::Source;

use crate::reactor::io::{Input, Io};
use crate::session::{Context, Event, Session};

/// What is read at once, in bytes: as much as a pipe holds by default (pipe(7)).
pub const READ_BYTES: usize = 64 * 1024;

/// What is read at once of a line that is longer than that, in bytes. It has to be kept whatever it is read by.
const LONG_READ_BYTES: usize = 512 * 1024;

/// What a buffer to read to has to hold, in bytes.
pub const SCRATCH_BYTES: usize = LONG_READ_BYTES;

/// Reads of each direction in one turn, so that a busy session does not delay the others.
pub const READS_PER_TURN: usize = 2;

/// One side of a session: what can be read from it, and written to it.
pub trait Transport {
    /// Whether a read may find something.
    fn is_readable(&self) -> bool;

    /// Reads once. Call it only if [`Self::is_readable`].
    fn read(&mut self, buffer: &mut [u8]) -> Input;

    /// Whether a write may take something.
    fn is_writable(&self) -> bool;

    /// Writes once. Returns how much was taken, which is nothing if there was no room.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize>;
}

/// A connection, if there is one.
impl<S: Source + Read + Write> Transport for Option<Io<S>> {
    fn is_readable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.as_mut()
            .map_or(Input::Blocked, |endpoint| endpoint.read(buffer))
    }

    fn is_writable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_writable)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.as_mut()
            .map_or(Ok(0), |endpoint| endpoint.write(bytes))
    }
}

/// A session between its two sides, for the time of a turn.
pub struct Pump<'a, C, U> {
    /// The state machine.
    pub session: &'a mut Session,
    /// The client's side.
    pub client: &'a mut C,
    /// The upstream's side.
    pub upstream: &'a mut U,
}

impl<C: Transport, U: Transport> Pump<'_, C, U> {
    /// Moves what can be moved now, within the budget. `scratch` is where bytes are read to.
    pub fn run(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) {
        self.flush(cx);
        for _ in 0..READS_PER_TURN {
            let read_upstream = self.read_upstream(scratch, cx);
            let read_client = self.read_client(scratch, cx);
            if !read_upstream && !read_client {
                break;
            }
        }
        self.flush(cx);
    }

    /// Whether there is more to be moved although no event will tell.
    pub fn is_ready(&self, cx: &Context<'_>) -> bool {
        (self.client.is_readable() && self.session.wants_client_input())
            || (self.upstream.is_readable() && self.session.wants_upstream_output(cx.memory))
            || (self.client.is_writable() && !self.session.to_client().is_empty())
            || (self.upstream.is_writable() && !self.session.to_upstream().is_empty())
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        self.flush_upstream(cx);
        self.flush_client(cx);
    }

    fn flush_client(&mut self, cx: &mut Context<'_>) {
        if !self.client.is_writable() || self.session.to_client().is_empty() {
            return;
        }
        match self.client.write(self.session.to_client()) {
            Ok(0) => {}
            Ok(count) => self.session.handle(Event::ClientWritten(count), cx),
            Err(error) => self.session.handle(Event::ClientFailed(&error), cx),
        }
    }

    fn flush_upstream(&mut self, cx: &mut Context<'_>) {
        if !self.upstream.is_writable() || self.session.to_upstream().is_empty() {
            return;
        }
        match self.upstream.write(self.session.to_upstream()) {
            Ok(0) => {}
            Ok(count) => self.session.handle(Event::UpstreamWritten(count), cx),
            Err(_) => self.session.handle(Event::UpstreamInputBroke, cx),
        }
    }

    /// Returns whether more may be there.
    fn read_upstream(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> bool {
        if !self.upstream.is_readable() || !self.session.wants_upstream_output(cx.memory) {
            return false;
        }
        let size = read_bytes(self.session.is_within_long_line_of_upstream());
        match self.upstream.read(&mut scratch[..size]) {
            Input::Bytes(count) => self
                .session
                .handle(Event::UpstreamBytes(&scratch[..count]), cx),
            Input::End => self.session.handle(Event::UpstreamEof(None), cx),
            Input::Broken(error) => self.session.handle(Event::UpstreamEof(Some(&error)), cx),
            Input::Blocked => return false,
        }
        self.flush_client(cx);
        true
    }

    /// Returns whether more may be there.
    fn read_client(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) -> bool {
        if !self.client.is_readable() || !self.session.wants_client_input() {
            return false;
        }
        let size = read_bytes(self.session.is_within_long_line_of_client());
        match self.client.read(&mut scratch[..size]) {
            Input::Bytes(count) => self
                .session
                .handle(Event::ClientBytes(&scratch[..count]), cx),
            Input::End => self.session.handle(Event::ClientEof, cx),
            Input::Broken(error) => self.session.handle(Event::ClientFailed(&error), cx),
            Input::Blocked => return false,
        }
        self.flush(cx);
        true
    }
}

fn read_bytes(is_within_long_line: bool) -> usize {
    if is_within_long_line {
        LONG_READ_BYTES
    } else {
        READ_BYTES
    }
}
