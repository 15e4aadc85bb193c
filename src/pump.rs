//! Moves bytes between the two sides of a session and its state machine, within a budget.
//!
//! What a side is made of, one descriptor or several, is the business of whoever owns it.

use std::io::{self, Read, Write};

use crate::buffers::budget::BufferBudget;
use crate::reactor::io::{Input, Io};
use crate::session::{Context, Event, Session};

/// What is read at once, in bytes: as much as a pipe holds by default (pipe(7)).
pub const READ_BYTES: usize = 64 * 1024;

/// What is read at once of a line that is longer than that, in bytes: as much as a pipe holds that was widened for such
/// lines. It has to be kept in whatever pieces it is read.
const LONG_READ_BYTES: usize = 512 * 1024;

/// What a buffer to read to has to hold, in bytes.
pub const SCRATCH_BYTES: usize = LONG_READ_BYTES;

/// Reads of each direction in one run, so that a busy session does not delay the others: the second one finds what came
/// while the first was passed on.
pub const READS_PER_RUN: usize = 2;

/// One side of a session: what can be read from it, and written to it.
pub trait Transport {
    /// Whether a read may find something.
    fn is_readable(&self) -> bool;

    /// Reads once. Call it only if [`Self::is_readable`].
    fn read(&mut self, buffer: &mut [u8]) -> Input;

    /// Whether a write may take something.
    fn is_writable(&self) -> bool;

    /// Writes once. Returns how much was taken, which is nothing if there was no room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// A connection, if there is one.
impl<S: Read + Write> Transport for Option<Io<S>> {
    fn is_readable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.as_mut().map_or(Input::Blocked, |io| io.read(buffer))
    }

    fn is_writable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_writable)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.as_mut().map_or(Ok(0), |io| io.write(bytes))
    }
}

/// Moves what can be moved now between a session and its two sides, within a budget. `scratch` is where bytes are read to.
/// Returns whether there is more to be moved although no event will tell.
pub fn pump(
    session: &mut Session,
    client: &mut impl Transport,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    flush_upstream(session, upstream, cx);
    flush_client(session, client, cx);
    for _ in 0..READS_PER_RUN {
        let from_upstream = read_upstream(session, upstream, scratch, cx);
        if from_upstream {
            flush_client(session, client, cx);
        }
        let from_client = read_client(session, client, scratch, cx);
        if from_client {
            flush_upstream(session, upstream, cx);
            flush_client(session, client, cx);
        }
        if !from_upstream && !from_client {
            break;
        }
    }
    flush_upstream(session, upstream, cx);
    flush_client(session, client, cx);
    has_more(session, client, upstream, cx.memory)
}

/// Whether something can be moved now.
pub fn has_more(
    session: &Session,
    client: &impl Transport,
    upstream: &impl Transport,
    memory: &BufferBudget,
) -> bool {
    (client.is_readable() && session.wants_client_input())
        || (upstream.is_readable() && session.wants_upstream_output(memory))
        || (client.is_writable() && !session.to_client().is_empty())
        || (upstream.is_writable() && !session.to_upstream().is_empty())
}

fn flush_client(session: &mut Session, client: &mut impl Transport, cx: &mut Context<'_>) {
    if !client.is_writable() || session.to_client().is_empty() {
        return;
    }
    match client.write(session.to_client()) {
        Ok(0) => {}
        Ok(count) => session.handle(Event::ClientWritten(count), cx),
        Err(error) => session.handle(Event::ClientFailed(&error), cx),
    }
}

fn flush_upstream(session: &mut Session, upstream: &mut impl Transport, cx: &mut Context<'_>) {
    if !upstream.is_writable() || session.to_upstream().is_empty() {
        return;
    }
    match upstream.write(session.to_upstream()) {
        Ok(0) => {}
        Ok(count) => session.handle(Event::UpstreamWritten(count), cx),
        Err(_) => session.handle(Event::UpstreamInputBroke, cx),
    }
}

/// Returns whether it has read anything, an end included.
fn read_upstream(
    session: &mut Session,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    if !upstream.is_readable() || !session.wants_upstream_output(cx.memory) {
        return false;
    }
    let size = read_bytes(session.is_within_long_line_of_upstream());
    match upstream.read(&mut scratch[..size]) {
        Input::Bytes(count) => session.handle(Event::UpstreamBytes(&scratch[..count]), cx),
        Input::End => session.handle(Event::UpstreamEof(None), cx),
        Input::Broken(error) => session.handle(Event::UpstreamEof(Some(&error)), cx),
        Input::Blocked => return false,
    }
    true
}

/// Returns whether it has read anything, an end included.
fn read_client(
    session: &mut Session,
    client: &mut impl Transport,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    if !client.is_readable() || !session.wants_client_input() {
        return false;
    }
    let size = read_bytes(session.is_within_long_line_of_client());
    match client.read(&mut scratch[..size]) {
        Input::Bytes(count) => session.handle(Event::ClientBytes(&scratch[..count]), cx),
        Input::End => session.handle(Event::ClientEof, cx),
        Input::Broken(error) => session.handle(Event::ClientFailed(&error), cx),
        Input::Blocked => return false,
    }
    true
}

fn read_bytes(is_within_long_line: bool) -> usize {
    if is_within_long_line {
        LONG_READ_BYTES
    } else {
        READ_BYTES
    }
}
