//! The bytes of `sock_diag(7)`: requests are written, replies are read. No system calls.
//!
//! All numbers are in the machine's own order, but for addresses and ports, which are in the network's. What a reply lacks
//! because the kernel is older reads as zero; what makes no sense ends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;

/// `nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// `nlmsghdr` and `inet_diag_req_v2`.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// `inet_diag_msg`.
const CONNECTION_BYTES: usize = 72;
/// `nlattr`: length, type.
const ATTRIBUTE_HEADER_BYTES: usize = 4;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;

const IPPROTO_TCP: u8 = 6;
/// The attribute with a `tcp_info`.
const INET_DIAG_INFO: u16 = 2;
/// Stands for any socket, where one could be told from an earlier one with the same addresses.
const INET_DIAG_NOCOOKIE: u32 = u32::MAX;

/// The states of a connection, by the kernel's numbers. Not among them are those in which no process can have it open.
#[allow(missing_docs, reason = "RFC 9293 explains them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    FinWait1 = 4,
    FinWait2 = 5,
    CloseWait = 8,
    LastAck = 9,
    Closing = 11,
}

impl TcpState {
    const ALL: [Self; 7] = [
        Self::Established,
        Self::SynSent,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::LastAck,
        Self::Closing,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// All of them, each a bit.
    fn mask() -> u32 {
        Self::ALL
            .into_iter()
            .fold(0, |mask, state| mask | 1 << (state as u8))
    }
}

/// What the kernel says about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// See [`super::socket_inode`]; 0 once the process has closed the socket.
    pub inode: u32,
    /// IPv4 even if the socket is an IPv6 one.
    pub local: SocketAddr,
    /// IPv4 even if the socket is an IPv6 one.
    pub peer: SocketAddr,
    /// Where it is in its life.
    pub state: TcpState,
    /// Bytes that the peer has not acknowledged, whether they were sent or not. The end of the stream counts as one.
    pub send_queue: u32,
    /// Those of them that were sent.
    pub unacknowledged: u32,
    /// How often the oldest of them was sent again in vain. An acknowledgement makes it 0.
    pub retransmits: u8,
    /// Probes, for a window or to keep alive, that were not answered. An acknowledgement makes it 0.
    pub probes: u8,
    /// The time since the last acknowledgement came. Answers to probes are such, too.
    pub last_ack: Duration,
    /// The time since data was sent last.
    pub last_sent: Duration,
}

impl Connection {
    /// Whether the peer owes acknowledgements and has sent none for longer than this, although it was asked again.
    ///
    /// A peer that is there and does not read acknowledges the probes of its window. But these get to be two minutes
    /// apart, one can be under way, and one can have been lost.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        let was_asked_again = self.retransmits > 0 || self.probes > 2;
        self.send_queue > 0 && was_asked_again && self.last_ack > time
    }

    /// Whether it is the one between these addresses.
    pub(super) fn is_between(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let same = |a: SocketAddr, b: SocketAddr| {
            (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
        };
        same(self.local, local) && same(self.peer, peer)
    }
}

/// A question to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    flags: u16,
    family: u8,
    states: u32,
    local: SocketAddr,
    peer: SocketAddr,
    interface: u32,
}

impl Request {
    /// All connections of a family with this port on our side.
    pub(super) fn dump(family: AddressFamily, local_port: u16) -> Self {
        Self {
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            family: family as u8,
            states: TcpState::mask(),
            local: (Ipv4Addr::UNSPECIFIED, local_port).into(),
            peer: (Ipv4Addr::UNSPECIFIED, 0).into(),
            interface: 0,
        }
    }

    /// What every kernel that can answer at all answers with nothing.
    pub(super) fn nothing() -> Self {
        Self {
            states: 0,
            ..Self::dump(AddressFamily::Inet, 0)
        }
    }

    /// The connection between two addresses. That of an IPv6 socket with an IPv4 peer is found as an IPv4 one.
    pub(super) fn one(local: SocketAddr, peer: SocketAddr) -> Self {
        let is_v4 = local.ip().to_canonical().is_ipv4();
        let family = if is_v4 {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let interface = match local {
            SocketAddr::V6(address) => address.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self {
            flags: NLM_F_REQUEST,
            family: family as u8,
            states: TcpState::mask(),
            local,
            peer,
            interface,
        }
    }

    pub(super) fn bytes(&self, sequence: u32) -> [u8; REQUEST_BYTES] {
        let mut writer = Writer::default();
        writer.put((REQUEST_BYTES as u32).to_ne_bytes());
        writer.put(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        writer.put(self.flags.to_ne_bytes());
        writer.put(sequence.to_ne_bytes());
        writer.put(0_u32.to_ne_bytes());
        writer.put([self.family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
        writer.put(self.states.to_ne_bytes());
        writer.put(self.local.port().to_be_bytes());
        writer.put(self.peer.port().to_be_bytes());
        writer.put(address_bytes(self.local.ip()));
        writer.put(address_bytes(self.peer.ip()));
        writer.put(self.interface.to_ne_bytes());
        writer.put(INET_DIAG_NOCOOKIE.to_ne_bytes());
        writer.put(INET_DIAG_NOCOOKIE.to_ne_bytes());
        debug_assert_eq!(writer.length, REQUEST_BYTES);
        writer.bytes
    }
}

struct Writer {
    bytes: [u8; REQUEST_BYTES],
    length: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            bytes: [0; REQUEST_BYTES],
            length: 0,
        }
    }
}

impl Writer {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.length..self.length + N].copy_from_slice(&bytes);
        self.length += N;
    }
}

/// An IPv4 address takes the first four bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// One part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Connection(Connection),
    /// A socket that is not a connection, or not any more.
    OtherSocket,
    /// The dump is complete.
    Done,
    Error(Errno),
}

/// The messages in what was received, as far as they answer the request with this number.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
    sequence: u32,
}

impl<'a> Messages<'a> {
    pub(super) fn new(received: &'a [u8], sequence: u32) -> Self {
        Self {
            rest: received,
            sequence,
        }
    }
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            let header = Fields(self.rest.get(..HEADER_BYTES)?);
            let (length, kind, sequence) = (header.u32(0), header.u16(4), header.u32(8));
            let body = self.rest.get(HEADER_BYTES..length as usize)?;
            self.rest = after(self.rest, length as usize);
            if sequence == self.sequence && kind != NLMSG_NOOP {
                return Some(read_message(kind, body));
            }
        }
    }
}

fn read_message(kind: u16, body: &[u8]) -> Message {
    match kind {
        // A dump that failed says so where it ends.
        NLMSG_DONE | NLMSG_ERROR => match i32::from_ne_bytes(Fields(body).array(0)) {
            0 => Message::Done,
            number => Message::Error(Errno::from_raw(number.saturating_neg())),
        },
        SOCK_DIAG_BY_FAMILY => {
            read_connection(body).map_or(Message::OtherSocket, Message::Connection)
        }
        _ => Message::OtherSocket,
    }
}

fn read_connection(body: &[u8]) -> Option<Connection> {
    let (fixed, attributes) = body.split_at_checked(CONNECTION_BYTES)?;
    let info = Fields(attribute(attributes, INET_DIAG_INFO).unwrap_or_default());
    let fields = Fields(fixed);
    let send_queue = fields.u32(60);
    Some(Connection {
        inode: fields.u32(68),
        local: read_address(fields, 8, 4)?,
        peer: read_address(fields, 24, 6)?,
        state: TcpState::from_number(fields.u8(1))?,
        send_queue,
        unacknowledged: send_queue.saturating_sub(info.u32(144)),
        retransmits: info.u8(2),
        probes: info.u8(3),
        last_ack: Duration::from_millis(info.u32(56).into()),
        last_sent: Duration::from_millis(info.u32(44).into()),
    })
}

/// The address at this offset with the port at that one.
fn read_address(fields: Fields<'_>, address: usize, port: usize) -> Option<SocketAddr> {
    const INET: u8 = AddressFamily::Inet as u8;
    const INET6: u8 = AddressFamily::Inet6 as u8;
    let ip = match fields.u8(0) {
        INET => Ipv4Addr::from(fields.array(address)).into(),
        INET6 => Ipv6Addr::from(fields.array(address)).to_canonical(),
        _ => return None,
    };
    Some((ip, u16::from_be_bytes(fields.array(port))).into())
}

/// The content of the attribute of this kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let header = Fields(attributes.get(..ATTRIBUTE_HEADER_BYTES)?);
        let length = usize::from(header.u16(0));
        let content = attributes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        if header.u16(2) == kind {
            return Some(content);
        }
        attributes = after(attributes, length);
    }
}

/// What comes after so many bytes; all begins at a multiple of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

/// Numbers at offsets; zero where there is nothing.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        self.0
            .get(offset..offset + N)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    fn u8(self, offset: usize) -> u8 {
        u8::from_ne_bytes(self.array(offset))
    }

    fn u16(self, offset: usize) -> u16 {
        u16::from_ne_bytes(self.array(offset))
    }

    fn u32(self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.array(offset))
    }
}

#[cfg(test)]
mod tests;
