//! Listening sockets: every address that a host name stands for, on one port.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::TcpListener;
use nix::errno::Errno;
use nix::sys::socket::{self, Backlog};

/// Attempts to find a port that is free on every address, if any port will do. One fails if another program has the port on
/// one of the few addresses, which does not happen by chance this often in a row.
const PORT_ATTEMPTS: usize = 16;

/// Binds every address of `host`. With port 0 the system picks one that is free on all of them.
///
/// Of a name with several addresses, those of a protocol that this machine does not have are passed over.
pub fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind_all(&addresses) {
            Err(error)
                if port == 0
                    && error.kind() == ErrorKind::AddrInUse
                    && attempts < PORT_ATTEMPTS => {}
            bound => return bound,
        }
    }
}

fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut passed_over = None;
    for address in addresses {
        let mut address = *address;
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address) {
            Ok(listener) => {
                // It listens already, with room for few. A client that finds none tries again after a second.
                socket::listen(&listener, Backlog::MAXCONN)?;
                listeners.push(listener);
            }
            Err(error) if addresses.len() > 1 && lacks_protocol(&error) => {
                passed_over = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match passed_over {
        Some(error) if listeners.is_empty() => Err(error),
        _ if listeners.is_empty() => Err(io::Error::new(
            ErrorKind::NotFound,
            "the name has no address",
        )),
        _ => Ok(listeners),
    }
}

fn lacks_protocol(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_one_port_for_all_addresses() {
        let listeners = bind("localhost", 0).unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        assert_ne!(ports[0], 0);
        assert!(ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn what_can_not_be_bound_is_an_error() {
        let taken = bind("127.0.0.1", 0).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        assert_eq!(
            bind("127.0.0.1", port).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        assert_eq!(
            bind("192.0.2.1", 0).unwrap_err().kind(),
            ErrorKind::AddrNotAvailable
        );
    }
}
