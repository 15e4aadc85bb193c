//! The handshake of TLS, step by step: a step does what the socket allows, and never waits.
//!
//! A step may compute a signature, which takes longer than all else that a loop does. So whoever drives handshakes gives
//! all of them together a share of a turn: see [`Share`].

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::Connection;

use super::refusal::{is_refusal, words_for_client, words_for_server};
use super::{Ended, HalfClose, Once, TlsSession};

/// A client that has said this much and is not understood is not a client of ours, in bytes. The largest hello that
/// anybody sends is a fifth of it.
const HELLO_BYTES: usize = 16 * 1024;

/// All handshakes together have this much of a turn: a signature of RSA-2048 takes half of it, and nobody notices a
/// round trip that takes a millisecond longer.
const SHARE_OF_TURN: Duration = Duration::from_millis(1);

/// The type of a record of the handshake, and so the first byte that a client sends (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The type of a record with an alert.
const ALERT_RECORD: u8 = 0x15;

/// Why a handshake came to nothing.
#[derive(Debug)]
pub enum HandshakeError {
    /// What came first is not TLS. It begins with this byte.
    NotTls(u8),
    /// The other side closed the connection without a word.
    ClosedOnHello,
    /// The other side closed the connection in the middle of it.
    Closed,
    /// The hello is too long.
    HelloTooLong,
    /// One side did not like what the other one said.
    Tls(rustls::Error),
    /// The connection broke.
    Io(io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls(_) | Self::ClosedOnHello => f.write_str("it does not speak TLS"),
            Self::Closed => f.write_str("it was closed during the TLS handshake"),
            Self::HelloTooLong => write!(f, "its TLS hello is longer than {HELLO_BYTES} bytes"),
            Self::Tls(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl HandshakeError {
    /// What the log of the serving side says. Nothing that the client sent stands in it.
    pub fn words_for_server(&self) -> String {
        match self {
            Self::Tls(error) => words_for_server(error),
            Self::ClosedOnHello => "it was closed before the TLS handshake".into(),
            other => other.to_string(),
        }
    }

    /// What `connect` says.
    pub fn words_for_client(&self) -> String {
        match self {
            Self::Tls(error) => words_for_client(error),
            other => other.to_string(),
        }
    }

    /// Whether a certificate was refused, on either side.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls(error) if is_refusal(error))
    }

    /// Whether the other side does not seem to know TLS.
    pub fn is_of_other_protocol(&self) -> bool {
        matches!(self, Self::NotTls(_) | Self::ClosedOnHello)
    }
}

impl TlsSession {
    /// Takes the handshake as far as the socket allows it now. Returns whether it is done: then a read may find
    /// something, although no event tells. Until then, call it again when the socket is readable or writable.
    pub fn shake<S: HalfClose>(&mut self, socket: &mut S) -> Result<bool, HandshakeError> {
        loop {
            self.has_spoken |= self.rustls.wants_write();
            let is_all_sent = self.send(socket).map_err(HandshakeError::Io)?;
            if !self.rustls.is_handshaking() {
                return Ok(true);
            }
            if !is_all_sent || !self.hear(socket)? {
                return Ok(false);
            }
        }
    }

    /// Reads and handles a part of the handshake. Returns whether there was one.
    fn hear<S: HalfClose>(&mut self, socket: &mut S) -> Result<bool, HandshakeError> {
        let mut first = FirstByte {
            once: Once::new(socket, &mut self.early),
            byte: None,
        };
        match self.rustls.read_tls(&mut first) {
            Ok(0) if self.heard == 0 => return Err(HandshakeError::ClosedOnHello),
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(count) => {
                let byte = first.byte.filter(|_| self.heard == 0);
                self.heard += count;
                if let Some(byte) = byte.filter(|byte| !self.may_begin_with(*byte)) {
                    return Err(HandshakeError::NotTls(byte));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // Whoever closes without having read the hello resets.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && self.heard == 0 => {
                return Err(HandshakeError::ClosedOnHello);
            }
            Err(error) => return Err(HandshakeError::Io(error)),
        }
        match self.rustls.process_new_packets() {
            Ok(state) if state.peer_has_closed() => self.ended = Some(Ended::Well),
            Ok(_) => {}
            Err(error) => {
                // The other side is told why, if it can be.
                let _ = self.send(socket);
                return Err(HandshakeError::Tls(error));
            }
        }
        let has_answer = self.has_spoken || self.rustls.wants_write();
        if !has_answer && self.heard > HELLO_BYTES {
            return Err(HandshakeError::HelloTooLong);
        }
        Ok(true)
    }

    fn may_begin_with(&self, byte: u8) -> bool {
        match self.rustls {
            Connection::Client(_) => matches!(byte, HANDSHAKE_RECORD | ALERT_RECORD),
            Connection::Server(_) => byte == HANDSHAKE_RECORD,
        }
    }
}

/// Notes the first byte of what is read.
struct FirstByte<'a, S> {
    once: Once<'a, S>,
    byte: Option<u8>,
}

impl<S: io::Read> io::Read for FirstByte<'_, S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.once.read(room)?;
        self.byte = room[..count].first().copied();
        Ok(count)
    }
}

/// What handshakes have taken of a turn.
#[derive(Debug, Default)]
pub struct Share {
    used: Duration,
}

impl Share {
    /// Whether one more step may be done. The first one of a turn always may.
    pub fn is_left(&self) -> bool {
        self.used < SHARE_OF_TURN
    }

    /// A step has taken this long.
    pub fn use_up(&mut self, time: Duration) {
        self.used += time;
    }
}
