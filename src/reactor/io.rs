//! A descriptor and what is known of its readiness.
//!
//! Events are edge-triggered: readiness is latched here until an operation shows that it is used up. Whether to use
//! it is the caller's business, so pausing a direction is nothing but not reading.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::ops::{BitOr, BitOrAssign};

use mio::event::Event;
use mio::{Interest, Token};
use serde::{Deserialize, Serialize};

/// What is known of a descriptor, or what an event says of it: a set of the constants below.
#[derive(Debug, Deserialize, Serialize, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// A read may find something.
    pub const READABLE: Self = Self(1);
    /// A write may take something.
    pub const WRITABLE: Self = Self(2);
    /// The other side has ended its direction, or broke the connection. That came with the data as one edge, and no other
    /// follows, so a short read does not mean that there is nothing more.
    pub const READ_CLOSED: Self = Self(4);
    /// An error was reported, or that nobody reads what is written.
    pub const WRITE_CLOSED: Self = Self(8);
    /// A short read does not mean that there is nothing more.
    pub const IN_PIECES: Self = Self(16);
    /// A short write does not mean that there is no more room.
    const TAKES_PIECES: Self = Self(32);

    /// What an event says.
    #[inline]
    pub fn of(event: &Event) -> Self {
        // What nearly all events say; neither side is closed for writing without one of these.
        if !event.is_error() && !event.is_read_closed() && !event.is_priority() {
            return Self::READABLE.if_so(event.is_readable())
                | Self::WRITABLE.if_so(event.is_writable());
        }
        Self::of_rare(event)
    }

    #[cold]
    fn of_rare(event: &Event) -> Self {
        let is_error = event.is_error();
        let is_read_closed = event.is_read_closed() || is_error;
        Self::READABLE.if_so(event.is_readable() || is_read_closed)
            | Self::WRITABLE.if_so(event.is_writable())
            | Self::READ_CLOSED.if_so(is_read_closed)
            | Self::WRITE_CLOSED.if_so(event.is_write_closed() || is_error)
            // A read stops at urgent data, and nothing tells of what comes after it (tcp(7), "Out-of-band data").
            | Self::IN_PIECES.if_so(event.is_priority())
    }

    /// The same, or nothing.
    #[must_use]
    pub const fn if_so(self, condition: bool) -> Self {
        Self(self.0 * condition as u8)
    }

    /// Whether it has anything of `other`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn set(&mut self, flag: Self, condition: bool) {
        self.0 = self.0 & !flag.0 | flag.if_so(condition).0;
    }
}

impl BitOr for Readiness {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A registered descriptor.
#[derive(Debug)]
pub struct Io<S> {
    source: S,
    token: Token,
    readiness: Readiness,
}

/// What came of a read.
#[derive(Debug)]
pub enum Input {
    /// This many bytes.
    Bytes(usize),
    /// Nothing for now.
    Blocked,
    /// The end.
    End,
    /// It broke.
    Broken(io::Error),
}

impl<S> Io<S> {
    /// A descriptor that was registered under this token. It is taken to be writable until a write shows that it is not.
    pub fn new(source: S, token: Token, interest: Interest) -> Self {
        Self {
            source,
            token,
            readiness: Readiness::WRITABLE.if_so(interest.is_writable()),
        }
    }

    /// Latches what an event says, if it is about this descriptor and not about one that was here before. Returns whether
    /// it is.
    pub fn latch(&mut self, token: Token, readiness: Readiness) -> bool {
        let is_mine = token == self.token;
        self.readiness |= Readiness(readiness.0 * u8::from(is_mine));
        is_mine
    }

    /// Lets the next read look, although no event told of anything, and does not take a short read for the last one.
    pub fn assume_readable(&mut self) {
        self.readiness |= Readiness::READABLE | Readiness::IN_PIECES;
    }

    /// A read finds something although no event told of it.
    pub fn note_readable(&mut self) {
        self.readiness |= Readiness::READABLE;
    }

    /// Does not take a short write for one that has found no more room, as long as it has found any.
    pub fn expect_short_writes(&mut self) {
        self.readiness |= Readiness::TAKES_PIECES;
    }

    /// An operation on the descriptor itself has shown that there is nothing to be had now.
    pub fn clear_readable(&mut self) {
        self.readiness.set(Readiness::READABLE, false);
    }

    /// All that is known of it.
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// What was known of it before it was registered.
    pub fn recall(&mut self, known: Readiness) {
        self.readiness
            .set(Readiness::WRITABLE, known.has(Readiness::WRITABLE));
        self.readiness |= known;
    }

    /// Whether a read may find something.
    pub fn is_readable(&self) -> bool {
        self.readiness.has(Readiness::READABLE)
    }

    /// Whether a write may take something.
    pub fn is_writable(&self) -> bool {
        self.readiness.has(Readiness::WRITABLE)
    }

    /// Whether the other side has ended its direction.
    pub fn is_read_closed(&self) -> bool {
        self.readiness.has(Readiness::READ_CLOSED)
    }

    /// Whether an error was reported, or that nobody reads what is written.
    pub fn is_write_closed(&self) -> bool {
        self.readiness.has(Readiness::WRITE_CLOSED)
    }

    /// The descriptor itself.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The same, to be changed.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// The same, without what was known of it.
    pub fn into_source(self) -> S {
        self.source
    }
}

impl<S: Read> Io<S> {
    /// Reads once. A short read leaves nothing behind (epoll(7)), unless the end was announced.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        const MORE: Readiness = Readiness(Readiness::READ_CLOSED.0 | Readiness::IN_PIECES.0);
        let read = self.source.read(buffer);
        if let Ok(count @ 1..) = read {
            let may_have_more = count == buffer.len() || self.readiness.has(MORE);
            self.readiness.set(Readiness::READABLE, may_have_more);
            return Input::Bytes(count);
        }
        self.read_nothing(read, buffer)
    }

    /// What it means that a read has brought nothing.
    #[inline(never)]
    fn read_nothing(&mut self, read: io::Result<usize>, buffer: &mut [u8]) -> Input {
        let input = match read {
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.read(buffer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Blocked,
            Err(error) => Input::Broken(error),
            Ok(_) => Input::End,
        };
        self.clear_readable();
        input
    }
}

impl<S: Write> Io<S> {
    /// Writes once. Returns how much was taken, which is nothing if there was no room.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.source.write(bytes) {
            Ok(count) => {
                let may_have_room =
                    count == bytes.len() || self.readiness.has(Readiness::TAKES_PIECES);
                self.readiness.set(Readiness::WRITABLE, may_have_room);
                Ok(count)
            }
            Err(error) => self.write_nothing(error, bytes),
        }
    }

    /// Writes one behind the other, at once if the descriptor can do that.
    pub fn write_pair(&mut self, [first, second]: [&[u8]; 2]) -> io::Result<usize> {
        if first.is_empty() || second.is_empty() {
            return self.write(if first.is_empty() { second } else { first });
        }
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        match self.source.write_vectored(&pieces) {
            Ok(count) => {
                // It may be one that takes only the first.
                let may_have_room = count == first.len()
                    || count == first.len() + second.len()
                    || self.readiness.has(Readiness::TAKES_PIECES);
                self.readiness.set(Readiness::WRITABLE, may_have_room);
                Ok(count)
            }
            Err(error) => self.write_nothing(error, first),
        }
    }

    /// What it means that a write has taken nothing.
    #[inline(never)]
    fn write_nothing(&mut self, error: io::Error, bytes: &[u8]) -> io::Result<usize> {
        if error.kind() == ErrorKind::Interrupted {
            return self.write(bytes);
        }
        self.readiness.set(Readiness::WRITABLE, false);
        let is_full = error.kind() == ErrorKind::WouldBlock;
        if is_full { Ok(0) } else { Err(error) }
    }

    /// Has what was written before, and has found no room, go out as far as there is some now.
    pub fn flush(&mut self) -> io::Result<()> {
        match self.source.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readiness.set(Readiness::WRITABLE, false);
                Ok(())
            }
            flushed => flushed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A descriptor of which the next results are known.
    #[derive(Debug, Default)]
    struct Script(VecDeque<io::Result<usize>>);

    impl Script {
        fn next(&mut self) -> io::Result<usize> {
            self.0.pop_front().expect("one more result")
        }
    }

    impl Read for Script {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.next()
        }
    }

    impl Write for Script {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.next()
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TOKEN: Token = Token(3);

    fn io(results: impl IntoIterator<Item = io::Result<usize>>) -> Io<Script> {
        let script = Script(results.into_iter().collect());
        Io::new(script, TOKEN, Interest::READABLE | Interest::WRITABLE)
    }

    #[test]
    fn an_event_about_another_registration_is_not_latched() {
        let mut io = io([]);
        assert!(!io.latch(Token(4), Readiness::READABLE) && !io.is_readable());
        assert!(io.latch(TOKEN, Readiness::READABLE) && io.is_readable());
        assert!(!io.is_read_closed() && !io.is_write_closed());
        io.latch(TOKEN, Readiness::READ_CLOSED);
        assert!(io.is_readable() && io.is_read_closed() && !io.is_write_closed());
        io.latch(TOKEN, Readiness::WRITE_CLOSED);
        assert!(io.is_write_closed());
    }

    #[test]
    fn what_is_only_read_does_not_count_as_writable() {
        let io = Io::new(Script::default(), TOKEN, Interest::READABLE);
        assert!(!io.is_writable() && !io.is_readable());
    }

    #[test]
    fn a_short_read_is_the_last_one_unless_an_end_was_announced() {
        let mut io = io([Ok(4), Ok(3), Ok(3), Ok(0)]);
        io.latch(TOKEN, Readiness::READABLE);
        assert!(matches!(io.read(&mut [0; 4]), Input::Bytes(4)) && io.is_readable());
        assert!(matches!(io.read(&mut [0; 4]), Input::Bytes(3)) && !io.is_readable());
        io.latch(TOKEN, Readiness::READABLE | Readiness::READ_CLOSED);
        assert!(matches!(io.read(&mut [0; 4]), Input::Bytes(3)) && io.is_readable());
        assert!(matches!(io.read(&mut [0; 4]), Input::End) && !io.is_readable());
    }

    #[test]
    fn what_is_read_in_pieces_is_read_to_the_end() {
        let blocked = || Err(ErrorKind::WouldBlock.into());
        let mut io = io([Ok(1), blocked()]);
        io.assume_readable();
        assert!(matches!(io.read(&mut [0; 4]), Input::Bytes(1)) && io.is_readable());
        assert!(matches!(io.read(&mut [0; 4]), Input::Blocked) && !io.is_readable());
    }

    #[test]
    fn a_read_that_breaks_or_was_interrupted() {
        let mut io = io([
            Err(ErrorKind::Interrupted.into()),
            Err(ErrorKind::ConnectionReset.into()),
        ]);
        io.latch(TOKEN, Readiness::READABLE);
        assert!(matches!(io.read(&mut [0; 4]), Input::Broken(_)) && !io.is_readable());
        io.latch(TOKEN, Readiness::READABLE);
        io.clear_readable();
        assert!(!io.is_readable());
    }

    #[test]
    fn a_short_write_waits_for_room() {
        let mut io = io([
            Ok(4),
            Ok(3),
            Err(ErrorKind::Interrupted.into()),
            Err(ErrorKind::WouldBlock.into()),
            Err(ErrorKind::BrokenPipe.into()),
        ]);
        assert!(matches!(io.write(b"1234"), Ok(4)) && io.is_writable());
        assert!(matches!(io.write(b"1234"), Ok(3)) && !io.is_writable());
        io.latch(TOKEN, Readiness::WRITABLE);
        assert!(matches!(io.write(b"1234"), Ok(0)) && !io.is_writable());
        io.latch(TOKEN, Readiness::WRITABLE);
        assert!(io.write(b"1234").is_err() && !io.is_writable());
    }

    #[test]
    fn a_short_write_of_what_takes_pieces_is_followed_by_another() {
        let blocked = || Err(ErrorKind::WouldBlock.into());
        let mut io = io([Ok(3), blocked()]);
        io.expect_short_writes();
        assert!(matches!(io.write(b"1234"), Ok(3)) && io.is_writable());
        assert!(matches!(io.write(b"1234"), Ok(0)) && !io.is_writable());
        assert!(io.flush().is_ok() && !io.is_writable());
    }
}
