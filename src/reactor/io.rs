//! A descriptor and what is known of its readiness.
//!
//! Events are edge-triggered: readiness is latched here until an operation shows that it is used up. Whether to use
//! it is the caller's business, so pausing a direction is nothing but not reading.

use std::io::{self, ErrorKind, Read, Write};

use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};

/// A registered descriptor.
#[derive(Debug)]
pub struct Io<S> {
    source: S,
    token: Token,
    readable: bool,
    writable: bool,
    /// An end or an error waits behind the data. It came with the data as one edge, and no other follows, so a short
    /// read does not mean that there is nothing more.
    read_closed: bool,
    failed: bool,
    /// A short read does not mean that there is nothing more.
    reads_in_pieces: bool,
}

/// What came of a read.
#[derive(Debug)]
pub enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Blocked,
    /// The end.
    End,
    /// It broke.
    Broken(io::Error),
}

impl<S: Source> Io<S> {
    /// Registers a descriptor. It is taken to be writable until a write shows that it is not.
    pub fn register(
        mut source: S,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<Self> {
        registry.register(&mut source, token, interest)?;
        let writable = interest.is_writable();
        Ok(Self {
            source,
            token,
            readable: false,
            writable,
            read_closed: false,
            failed: false,
            reads_in_pieces: false,
        })
    }

    /// Registers the descriptor anew, so that events bear this token. What is ready already is told once more.
    pub fn register_anew(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(&mut self.source, token, interest)?;
        self.token = token;
        Ok(())
    }
}

impl<S> Io<S> {
    /// Latches what an event says, if it is about this descriptor and not about one that was here before.
    pub fn latch(&mut self, event: &Event) -> bool {
        if event.token() != self.token {
            return false;
        }
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        self.read_closed |= event.is_read_closed() || event.is_error();
        self.failed |= event.is_error() || event.is_write_closed();
        // A read stops at urgent data, and nothing tells of what is behind it (tcp(7), "Out-of-band data").
        self.reads_in_pieces |= event.is_priority();
        true
    }

    /// Lets the next read look, although no event told of anything, and does not take a short read for the last one.
    pub fn assume_readable(&mut self) {
        self.readable = true;
        self.reads_in_pieces = true;
    }

    /// An operation on the descriptor itself has shown that there is nothing to be had now.
    pub fn clear_readable(&mut self) {
        self.readable = false;
    }

    /// Whether a read may find something.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether a write may take something.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether the other side has ended its direction.
    pub fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// Whether an error was reported, or that nobody reads what is written.
    pub fn is_write_closed(&self) -> bool {
        self.failed
    }

    /// The descriptor itself.
    pub fn source(&self) -> &S {
        &self.source
    }
}

impl<S: Read> Io<S> {
    /// Reads once. A short read leaves nothing behind (epoll(7)), unless the end was announced.
    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            match self.source.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    return Input::End;
                }
                Ok(count) => {
                    self.readable =
                        count == buffer.len() || self.read_closed || self.reads_in_pieces;
                    return Input::Bytes(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Input::Blocked;
                }
                Err(error) => {
                    self.readable = false;
                    return Input::Broken(error);
                }
            }
        }
    }
}

impl<S: Write> Io<S> {
    /// Writes once. Returns how much was taken, which is nothing if there was no room.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.source.write(bytes) {
                Ok(count) => {
                    self.writable = count == bytes.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) => {
                    self.writable = false;
                    return Err(error);
                }
            }
        }
    }
}
