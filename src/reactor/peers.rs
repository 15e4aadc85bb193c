//! What the system knows of the peers of connections, as far as it says so: without `sock_diag(7)` nobody is known to have
//! vanished.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::debug;
use mio::net::TcpStream;

use super::sock_diag::{Connection, SockDiag, socket_inode};

/// Asks the system about connections.
#[derive(Debug)]
pub struct Peers {
    diag: Option<SockDiag>,
}

impl Peers {
    /// That the system can't be asked is logged here, once.
    pub fn new() -> Self {
        let diag = SockDiag::open()
            .inspect_err(|error| {
                debug!("the kernel does not tell about connections (sock_diag): {error}");
            })
            .ok();
        Self { diag }
    }

    /// Of the peers of these connections, all to one of these ports of ours, those that owe acknowledgements and have sent
    /// nothing for longer than `time`. What the connections are is looked up only if there is such a peer.
    pub fn vanished<'a, K>(
        &mut self,
        ports: &[u16],
        all: impl Iterator<Item = (K, &'a TcpStream)>,
        time: Duration,
    ) -> Vec<K> {
        let mut all = all.peekable();
        let Some(diag) = self.diag.as_mut().filter(|_| all.peek().is_some()) else {
            return Vec::new();
        };
        let mut silent = Vec::new();
        let looked = diag.dump(ports, |connection| {
            if connection.is_silent_for(time) {
                silent.push(connection.inode);
            }
        });
        note(&looked);
        if silent.is_empty() {
            return Vec::new();
        }
        all.filter(|(_, stream)| socket_inode(stream).is_ok_and(|inode| silent.contains(&inode)))
            .map(|(key, _)| key)
            .collect()
    }

    /// Whether the peer of this connection is one of these.
    pub fn has_vanished(&mut self, stream: &TcpStream, time: Duration) -> bool {
        let connection = self.connection(stream);
        connection.is_some_and(|connection| connection.is_silent_for(time))
    }

    /// What was written to this connection and not acknowledged, in bytes, if the system tells.
    pub fn unsent(&mut self, stream: &TcpStream) -> Option<u32> {
        Some(self.connection(stream)?.send_queue)
    }

    fn connection(&mut self, stream: &TcpStream) -> Option<Connection> {
        let diag = self.diag.as_mut()?;
        let (local, peer) = addresses(stream).ok()?;
        let found = diag.of(local, peer);
        note(&found);
        found.ok().flatten()
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

fn addresses(stream: &TcpStream) -> io::Result<(SocketAddr, SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// A question that failed is not asked again before its time.
fn note<T>(asked: &io::Result<T>) {
    if let Err(error) = asked {
        debug!("the kernel did not tell about connections: {error}");
    }
}

/// What a connection fails with whose peer has vanished.
pub fn vanished_error() -> io::Error {
    nix::errno::Errno::ETIMEDOUT.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as Blocking};

    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, Blocking) {
        let client = Blocking::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (TcpStream::from_std(server), client)
    }

    #[test]
    fn whoever_is_there_has_not_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs = [pair(&listener), pair(&listener)];
        let mut peers = Peers::new();
        assert!(peers.diag.is_some());
        for (server, _) in &pairs {
            (&*server).write_all(b"x").unwrap();
            assert!(!peers.has_vanished(server, Duration::ZERO));
            while peers.unsent(server) != Some(0) {
                std::thread::yield_now();
            }
        }
        let all = || pairs.iter().enumerate().map(|(key, pair)| (key, &pair.0));
        let port = listener.local_addr().unwrap().port();
        for all in [all().take(2), all().take(0)] {
            assert!(peers.vanished(&[port], all, Duration::ZERO).is_empty());
        }
    }

    #[test]
    fn nobody_is_known_to_have_vanished_where_the_system_does_not_tell() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (server, _client) = pair(&listener);
        let mut peers = Peers { diag: None };
        assert!(!peers.has_vanished(&server, Duration::ZERO));
        assert_eq!(peers.unsent(&server), None);
        let all = [((), &server)].into_iter();
        assert!(peers.vanished(&[80], all, Duration::ZERO).is_empty());
    }
}
