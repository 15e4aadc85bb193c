//! Simulated transports: what a session reads from and writes to, edge-triggered like the real ones.
//!
//! Bytes are there at once, but the loop learns of them by [`Inflow::notify`], as by an event. A write may take less than
//! it could. Of what the session writes nothing is kept but which lines have begun: the rest of a line that was taken in
//! part lies in the same buffer, so it is known whole with its first byte.

mod handles;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;

use mcp_tcp_proxy::reactor::io::Readiness;
use mio::Token;

pub use self::handles::{Output, Socket, Stdin};
use crate::rng::Rng;

/// What a pipe holds by default, in bytes (pipe(7)).
const ROOMY_BYTES: usize = 65_536;

/// Whose events are to be told of, and what they say.
pub type Events = Vec<(Token, Readiness)>;

/// A transport between a program and the loop.
pub type Shared<T> = Rc<RefCell<T>>;

pub fn shared<T>(inner: T) -> Shared<T> {
    Rc::new(RefCell::new(inner))
}

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
    end_told: bool,
    /// Bytes came, and no event has said so yet.
    has_news: bool,
    /// A read may return less than there is, as it does before urgent data, and events say so.
    in_pieces: bool,
    /// What events about it bear, while the loop has it.
    pub token: Option<Token>,
    rng: Rng,
}

impl Inflow {
    pub fn new(capacity: usize, mut rng: Rng) -> Self {
        Self {
            in_pieces: rng.percent(30),
            has_news: false,
            token: None,
            bytes: Vec::new(),
            head: 0,
            capacity,
            written: 0,
            read: 0,
            end: None,
            end_read: false,
            end_told: false,
            rng,
        }
    }

    /// It holds as much as a pipe does by default.
    pub fn make_roomy(&mut self) {
        self.capacity = ROOMY_BYTES;
    }

    /// Bytes that were not read.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub fn room(&self) -> usize {
        self.capacity - self.waiting()
    }

    /// Takes as much as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let taken = bytes.len().min(self.room());
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        self.has_news |= taken > 0;
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

    /// An event tells what there is, if that is new.
    pub fn notify(&mut self, events: &mut Events) {
        let Some(token) = self.token else { return };
        let mut says = Readiness::default();
        if self.end.is_some() && !std::mem::replace(&mut self.end_told, true) {
            says |= Readiness::READABLE | Readiness::READ_CLOSED;
            says |= Readiness::WRITE_CLOSED.if_so(self.end == Some(End::Reset));
        }
        says |= Readiness::READABLE.if_so(std::mem::take(&mut self.has_news));
        if says != Readiness::default() {
            says |= Readiness::IN_PIECES.if_so(self.in_pieces);
            events.push((token, says));
        }
    }

    /// What events have told is to be told again.
    fn forget_told(&mut self) {
        self.end_told = false;
        self.has_news |= self.waiting() > 0;
    }

    /// Whether a read would find something.
    pub fn has_something(&self) -> bool {
        self.waiting() > 0 || (self.end.is_some() && !self.end_read)
    }

    /// Whether the loop was told of bytes that it has not read.
    pub fn is_neglected(&self) -> bool {
        !self.has_news && self.waiting() > 0
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let waiting = self.waiting();
        if waiting == 0 {
            self.end_read |= self.end.is_some();
            return match self.end {
                None => Err(ErrorKind::WouldBlock.into()),
                Some(End::Closed) => Ok(0),
                Some(End::Reset) => Err(ErrorKind::ConnectionReset.into()),
            };
        }
        let mut count = waiting.min(buffer.len());
        if self.in_pieces && self.rng.percent(50) {
            count = self.rng.between(1, count);
        }
        buffer[..count].copy_from_slice(&self.bytes[self.head..self.head + count]);
        self.head += count;
        self.read += count as u64;
        Ok(count)
    }
}

/// A line whose first byte the session has written.
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
    /// What was taken and not consumed.
    waiting: VecDeque<u8>,
    /// Where what nobody has read begins, once the session has taken that back.
    pub unread_from: Option<u64>,
    /// What is still to come of the line that has begun.
    rest: Vec<u8>,
    /// Lines that have begun and were not checked yet.
    pub begun: Vec<Begun>,
    pub broken: Option<ErrorKind>,
    /// Whether an event told that it is broken.
    broken_told: bool,
    /// A write has taken less than there was, and no event has told of room since.
    is_blocked: bool,
    /// What events about it bear, while the loop has it.
    pub token: Option<Token>,
    pub short_writes: u64,
    rng: Rng,
}

impl Outflow {
    pub fn new(capacity: usize, rng: Rng) -> Self {
        Self {
            capacity,
            taken: 0,
            consumed: 0,
            waiting: VecDeque::new(),
            unread_from: None,
            rest: Vec::new(),
            begun: Vec::new(),
            broken: None,
            broken_told: false,
            is_blocked: false,
            token: None,
            short_writes: 0,
            rng,
        }
    }

    fn room(&self) -> usize {
        self.capacity - self.unconsumed() as usize
    }

    /// What the reader has not taken.
    pub fn unconsumed(&self) -> u64 {
        self.taken - self.consumed
    }

    /// Whether the session has stopped in the middle of a line.
    pub fn is_mid_line(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether the session waits for an event to go on.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The reader takes up to `most` bytes.
    pub fn consume(&mut self, most: usize) {
        drop(self.take(most));
    }

    /// The same, for one who looks at them.
    pub fn take(&mut self, most: usize) -> impl Iterator<Item = u8> + '_ {
        let count = most.min(self.waiting.len());
        self.consumed += count as u64;
        self.waiting.drain(..count)
    }

    /// Nobody reads any more.
    pub fn break_off(&mut self, how: ErrorKind) {
        self.broken.get_or_insert(how);
    }

    /// An event tells that there is room, or that nobody reads any more, if that is new.
    pub fn notify(&mut self, events: &mut Events) {
        let Some(token) = self.token else { return };
        let mut says = Readiness::default();
        if self.broken.is_some() && !std::mem::replace(&mut self.broken_told, true) {
            says |= Readiness::WRITABLE | Readiness::WRITE_CLOSED;
        }
        if self.is_blocked && self.room() > 0 {
            self.is_blocked = false;
            says |= Readiness::WRITABLE;
        }
        if says != Readiness::default() {
            events.push((token, says));
        }
    }

    /// What events have told is to be told again, and whether there is room.
    fn forget_told(&mut self) {
        self.broken_told = false;
        self.is_blocked = true;
    }

    /// Whether a write would take something.
    pub fn has_room(&self) -> bool {
        self.broken.is_none() && self.room() > 0
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Some(kind) = self.broken {
            return Err(Error::from(kind));
        }
        let mut count = bytes.len().min(self.room());
        if self.rng.percent(15) {
            count = self.rng.below(count + 1);
        }
        self.short_writes += u64::from(count < bytes.len());
        self.is_blocked = count < bytes.len();
        self.note(bytes, count);
        self.waiting.extend(&bytes[..count]);
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

/// A connection, or the stdin and the stdout of a server, with both directions. The loop may have closed either.
#[derive(Debug)]
pub struct Duplex {
    pub input: Inflow,
    pub output: Outflow,
    /// Whether the loop still holds its reading, and its writing end.
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

    /// Both directions hold as much as a pipe does by default, or more.
    pub fn make_roomy(&mut self) {
        self.input.capacity = self.input.capacity.max(ROOMY_BYTES);
        self.output.capacity = self.output.capacity.max(ROOMY_BYTES);
    }

    /// Events tell of whatever has happened.
    pub fn notify(&mut self, events: &mut Events) {
        self.input.notify(events);
        self.output.notify(events);
    }

    /// The other side breaks the connection.
    pub fn reset(&mut self) {
        self.input.end(End::Reset);
        self.output.break_off(ErrorKind::BrokenPipe);
    }
}
