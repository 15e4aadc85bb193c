//! A connection as the two loops use it: a socket, with TLS on top of it or without.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::socket::Socket;
use super::tls::handshake::HandshakeError;
use super::tls::{HalfClose, TlsStream};

/// A connection. It does not block.
#[derive(Debug)]
pub enum Connection {
    /// What is written is what is sent.
    Plain(Socket),
    /// It is encrypted.
    Tls(Box<TlsStream<Socket>>),
}

impl From<Socket> for Connection {
    fn from(socket: Socket) -> Self {
        Self::Plain(socket)
    }
}

impl From<TlsStream<Socket>> for Connection {
    fn from(stream: TlsStream<Socket>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl Connection {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket_mut(),
        }
    }

    /// From here on it is TLS, and a client's that was let in so far. This was read of it already.
    pub fn accept_tls(self, config: Arc<ServerConfig>, early: Vec<u8>) -> io::Result<Self> {
        match self {
            Self::Plain(socket) => TlsStream::accept(socket, config, early)
                .map(Self::from)
                .map_err(io::Error::other),
            tls @ Self::Tls(_) => Ok(tls),
        }
    }

    /// From here on it is TLS, to whoever has this name.
    pub fn connect_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        match self {
            Self::Plain(socket) => TlsStream::connect(socket, config, name)
                .map(Self::from)
                .map_err(io::Error::other),
            tls @ Self::Tls(_) => Ok(tls),
        }
    }

    /// Takes the handshake as far as the socket allows it now. Returns whether it is done.
    pub fn shake(&mut self) -> Result<bool, HandshakeError> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(stream) => stream.shake(),
        }
    }

    /// The certificate that the other side has shown, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.certificate().map(AsRef::as_ref),
        }
    }

    /// Ends our side. What has found no room yet goes out before.
    pub fn end(&mut self) {
        match self {
            Self::Plain(socket) => socket.half_close(),
            Self::Tls(stream) => stream.end(),
        }
    }

    /// Whether a read would find something although no event tells.
    #[inline]
    pub fn holds_input(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.holds_input())
    }

    /// What was written and has found no room yet, in bytes on the wire: [`Write::flush`] sends it.
    #[inline]
    pub fn unsent(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.unsent(),
        }
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
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Source for Connection {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket_mut().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.socket_mut().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket_mut().deregister(registry)
    }
}
