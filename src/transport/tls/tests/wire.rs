//! A connection in memory, of which a test says how much it takes at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use super::super::HalfClose;

/// One direction.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) bytes: VecDeque<u8>,
    /// As much as it holds.
    pub(super) room: usize,
    pub(super) is_ended: bool,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) incoming: Rc<RefCell<Wire>>,
    pub(super) outgoing: Rc<RefCell<Wire>>,
    /// As much as one read finds and one write takes.
    pub(super) at_once: usize,
    pub(super) reads: usize,
}

pub(super) fn wire() -> (End, End) {
    let direction = || {
        Rc::new(RefCell::new(Wire {
            bytes: VecDeque::new(),
            room: usize::MAX,
            is_ended: false,
        }))
    };
    let (a, b) = (direction(), direction());
    let end = |incoming: &Rc<RefCell<Wire>>, outgoing: &Rc<RefCell<Wire>>| End {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        at_once: usize::MAX,
        reads: 0,
    };
    (end(&a, &b), end(&b, &a))
}

impl Read for End {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let mut wire = self.incoming.borrow_mut();
        let count = room.len().min(wire.bytes.len()).min(self.at_once);
        if count == 0 {
            return if wire.is_ended {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        }
        for (byte, came) in room.iter_mut().zip(wire.bytes.drain(..count)) {
            *byte = came;
        }
        Ok(count)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.outgoing.borrow_mut();
        assert!(!wire.is_ended, "a write after the end");
        let left = wire.room.saturating_sub(wire.bytes.len());
        let count = bytes.len().min(left).min(self.at_once);
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.bytes.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HalfClose for End {
    fn half_close(&self) {
        self.outgoing.borrow_mut().is_ended = true;
    }
}
