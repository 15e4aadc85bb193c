//! A connection as the two loops use it: a socket, with TLS on top of it or without.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use mio::event::Source;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};

use super::forward_source;
use super::socket::Socket;
use super::tls::handshake::HandshakeError;
use super::tls::{HalfClose, TlsSession};

/// A connection. It does not block.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// Without it, what is written is what is sent.
    tls: Option<Box<TlsSession>>,
}

impl From<Socket> for Connection {
    fn from(socket: Socket) -> Self {
        Self { socket, tls: None }
    }
}

impl Connection {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// From here on it is TLS, with a client. This was read of it already.
    pub fn accept_tls(&mut self, config: Arc<ServerConfig>, early: Vec<u8>) -> io::Result<()> {
        let session = TlsSession::accept(config, early).map_err(io::Error::other)?;
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// From here on it is TLS, with whoever has this name.
    pub fn connect_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<()> {
        let session = TlsSession::connect(config, name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// Whether it is TLS.
    #[inline]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes the handshake as far as the socket allows it now. Returns whether it is done. If it has failed, this is a plain
    /// connection again.
    pub fn shake(&mut self) -> Result<bool, HandshakeError> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        let shaken = tls.shake(&mut self.socket);
        if shaken.is_err() {
            // What still comes means nothing any more.
            self.tls = None;
        }
        shaken
    }

    /// The certificates that the other side has shown, its own first.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.as_ref()?.certificates()
    }

    /// Ends our side. What has found no room yet goes out before.
    pub fn end(&mut self) {
        match &mut self.tls {
            None => self.socket.half_close(),
            Some(tls) => tls.end(&mut self.socket),
        }
    }

    /// Whether a read would find something although no event tells.
    pub fn holds_input(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds_input())
    }

    /// What was written and has found no room yet, in bytes on the wire: [`Write::flush`] sends it.
    pub fn unsent(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.unsent())
    }
}

impl HalfClose for Socket {
    fn half_close(&self) {
        // It may be gone already, which the next read tells.
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Read for Connection {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => tls.read(&mut self.socket, buffer),
        }
    }
}

impl Write for Connection {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => tls.write(&mut self.socket, bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write_vectored(pieces),
            Some(tls) => {
                let first = pieces.iter().find(|piece| !piece.is_empty());
                first.map_or(Ok(0), |first| tls.write(&mut self.socket, first))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&mut self.socket),
        }
    }
}

forward_source!(Connection);

impl Connection {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.socket
    }
}
