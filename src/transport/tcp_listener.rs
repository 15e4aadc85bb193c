//! Listening sockets of TCP: every address that a host name stands for, on one port.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;

use mio::net::TcpListener;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt,
};

/// Attempts to find a port that is free on every address, if any port will do. One fails if another program has the port on
/// one of the few addresses, which does not happen by chance this often in a row.
const PORT_ATTEMPTS: usize = 16;

/// The addresses that a host name stands for. A v4-mapped one is the IPv4 address.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let canonical = |mut address: SocketAddr| {
        address.set_ip(address.ip().to_canonical());
        address
    };
    Ok((host, port).to_socket_addrs()?.map(canonical).collect())
}

/// Binds every address of a host. With port 0 the system picks one that is free on all of them. `all` are the addresses
/// that this program listens on.
///
/// Of a name with several addresses, those of a protocol that this machine does not have are passed over, and so are
/// those that another one of them covers: 0.0.0.0 stands for all of IPv4, and `::` for all of IPv6.
pub fn bind(addresses: &[SocketAddr], all: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let addresses = without_covered(addresses);
    let any_port = addresses.iter().all(|address| address.port() == 0);
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind_each(&addresses, all) {
            Err(error)
                if any_port && error.kind() == ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS => {
            }
            bound => return bound,
        }
    }
}

/// In order, each once. Where a listener for all addresses of a protocol is, there can't be one for a single address.
fn without_covered(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_covered = |address: &SocketAddr| {
        !address.ip().is_unspecified()
            && addresses
                .iter()
                .any(|other| other.ip().is_unspecified() && other.is_ipv4() == address.is_ipv4())
    };
    let mut left: Vec<SocketAddr> = addresses.to_vec();
    left.retain(|address| !is_covered(address));
    left.sort_unstable();
    left.dedup();
    left
}

fn bind_each(addresses: &[SocketAddr], all: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    // By default, a socket for `::` takes IPv4's connections too (ipv6(7), `IPV6_V6ONLY`): it must not where others do.
    let has_ipv4 = addresses.iter().any(SocketAddr::is_ipv4);
    let has_ipv4_beside = |port: u16| {
        let mut beside = all.iter().filter(|other| other.port() == port);
        port != 0 && beside.any(SocketAddr::is_ipv4)
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut passed_over = None;
    for address in addresses {
        let mut address = *address;
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        let has_ipv4 = has_ipv4 || has_ipv4_beside(address.port());
        let bound = if has_ipv4 && address.is_ipv6() {
            bind_ipv6_only(address)
        } else {
            TcpListener::bind(address)
        };
        match bound {
            Ok(listener) => {
                // It may listen already, with room for few. A client that finds none tries again after a second.
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

/// Like [`TcpListener::bind`], but not for IPv4 too. It does not listen yet.
fn bind_ipv6_only(address: SocketAddr) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let own = socket::socket(AddressFamily::Inet6, SockType::Stream, flags, None)?;
    setsockopt(&own, ReuseAddr, &true)?;
    setsockopt(&own, Ipv6V6Only, &true)?;
    socket::bind(own.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(TcpListener::from_std(own.into()))
}

fn lacks_protocol(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream as StdTcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    fn bind_host(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
        bind(&resolve(host, port)?, &[])
    }

    #[test]
    fn port_0_is_one_port_for_all_addresses() {
        let listeners = bind_host("localhost", 0).unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        assert_ne!(ports[0], 0);
        assert!(ports.iter().all(|port| *port == ports[0]));
    }

    #[track_caller]
    fn bind_texts(texts: &[&str]) -> Vec<SocketAddr> {
        let addresses: Vec<SocketAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let listeners = bind(&addresses, &[]).unwrap();
        listeners
            .iter()
            .map(|listener| {
                let address = listener.local_addr().unwrap();
                // Whichever of the addresses it is for, it takes connections.
                let mut target = address;
                if address.ip().is_unspecified() {
                    target.set_ip(match address {
                        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                    });
                }
                let client = StdTcpStream::connect(target).unwrap();
                let deadline = Instant::now() + Duration::from_secs(20);
                while listener.accept().is_err() {
                    assert!(Instant::now() < deadline, "nothing came to {address}");
                    std::thread::yield_now();
                }
                drop(client);
                address
            })
            .collect()
    }

    fn has_ipv6() -> bool {
        let has = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if !has {
            eprintln!("skipped: this machine has no IPv6");
        }
        has
    }

    #[test]
    fn a_name_may_stand_for_all_of_both_protocols() {
        if !has_ipv6() {
            return;
        }
        for texts in [
            ["0.0.0.0:0", "[::]:0"],
            ["127.0.0.1:0", "[::]:0"],
            ["[::1]:0", "0.0.0.0:0"],
        ] {
            let bound = bind_texts(&texts);
            assert_eq!(bound.len(), 2, "{bound:?}");
            assert_eq!(bound[0].port(), bound[1].port());
        }
    }

    #[test]
    fn all_addresses_of_a_protocol_cover_each_of_them() {
        let bound = bind_texts(&["127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0"]);
        assert!(
            bound.len() == 1 && bound[0].ip().is_unspecified(),
            "{bound:?}"
        );
        if has_ipv6() {
            let bound = bind_texts(&["[::1]:0", "[::]:0"]);
            assert!(
                bound.len() == 1 && bound[0].ip().is_unspecified(),
                "{bound:?}"
            );
        }
    }

    #[test]
    fn what_can_not_be_bound_is_an_error() {
        let taken = bind_host("127.0.0.1", 0).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        assert_eq!(
            bind_host("127.0.0.1", port).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        assert_eq!(
            bind_host("192.0.2.1", 0).unwrap_err().kind(),
            ErrorKind::AddrNotAvailable
        );
    }
}
