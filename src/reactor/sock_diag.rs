//! What the kernel knows about TCP connections: what was sent and not acknowledged, and since when the peer is silent.
//!
//! Asked over netlink, `sock_diag(7)`: one dump answers for every connection on a port, which is far cheaper than a system
//! call for each, and needs no privileges. It must not be relied on: a kernel can be built without it, a sandbox can
//! forbid it. Then [`SockDiag`] returns errors, and callers go on without what it would have told. What a connection's
//! figures mean for a session is not decided here.
//!
//! A connection is recognised by its inode, which [`socket_inode`] gets from the descriptor: one number for a session to
//! keep, unique while the socket is open, and nothing is read from /proc. Its addresses are there as well. A dump is not
//! a snapshot: connections that come or go meanwhile may be missing, or come twice. So what is not in it is not gone.

mod message;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
};
use nix::sys::stat::fstat;

pub use self::message::{Connection, TcpState};
use self::message::{Message, Messages, Request};

/// The kernel fills up to this much at once, if that is what it is offered.
const DUMP_BUFFER_BYTES: usize = 32 * 1024;

/// One connection takes about 400 bytes.
const REPLY_BUFFER_BYTES: usize = 4096;

/// The reads after which a dump is broken off: it is then at some 170,000 connections, and has taken half a second.
const MAX_READS: usize = 2048;

/// A netlink socket that answers questions about the TCP connections of its network namespace.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    /// Tells the replies to one request from those to another.
    sequence: u32,
    /// A request failed half-way, so that its replies may still be in the socket, or its dump under way.
    is_stale: bool,
}

impl SockDiag {
    /// An error if this kernel or this sandbox does not have it. Neither this nor any other method ever blocks.
    pub fn open() -> io::Result<Self> {
        let mut opened = Self {
            socket: open_socket()?,
            sequence: 0,
            is_stale: false,
        };
        let nothing = Request::nothing();
        opened.read_dump(&nothing, &mut [0; REPLY_BUFFER_BYTES], &mut |_| {})?;
        Ok(opened)
    }

    /// Visits the connections whose own port is one of these: those that are set up, and those that are being set up or
    /// closed. Not those that no process has open and that only wait for late segments (`TIME_WAIT`).
    ///
    /// After an error, some may have been visited.
    pub fn dump(
        &mut self,
        local_ports: &[u16],
        mut visit: impl FnMut(&Connection),
    ) -> io::Result<()> {
        let mut buffer = vec![0; DUMP_BUFFER_BYTES];
        for port in local_ports {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let request = Request::dump(family, *port);
                self.read_dump(&request, &mut buffer, &mut visit)?;
            }
        }
        Ok(())
    }

    /// The connection between these two addresses; `None` if there is none.
    pub fn of(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Connection>> {
        self.ask(&Request::one(local, peer))?;
        let mut buffer = [0; REPLY_BUFFER_BYTES];
        for _ in 0..MAX_READS {
            let length = self.receive(&mut buffer)?;
            let Some(message) = Messages::new(&buffer[..length], self.sequence).next() else {
                continue;
            };
            self.is_stale = false;
            return match message {
                // Where there is no connection, the kernel may answer with the listener.
                Message::Connection(found) => Ok(found.is_between(local, peer).then_some(found)),
                Message::OtherSocket | Message::Done | Message::Error(Errno::ENOENT) => Ok(None),
                Message::Error(error) => Err(error.into()),
            };
        }
        Err(too_many_reads())
    }

    fn ask(&mut self, request: &Request) -> io::Result<()> {
        if self.is_stale {
            self.socket = open_socket()?;
        }
        self.is_stale = true;
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.bytes(self.sequence);
        retry(|| socket::send(self.socket.as_raw_fd(), &request, MsgFlags::empty()))?;
        Ok(())
    }

    fn read_dump(
        &mut self,
        request: &Request,
        buffer: &mut [u8],
        visit: &mut impl FnMut(&Connection),
    ) -> io::Result<()> {
        self.ask(request)?;
        for _ in 0..MAX_READS {
            let length = self.receive(buffer)?;
            for message in Messages::new(&buffer[..length], self.sequence) {
                match message {
                    Message::Connection(connection) => visit(&connection),
                    Message::OtherSocket => {}
                    Message::Done => {
                        self.is_stale = false;
                        return Ok(());
                    }
                    Message::Error(error) => return Err(error.into()),
                }
            }
        }
        Err(too_many_reads())
    }

    /// The kernel has the next part ready when the one before it was read, so that there is never anything to wait for.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = retry(|| socket::recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC))?;
        if length > buffer.len() {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "a reply of sock_diag was cut",
            ));
        }
        Ok(length)
    }
}

/// Connected to the kernel, so that nobody else can answer.
fn open_socket() -> io::Result<OwnedFd> {
    let socket = socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// The number by which a socket is recognised among [`Connection`]s.
pub fn socket_inode(socket: impl AsFd) -> io::Result<u32> {
    // Sockets are numbered with 32 bits.
    Ok(fstat(socket)?.st_ino as u32)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn too_many_reads() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "sock_diag does not come to an end")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_left_of_a_request_that_failed_does_not_disturb_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (peer.local_addr().unwrap(), peer.peer_addr().unwrap());
        let mut diag = SockDiag::open().unwrap();
        for _ in 0..3 {
            let all = Request::dump(AddressFamily::Inet, local.port());
            let cut = diag.read_dump(&all, &mut [0; 64], &mut |_| {});
            assert_eq!(cut.unwrap_err().kind(), ErrorKind::InvalidData);
            let found = diag.of(local, remote).unwrap().unwrap();
            assert_eq!(found.inode, socket_inode(&peer).unwrap());
            // Connections to other addresses may have the same local port.
            let mut count = 0;
            diag.dump(&[local.port()], |found| {
                count += usize::from(found.peer == remote);
            })
            .unwrap();
            assert_eq!(count, 1);
        }
    }

    #[test]
    fn a_reply_that_does_not_come_is_an_error_and_not_waited_for() {
        let diag = SockDiag::open().unwrap();
        let error = diag.receive(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
