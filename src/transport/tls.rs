//! TLS over any socket: plaintext on one side, ciphertext on the other, and the state of a session between them.
//!
//! A [`TlsSession`] is read and written like the socket that it is given each time, and says the same of readiness: a read
//! that is short has found everything that there is, a write that is short has found no more room. Three things are
//! different, and whoever drives it has to know them:
//!
//! * Ciphertext may be left to be sent although there is no more to be written ([`TlsSession::unsent`]): answers of TLS
//!   itself, or the end. It goes out when the socket is writable and [`TlsSession::flush`] is called.
//! * What follows a read may already be known ([`TlsSession::holds_input`]): no event tells of it.
//! * A write that is cut short, for the sake of others, does not mean that there is no room.
//!
//! The end of a connection counts as one only if the other side has said that it is (RFC 8446, 6.1): else anybody on the
//! way could cut off what was said. A connection without it is broken.

pub mod client;
pub mod files;
pub mod handshake;
pub mod identity;
pub mod refusal;
pub mod server;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use self::refusal::{is_refusal, words_for_client};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// Plaintext that is encrypted at once, in bytes: two full records.
const PIECE_BYTES: usize = 32 * 1024;

/// Plaintext that is taken by one write, in bytes. To encrypt as much takes a tenth of a millisecond, which others wait for.
const WRITE_BYTES: usize = 256 * 1024;

/// The longest record on the wire, in bytes (RFC 5246, 6.2.3).
const RECORD_BYTES: usize = 5 + 16 * 1024 + 2048;

/// What rustls takes at once, in bytes, and keeps room for when it is idle.
const READ_BYTES: usize = 4 * 1024;

/// A connection below TLS.
pub trait HalfClose: Read + Write {
    /// Ends our direction.
    fn half_close(&self);
}

/// What is known of our own end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnEnd {
    Open,
    /// It was said, but not everything is out.
    Said,
    /// The socket has ended, too.
    Done,
}

/// A TLS session. Its socket is always the same.
pub struct TlsSession {
    rustls: Connection,
    /// What of the other side was read before it came here.
    early: VecDeque<u8>,
    /// Ciphertext for which there was no room.
    unsent: Vec<u8>,
    /// How much of it was sent since.
    sent: usize,
    /// Whether the last byte of plaintext is encrypted, but did not count as taken.
    owes_byte: bool,
    own_end: OwnEnd,
    /// How the other side's direction came to its end, unless that was told already.
    ended: Option<Ended>,
    /// Whether rustls may hold more room than an idle session needs.
    has_grown: bool,
    /// What the handshake has received, in bytes.
    heard: usize,
    has_spoken: bool,
}

/// How the other side's direction came to its end.
#[derive(Debug)]
enum Ended {
    Well,
    Badly(io::Error),
    /// A read has told it.
    Told,
}

impl TlsSession {
    /// The side that was connected to. Of what the other side sent, this was read already.
    pub fn accept(config: Arc<ServerConfig>, early: Vec<u8>) -> Result<Self, rustls::Error> {
        let mut session = Self::new(ServerConnection::new(config)?.into());
        session.early = VecDeque::from(early);
        Ok(session)
    }

    /// The side that connects, to whoever has this name.
    pub fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    fn new(rustls: Connection) -> Self {
        Self {
            rustls,
            early: VecDeque::new(),
            unsent: Vec::new(),
            sent: 0,
            owes_byte: false,
            own_end: OwnEnd::Open,
            ended: None,
            has_grown: false,
            heard: 0,
            has_spoken: false,
        }
    }

    /// Ciphertext that has found no room yet, in bytes.
    pub fn unsent(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Whether a read would find something although no event tells.
    pub fn holds_input(&self) -> bool {
        matches!(self.ended, Some(Ended::Well | Ended::Badly(_)))
    }

    /// The certificates that the other side has shown, its own first.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.rustls.peer_certificates()
    }

    /// The version of the protocol, once it is agreed.
    pub fn version(&self) -> Option<rustls::ProtocolVersion> {
        self.rustls.protocol_version()
    }

    fn fail(&mut self, error: io::Error) {
        self.ended.get_or_insert(Ended::Badly(error));
    }

    /// Says that nothing more will be written. The socket follows once everything is out.
    pub fn end<S: HalfClose>(&mut self, socket: &mut S) {
        if self.own_end == OwnEnd::Open {
            self.rustls.send_close_notify();
            self.own_end = OwnEnd::Said;
        }
        // It may be gone already, which the next read tells.
        let _ = self.send(socket);
    }

    /// Reads plaintext. If that is less than there is room for, the socket has no more, or [`Self::holds_input`].
    #[inline(never)]
    pub fn read<S: HalfClose>(&mut self, socket: &mut S, room: &mut [u8]) -> io::Result<usize> {
        let mut count = self.take_plaintext(room);
        let mut left = SocketLeft::More;
        // An end may come right after a piece of a record. It is looked for here only if there is nothing to be returned:
        // else whoever knows that it was announced reads once more.
        while count < room.len()
            && self.ended.is_none()
            && (left == SocketLeft::More || (left == SocketLeft::Little && count == 0))
        {
            let (more, now_left) = self.receive(socket, &mut room[count..]);
            count += more;
            left = now_left;
        }
        if left != SocketLeft::More {
            self.shrink();
        }
        if count > 0 || room.is_empty() {
            return Ok(count);
        }
        match self.ended.replace(Ended::Told) {
            Some(Ended::Well | Ended::Told) => Ok(0),
            Some(Ended::Badly(error)) => Err(error),
            None => {
                self.ended = None;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    /// Takes plaintext as long as its ciphertext finds room, but no more than is good for others. As long as some of that
    /// ciphertext waits for room, the last byte does not count as taken: it has to come again. So what counts as taken is
    /// with the system, as after a write to the socket itself.
    #[inline(never)]
    pub fn write<S: HalfClose>(&mut self, socket: &mut S, bytes: &[u8]) -> io::Result<usize> {
        if !self.send(socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = usize::from(std::mem::take(&mut self.owes_byte)).min(bytes.len());
        let end = bytes.len().min(WRITE_BYTES);
        while count < end {
            let piece = &bytes[count..end.min(count + PIECE_BYTES)];
            count += self.rustls.writer().write(piece)?;
            if !self.send(socket)? {
                self.owes_byte = true;
                count -= 1;
                break;
            }
        }
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Sends what was left. An error of the kind [`ErrorKind::WouldBlock`] says that something still is.
    #[inline(never)]
    pub fn flush<S: HalfClose>(&mut self, socket: &mut S) -> io::Result<()> {
        if self.send(socket)? {
            Ok(())
        } else {
            Err(ErrorKind::WouldBlock.into())
        }
    }

    /// Sends what is there to be sent. Returns whether that is everything.
    fn send<S: HalfClose>(&mut self, socket: &mut S) -> io::Result<bool> {
        while self.unsent() > 0 || self.rustls.wants_write() {
            match self.send_some(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Of what is kept here the length is known; of what rustls keeps, it is not.
                    self.rustls.write_tls(&mut self.unsent)?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        if self.own_end == OwnEnd::Said {
            self.own_end = OwnEnd::Done;
            socket.half_close();
        }
        Ok(true)
    }

    fn send_some(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if self.unsent() > 0 {
            self.sent += socket.write(&self.unsent[self.sent..])?;
            if self.unsent() == 0 {
                self.unsent = Vec::new();
                self.sent = 0;
            }
        } else {
            self.rustls.write_tls(socket)?;
        }
        Ok(())
    }

    /// Reads the socket once. Returns how much plaintext that has brought into `room`, and what it tells of the socket.
    fn receive<S: HalfClose>(&mut self, socket: &mut S, room: &mut [u8]) -> (usize, SocketLeft) {
        if room.len() < RECORD_BYTES + READ_BYTES {
            return self.receive_little(socket, room);
        }
        // What plaintext can come of it, with what is here of an unfinished record, always has room in front of the
        // ciphertext that was not decrypted yet.
        let mut once = Once::new(socket, &mut self.early);
        let received = once.read(&mut room[RECORD_BYTES..]);
        let left = once.left;
        let received = match received {
            Ok(received) => self.note_received(received),
            Err(error) => return self.not_received(error),
        };
        let (mut count, mut begin, end) = (0, RECORD_BYTES, RECORD_BYTES + received);
        while begin < end && self.ended.is_none() {
            begin += self.decrypt(socket, &mut &room[begin..end]);
            // All that was decrypted finds room where ciphertext is no longer: nothing must stay behind, as a short read
            // says that there is nothing.
            count += self.take_plaintext(&mut room[count..begin]);
        }
        (count, left)
    }

    /// The same with little room: rustls keeps what has none.
    fn receive_little<S: HalfClose>(
        &mut self,
        socket: &mut S,
        room: &mut [u8],
    ) -> (usize, SocketLeft) {
        let mut once = Once::new(socket, &mut self.early);
        let received = match self.rustls.read_tls(&mut once) {
            Ok(received) => received,
            Err(error) => return self.not_received(error),
        };
        let left = once.left;
        if self.note_received(received) > 0 {
            self.process(socket);
        }
        (self.take_plaintext(room), left)
    }

    fn note_received(&mut self, count: usize) -> usize {
        self.has_grown |= count >= READ_BYTES;
        if count == 0 {
            let error = io::Error::new(
                ErrorKind::UnexpectedEof,
                "it was closed without the close_notify of TLS",
            );
            self.fail(error);
        }
        count
    }

    fn not_received(&mut self, error: io::Error) -> (usize, SocketLeft) {
        if error.kind() != ErrorKind::WouldBlock {
            self.fail(error);
        }
        (0, SocketLeft::Nothing)
    }

    /// Takes ciphertext from the front of `bytes`. Returns how much.
    fn decrypt<S: HalfClose>(&mut self, socket: &mut S, bytes: &mut &[u8]) -> usize {
        match self.rustls.read_tls(bytes) {
            Ok(count) => {
                self.process(socket);
                count
            }
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    fn process<S: HalfClose>(&mut self, socket: &mut S) {
        match self.rustls.process_new_packets() {
            Ok(state) if state.peer_has_closed() => {
                self.ended.get_or_insert(Ended::Well);
            }
            Ok(_) => {}
            // With TLS 1.3 a server judges the certificate of a client that is done with the handshake already.
            Err(error) if is_refusal(&error) => {
                let words = words_for_client(&error);
                self.fail(io::Error::new(ErrorKind::PermissionDenied, words));
            }
            Err(error) => self.fail(io::Error::new(ErrorKind::InvalidData, error)),
        }
        // An answer to what only rustls has seen, or the alert for what was wrong. If it has no room, it is sent later; if
        // the socket is broken, the next read tells.
        if self.rustls.wants_write() {
            let _ = self.send(socket);
        }
    }

    fn take_plaintext(&mut self, room: &mut [u8]) -> usize {
        self.rustls.reader().read(room).unwrap_or(0)
    }

    /// Gives back what a large read has made rustls hold.
    fn shrink(&mut self) {
        if std::mem::take(&mut self.has_grown) {
            let _ = self.rustls.read_tls(&mut Nothing);
        }
    }
}

/// What is left in the socket after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketLeft {
    /// There may be more.
    More,
    /// No more bytes; maybe the end.
    Little,
    Nothing,
}

/// Reads once, and knows what that tells of the socket.
struct Once<'a, S> {
    socket: &'a mut S,
    early: &'a mut VecDeque<u8>,
    left: SocketLeft,
}

impl<'a, S> Once<'a, S> {
    fn new(socket: &'a mut S, early: &'a mut VecDeque<u8>) -> Self {
        Self {
            socket,
            early,
            left: SocketLeft::More,
        }
    }
}

impl<S: Read> Read for Once<'_, S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if !self.early.is_empty() {
            let count = self.early.read(room)?;
            if self.early.is_empty() {
                *self.early = VecDeque::new();
            }
            return Ok(count);
        }
        loop {
            match self.socket.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) if count < room.len() => {
                    self.left = SocketLeft::Little;
                    return Ok(count);
                }
                read => return read,
            }
        }
    }
}

/// Has nothing to be read.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("unsent", &self.unsent())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
