//! Where a client comes from: what the log calls it, and as whom limits count it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::util::defaults::is_default;

/// The address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientAddress {
    /// It came over TCP. An IPv4 address is never written as a v4-mapped IPv6 one.
    Ip(Endpoint),
    /// It came over a unix socket: who it was when it connected (unix(7), `SO_PEERCRED`).
    Unix {
        /// Its user.
        uid: u32,
        /// Its process; 0 if that can't be seen from here.
        pid: u32,
    },
    /// A balancer brought it and could not say whose it is.
    Unknown,
}

/// The address and the port of a TCP connection, in less room than a [`SocketAddr`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    ip: IpAddr,
    port: u16,
    /// Of which network an address is that only counts within one (RFC 4007).
    #[serde(default, skip_serializing_if = "is_default")]
    scope: u32,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self {
            ip: address.ip(),
            port: address.port(),
            scope,
        }
    }
}

impl Endpoint {
    /// The address.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// The port.
    pub fn port(self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, self.port).fmt(f),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.port, 0, self.scope).fmt(f),
        }
    }
}

/// Whom a limit counts: addresses that one client can have many of are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// An IPv4 address.
    Ipv4(u32),
    /// The first 64 bits of an IPv6 address: a single host usually has all that begin so (RFC 6177).
    Ipv6(u64),
    /// A user of this machine.
    User(u32),
    /// Whoever is not known.
    Unknown,
}

impl ClientAddress {
    /// The address of a TCP connection. A v4-mapped one (RFC 4291, 2.5.5.2) is the IPv4 address.
    pub fn of_tcp(mut address: SocketAddr) -> Self {
        address.set_ip(address.ip().to_canonical());
        Self::Ip(address.into())
    }

    /// Its IP address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Unknown => None,
        }
    }

    /// Whom limits count for it.
    pub fn origin(self) -> Origin {
        match self {
            Self::Ip(address) => match address.ip {
                IpAddr::V4(ip) => Origin::Ipv4(ip.to_bits()),
                IpAddr::V6(ip) => Origin::Ipv6((ip.to_bits() >> 64) as u64),
            },
            Self::Unix { uid, .. } => Origin::User(uid),
            Self::Unknown => Origin::Unknown,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { uid, pid } => write!(f, "unix:uid={uid},pid={pid}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ipv4(bits) => Ipv4Addr::from_bits(bits).fmt(f),
            Self::Ipv6(bits) => {
                let network = Ipv6Addr::from_bits(u128::from(bits) << 64);
                write!(f, "{network}/64")
            }
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Unknown => f.write_str("an unknown client"),
        }
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self::of_tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> ClientAddress {
        ClientAddress::of_tcp(text.parse().unwrap())
    }

    #[test]
    fn a_v4_mapped_address_is_the_ipv4_address() {
        let mapped = tcp("[::ffff:192.0.2.7]:80");
        assert_eq!(mapped, tcp("192.0.2.7:80"));
        assert_eq!(mapped.to_string(), "192.0.2.7:80");
        assert_eq!(mapped.origin(), tcp("192.0.2.7:81").origin());
        assert_eq!(mapped.ip(), Some([192, 0, 2, 7].into()));
    }

    #[test]
    fn limits_count_networks_of_ipv6_and_users_of_unix_sockets() {
        assert_eq!(
            tcp("[2001:db8::1]:1").origin(),
            tcp("[2001:db8::ffff:2]:9").origin()
        );
        assert_ne!(
            tcp("[2001:db8:0:1::1]:1").origin(),
            tcp("[2001:db8::1]:1").origin()
        );
        assert_ne!(tcp("192.0.2.1:1").origin(), tcp("192.0.2.2:1").origin());
        let unix = |uid, pid| ClientAddress::Unix { uid, pid };
        assert_eq!(unix(7, 1).origin(), unix(7, 2).origin());
        assert_ne!(unix(7, 1).origin(), unix(8, 1).origin());
        assert_eq!(unix(7, 1).ip(), None);
        assert_eq!(unix(1000, 42).to_string(), "unix:uid=1000,pid=42");
        assert_eq!(ClientAddress::Unknown.origin(), Origin::Unknown);
        let text = |address: ClientAddress| address.origin().to_string();
        assert_eq!(text(tcp("[2001:db8::1]:1")), "2001:db8::/64");
        assert_eq!(text(tcp("192.0.2.1:1")), "192.0.2.1");
    }
}
