//! A connection, whichever way it came: the same bytes over TCP and over a unix socket.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use nix::errno::Errno;

use super::{forward_source, tcp};

/// A connection. It does not block.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($socket:expr, $stream:ident => $do:expr) => {
        match $socket {
            Socket::Tcp($stream) => $do,
            Socket::Unix($stream) => $do,
        }
    };
}

impl Socket {
    /// Begins to connect to an address. Whether that succeeds is known once the socket is writable (connect(2),
    /// EINPROGRESS).
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::Tcp)
    }

    /// Connects to a unix socket, which succeeds or fails at once (unix(7)).
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::Unix)
    }

    /// Whether an attempt to connect has succeeded (connect(2), EINPROGRESS). An error says that it has failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        let failed = self.take_error()?;
        match failed.map_or(Ok(()), Err).and_then(|()| self.is_own_peer()) {
            Ok(true) => Err(io::Error::other("nobody listens there")),
            Ok(false) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// With nobody listening, a port out of the range of our own can be connected to itself (RFC 9293, 3.5). The error is
    /// ENOTCONN as long as it is not known whether the address accepts.
    fn is_own_peer(&self) -> io::Result<bool> {
        match self.tcp() {
            Some(stream) => Ok(stream.peer_addr()? == stream.local_addr()?),
            None => Ok(false),
        }
    }

    /// Sets the options that a connection has on both sides.
    pub fn configure(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => tcp::configure(stream),
            // Its bytes are with the other side at once, and neither side can vanish without a word.
            Self::Unix(_) => Ok(()),
        }
    }

    /// The TCP connection, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
        }
    }

    /// Ends one direction, or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, stream => stream.shutdown(how))
    }

    /// Takes the error that it has run into, if any (`SO_ERROR`, socket(7)).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        either!(self, stream => stream.take_error())
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buffer))
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, stream => stream.write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

forward_source!(Socket);

impl Socket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}
