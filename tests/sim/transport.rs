//! Simulated transports: what a session reads from and writes to, edge-triggered like the real ones.
//!
//! Bytes are there at once, but the session learns of them by [`Inflow::notify`], as by an event. A write may take
//! less than it could. Of what the session writes nothing is kept but which lines have begun: the rest of a line that
//! was taken in part lies in the same buffer, so it is known whole with its first byte.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};

use mcp_tcp_proxy::pump::Transport;
use mcp_tcp_proxy::reactor::io::Input;

use crate::rng::Rng;

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

/// Bytes for the session.
#[derive(Debug)]
pub struct Inflow {
    bytes: Vec<u8>,
    head: usize,
    capacity: usize,
    /// How many bytes were ever written, and how many of these were read.
    pub written: u64,
    pub read: u64,
    pub end: Option<End>,
    /// Whether the session has read the end.
    pub end_read: bool,
    /// Whether an event told of the end.
    pub end_told: bool,
    latched: bool,
    rng: Rng,
}

impl Inflow {
    pub fn new(capacity: usize, rng: Rng) -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            capacity,
            written: 0,
            read: 0,
            end: None,
            end_read: false,
            end_told: false,
            latched: false,
            rng,
        }
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Takes as much as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let taken = bytes.len().min(self.capacity - self.waiting());
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        taken
    }

    /// A reset takes with it what was not read.
    pub fn end(&mut self, end: End) {
        if self.end == Some(End::Reset) {
            return;
        }
        if end == End::Reset {
            self.head = self.bytes.len();
        }
        self.end = Some(end);
        self.end_told = false;
    }

    /// An event tells what there is. Returns whether there is anything new to tell.
    pub fn notify(&mut self) -> bool {
        let is_new =
            (!self.latched && self.waiting() > 0) || (self.end.is_some() && !self.end_told);
        self.end_told |= self.end.is_some();
        self.latched |= is_new;
        is_new
    }

    /// The next read looks, whether or not an event told of anything.
    pub fn assume_readable(&mut self) {
        self.latched = true;
    }

    pub fn is_readable(&self) -> bool {
        self.latched
    }

    /// Whether the session knows of bytes that it has not read.
    pub fn is_neglected(&self) -> bool {
        self.latched && self.waiting() > 0
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        let waiting = self.waiting();
        if waiting == 0 {
            self.latched = false;
            return match self.end {
                None => Input::Blocked,
                Some(End::Closed) => {
                    self.end_read = true;
                    Input::End
                }
                Some(End::Reset) => {
                    self.end_read = true;
                    Input::Broken(ErrorKind::ConnectionReset.into())
                }
            };
        }
        let mut count = waiting.min(buffer.len());
        if self.rng.percent(20) {
            count = self.rng.between(1, count);
        }
        buffer[..count].copy_from_slice(&self.bytes[self.head..self.head + count]);
        self.head += count;
        self.read += count as u64;
        // With all read the latch may be up still: then the next read finds nothing.
        self.latched = count < waiting || self.end.is_some() || self.rng.percent(10);
        Input::Bytes(count)
    }
}

/// A line of which the session has written the first byte.
#[derive(Debug)]
pub struct Begun {
    /// Without its line end.
    pub text: Vec<u8>,
    /// Where its line end is, counted in bytes from the first one that was ever written.
    pub end: u64,
}

/// Takes the first of what comes, if its last byte was read.
pub fn arrived<T>(coming: &mut VecDeque<(u64, T)>, read: u64) -> Option<(u64, T)> {
    coming.front().filter(|(end, _)| *end <= read)?;
    coming.pop_front()
}

/// Bytes from the session.
#[derive(Debug)]
pub struct Outflow {
    capacity: usize,
    pub taken: u64,
    pub consumed: u64,
    /// What is still to come of the line that has begun.
    rest: Vec<u8>,
    /// Lines that have begun and were not looked at.
    pub begun: Vec<Begun>,
    pub broken: Option<ErrorKind>,
    /// Whether an event told that it is broken.
    pub broken_told: bool,
    latched: bool,
    pub short_writes: u64,
    rng: Rng,
}

impl Outflow {
    pub fn new(capacity: usize, rng: Rng) -> Self {
        Self {
            capacity,
            taken: 0,
            consumed: 0,
            rest: Vec::new(),
            begun: Vec::new(),
            broken: None,
            broken_told: false,
            latched: true,
            short_writes: 0,
            rng,
        }
    }

    fn room(&self) -> usize {
        self.capacity - (self.taken - self.consumed) as usize
    }

    /// Whether the session has stopped in the middle of a line.
    pub fn is_mid_line(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The reader takes up to `most` bytes.
    pub fn consume(&mut self, most: usize) {
        self.consumed += (most as u64).min(self.taken - self.consumed);
    }

    /// Nobody reads any more.
    pub fn break_off(&mut self, how: ErrorKind) {
        self.broken.get_or_insert(how);
    }

    /// An event tells that there is room, or that nobody reads any more.
    pub fn notify(&mut self) -> bool {
        let is_new =
            (!self.latched && self.room() > 0) || (self.broken.is_some() && !self.broken_told);
        self.latched |= is_new;
        self.broken_told |= self.broken.is_some();
        is_new
    }

    pub fn is_writable(&self) -> bool {
        self.latched
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Some(kind) = self.broken {
            self.latched = false;
            return Err(Error::from(kind));
        }
        let mut count = bytes.len().min(self.room());
        if self.rng.percent(15) {
            count = self.rng.below(count + 1);
        }
        self.short_writes += u64::from(count < bytes.len());
        self.latched = count == bytes.len();
        self.note(bytes, count);
        self.taken += count as u64;
        Ok(count)
    }

    /// Notes the lines that begin in the first `count` bytes, and that those that have begun go on as they did.
    fn note(&mut self, bytes: &[u8], count: usize) {
        let mut at = 0;
        if !self.rest.is_empty() {
            assert!(
                bytes.starts_with(&self.rest),
                "a line that was written in part does not go on as it began"
            );
            at = count.min(self.rest.len());
            self.rest.drain(..at);
        }
        while at < count {
            let len =
                memchr::memchr(b'\n', &bytes[at..]).expect("what is written ends with a line end");
            let end = at + len + 1;
            self.begun.push(Begun {
                text: bytes[at..at + len].to_vec(),
                end: self.taken + end as u64,
            });
            if end > count {
                self.rest.extend_from_slice(&bytes[count..end]);
            }
            at = end;
        }
    }
}

/// A connection with both its directions. The session may have closed it.
#[derive(Debug)]
pub struct Duplex {
    pub input: Inflow,
    pub output: Outflow,
    /// Whether the session still holds its reading, and its writing end.
    pub reads: bool,
    pub writes: bool,
}

impl Duplex {
    pub fn new(capacity: usize, rng: &mut Rng) -> Self {
        Self {
            input: Inflow::new(capacity, rng.fork()),
            output: Outflow::new(capacity, rng.fork()),
            reads: true,
            writes: true,
        }
    }

    /// An event tells of whatever has happened.
    pub fn notify(&mut self) -> bool {
        let input = self.reads && self.input.notify();
        let output = self.writes && self.output.notify();
        input || output
    }

    /// The other side breaks the connection.
    pub fn reset(&mut self) {
        self.input.end(End::Reset);
        self.output.break_off(ErrorKind::BrokenPipe);
    }
}

impl Transport for Duplex {
    fn is_readable(&self) -> bool {
        self.reads && self.input.is_readable()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.input.read(buffer)
    }

    fn is_writable(&self) -> bool {
        self.writes && self.output.is_writable()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.output.write(bytes)
    }
}

/// Of a server's pipes the session closes those that have ended.
pub struct Pipes<'a>(pub Option<&'a mut Duplex>);

impl Transport for Pipes<'_> {
    fn is_readable(&self) -> bool {
        self.0.as_ref().is_some_and(|pipes| pipes.is_readable())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        let Some(pipes) = &mut self.0 else {
            return Input::Blocked;
        };
        let input = pipes.read(buffer);
        if matches!(input, Input::End | Input::Broken(_)) {
            pipes.reads = false;
        }
        input
    }

    fn is_writable(&self) -> bool {
        self.0.as_ref().is_some_and(|pipes| pipes.is_writable())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let Some(pipes) = &mut self.0 else {
            return Ok(0);
        };
        let taken = pipes.write(bytes);
        if taken.is_err() {
            pipes.writes = false;
        }
        taken
    }
}
