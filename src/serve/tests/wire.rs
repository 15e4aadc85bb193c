//! A connection or a pipe in memory. The loop has one end of it, the test the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use mio::{Interest, Token};
use nix::errno::Errno;

use crate::reactor::io::Readiness;
use crate::serve::system::{ClientSocket, Pipe, Shake};
use crate::serve::unread::Unread;

/// What is between the two ends.
#[allow(
    clippy::struct_excessive_bools,
    reason = "what happens at one end has nothing to do with the other"
)]
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// What the loop has not read.
    to_loop: VecDeque<u8>,
    /// What the loop has written.
    from_loop: Vec<u8>,
    /// The test has ended its side.
    is_over: bool,
    /// The test takes nothing.
    is_full: bool,
    /// The loop has ended its side.
    pub(super) is_ended: bool,
    /// The loop has closed its end.
    pub(super) is_closed: bool,
    /// What the loop watches it as.
    pub(super) token: Option<Token>,
    /// What the loop was not told of.
    news: Readiness,
    /// What it does not acknowledge, in bytes.
    pub(super) unsent: Option<u32>,
    /// Its other end has vanished.
    pub(super) has_vanished: bool,
    pub(super) is_tls: bool,
    /// What is next to be said of its TLS handshake.
    shakes: VecDeque<Shake>,
}

impl Wire {
    /// Takes what the loop was not told of.
    pub(super) fn take_news(&mut self) -> Option<(Token, Readiness)> {
        let news = std::mem::take(&mut self.news);
        self.token
            .filter(|_| news != Readiness::default())
            .map(|token| (token, news))
    }

    /// What is known and of interest is to be told, as after a registration.
    pub(super) fn watched(&mut self, token: Token, interest: Interest) {
        self.token = Some(token);
        let is_readable = !self.to_loop.is_empty() || self.is_over;
        self.news = Readiness::READABLE.if_so(is_readable)
            | Readiness::READ_CLOSED.if_so(self.is_over)
            | Readiness::WRITABLE.if_so(!self.is_full && interest.is_writable());
    }
}

/// The end of the loop.
#[derive(Debug)]
pub(super) struct LoopEnd(pub(super) Rc<RefCell<Wire>>);

/// The end of the test.
#[derive(Debug, Clone)]
pub(super) struct TestEnd(pub(super) Rc<RefCell<Wire>>);

/// Both ends of a new one.
pub(super) fn wire() -> (LoopEnd, TestEnd) {
    let wire = Rc::new(RefCell::new(Wire::default()));
    (LoopEnd(wire.clone()), TestEnd(wire))
}

impl TestEnd {
    pub(super) fn says(&self, text: &str) {
        let mut wire = self.0.borrow_mut();
        wire.to_loop.extend(text.as_bytes());
        wire.news |= Readiness::READABLE;
    }

    /// Ends the side of the test.
    pub(super) fn leaves(&self) {
        let mut wire = self.0.borrow_mut();
        wire.is_over = true;
        wire.news |= Readiness::READABLE | Readiness::READ_CLOSED;
    }

    /// Takes nothing from now on.
    pub(super) fn stalls(&self) {
        self.0.borrow_mut().is_full = true;
    }

    /// Takes again what comes.
    pub(super) fn takes(&self) {
        let mut wire = self.0.borrow_mut();
        wire.is_full = false;
        wire.news |= Readiness::WRITABLE;
    }

    /// What the loop has written since the last call.
    pub(super) fn got(&self) -> String {
        let got = std::mem::take(&mut self.0.borrow_mut().from_loop);
        String::from_utf8(got).unwrap()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.0.borrow().is_ended
    }

    /// Whether the loop has read all that was said.
    pub(super) fn is_read(&self) -> bool {
        self.0.borrow().to_loop.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().is_closed
    }

    /// What the next step of the TLS handshake leads to.
    pub(super) fn shakes(&self, shake: Shake) {
        let mut wire = self.0.borrow_mut();
        wire.shakes.push_back(shake);
        wire.news |= Readiness::READABLE;
    }
}

impl Drop for LoopEnd {
    fn drop(&mut self) {
        let mut wire = self.0.borrow_mut();
        wire.is_closed = true;
        wire.token = None;
    }
}

impl Read for LoopEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.to_loop.is_empty() && !wire.is_over {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.to_loop.read(buffer)
    }
}

impl Write for LoopEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.is_ended {
            return Err(Errno::EPIPE.into());
        }
        if wire.is_full {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.from_loop.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ClientSocket for LoopEnd {
    fn configure(&self) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) {
        self.0.borrow_mut().is_ended = true;
    }

    fn take_error(&self) -> Option<io::Error> {
        None
    }

    fn is_tls(&self) -> bool {
        self.0.borrow().is_tls
    }

    fn shake(&mut self) -> Shake {
        let next = self.0.borrow_mut().shakes.pop_front();
        next.unwrap_or(Shake::Waits)
    }
}

impl Pipe for LoopEnd {
    fn widen(&self) {}
}

impl Unread for LoopEnd {
    fn take_unread(&self) -> Option<Vec<u8>> {
        None
    }

    fn has_unread(&self) -> bool {
        false
    }
}
