//! The ends of the transports that the loop holds. What it drops is closed.

use std::io::{self, Result};

use mcp_tcp_proxy::serve::unread::Unread;
use mio::Token;

use super::{Duplex, Events, Inflow, Shared};
use crate::allocated::Outside;

/// The loop's handle of a connection.
pub struct Socket {
    pub duplex: Shared<Duplex>,
    /// Whose it is.
    pub slot: usize,
}

impl Socket {
    pub fn watch(&self, token: Token) {
        let mut duplex = self.duplex.borrow_mut();
        duplex.input.token = Some(token);
        duplex.output.token = Some(token);
    }

    /// It is watched anew, and whatever is known of it is told once more.
    pub fn tell_all(&self, events: &mut Events) {
        let mut duplex = self.duplex.borrow_mut();
        duplex.input.forget_told();
        duplex.output.forget_told();
        duplex.notify(events);
    }
}

impl io::Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.duplex.borrow_mut().input.read(buffer)
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let _outside = Outside::new();
        self.duplex.borrow_mut().output.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut duplex = self.duplex.borrow_mut();
        (duplex.reads, duplex.writes) = (false, false);
        (duplex.input.token, duplex.output.token) = (None, None);
    }
}

/// The loop's end of the stdin of a server.
pub struct Stdin(pub Shared<Duplex>);

impl Stdin {
    pub fn watch(&self, token: Token) {
        self.0.borrow_mut().output.token = Some(token);
    }

    /// It is watched anew, and whatever is known of it is to be told once more.
    pub fn forget_told(&self) {
        self.0.borrow_mut().output.forget_told();
    }
}

impl io::Write for Stdin {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let _outside = Outside::new();
        self.0.borrow_mut().output.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Unread for Stdin {
    fn take_unread(&self) -> Option<Vec<u8>> {
        let _outside = Outside::new();
        let output = &mut self.0.borrow_mut().output;
        output.broken?;
        output.unread_from = Some(output.consumed);
        Some(output.waiting.drain(..).collect())
    }

    fn has_unread(&self) -> bool {
        self.0.borrow().output.unconsumed() > 0
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        let mut duplex = self.0.borrow_mut();
        duplex.writes = false;
        duplex.output.token = None;
    }
}

/// The loop's end of what a server writes.
pub enum Output {
    Stdout(Shared<Duplex>),
    Stderr(Shared<Inflow>),
}

impl Output {
    pub fn watch(&self, token: Token) {
        match self {
            Self::Stdout(duplex) => duplex.borrow_mut().input.token = Some(token),
            Self::Stderr(inflow) => inflow.borrow_mut().token = Some(token),
        }
    }

    /// It is watched anew, and whatever is known of it is to be told once more.
    pub fn forget_told(&self) {
        match self {
            Self::Stdout(duplex) => duplex.borrow_mut().input.forget_told(),
            Self::Stderr(inflow) => inflow.borrow_mut().forget_told(),
        }
    }
}

impl io::Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Stdout(duplex) => duplex.borrow_mut().input.read(buffer),
            Self::Stderr(inflow) => inflow.borrow_mut().read(buffer),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        match self {
            Self::Stdout(duplex) => {
                let mut duplex = duplex.borrow_mut();
                duplex.reads = false;
                duplex.input.token = None;
            }
            Self::Stderr(inflow) => inflow.borrow_mut().token = None,
        }
    }
}
