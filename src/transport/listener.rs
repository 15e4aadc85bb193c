//! A listening socket, whatever it listens on, and what its errors mean.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener, UnixStream};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::address::UNIX_PREFIX;
use super::forward_source;
use super::socket::Socket;
use super::unix_listener::UnixSocket;
use crate::util::client_address::ClientAddress;

/// A listening socket. It does not block.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixSocket),
}

impl Listener {
    /// Accepts a connection (accept(2)).
    pub fn accept(&self) -> io::Result<(Socket, ClientAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::Tcp(stream), address.into()))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener().accept()?;
                let address = peer_of(&stream)?;
                Ok((Socket::Unix(stream), address))
            }
        }
    }

    /// Where a TCP socket listens. A v4-mapped address is the IPv4 address.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => {
                let mut address = listener.local_addr().ok()?;
                address.set_ip(address.ip().to_canonical());
                Some(address)
            }
            Self::Unix(_) => None,
        }
    }
}

/// Where it listens.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_) => match self.tcp_address() {
                Some(address) => address.fmt(f),
                None => f.write_str("an unknown address"),
            },
            Self::Unix(socket) => {
                f.write_str(UNIX_PREFIX)?;
                write_path(socket.listener(), f)
            }
        }
    }
}

fn write_path(socket: &UnixListener, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let address = socket.local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname());
    let name = address
        .as_ref()
        .and_then(|address| address.as_abstract_name());
    match (path, name) {
        (Some(path), _) => write!(f, "{}", path.display()),
        (None, Some(name)) => write!(f, "@{}", String::from_utf8_lossy(name)),
        (None, None) => f.write_str("(without a name)"),
    }
}

/// Who connected (unix(7), `SO_PEERCRED`).
fn peer_of(stream: &UnixStream) -> io::Result<ClientAddress> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    Ok(ClientAddress::Unix {
        uid: peer.uid(),
        pid: peer.pid().unsigned_abs(),
    })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

forward_source!(Listener);

impl Listener {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener.listener_mut(),
        }
    }
}

/// What a failed `accept` means for the next one.
#[derive(Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// No connection waits.
    Blocked,
    /// That connection is gone; the next one may be fine (accept(2), "Error handling").
    Connection,
    /// There is no descriptor or no memory for a connection.
    Exhausted,
}

/// Sorts the errors of `accept`. One that is not known is taken for exhaustion, as that does not spin.
pub fn classify_accept_error(error: &io::Error) -> AcceptError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => AcceptError::Blocked,
        Some(
            Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENONET,
        ) => AcceptError::Connection,
        _ => AcceptError::Exhausted,
    }
}

/// Whether an error says that the machine or this process has no more of something that may be freed again.
pub fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN)
    )
}
