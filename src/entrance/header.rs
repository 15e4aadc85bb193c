//! The header with which a balancer says whose connection it passes on: the PROXY protocol, versions 1 and 2.
//!
//! It is told from its first bytes that what comes is none, and no more of it is kept than the longest one has. Only a
//! whole header is read (by the crate `ppp`).

use std::net::SocketAddr;

use ppp::v1::{self, Addresses as V1Addresses};
use ppp::v2::{self, Addresses as V2Addresses, Command, Protocol};

use crate::util::client_address::ClientAddress;

/// The longest header of version 1, its line end included (section 2.1 of the protocol).
const MAX_V1_BYTES: usize = 107;

/// The longest header of version 2 that is taken, in bytes: addresses have 216 at most, and the certificates' names and
/// the like that balancers put after them a few hundred.
const MAX_V2_BYTES: usize = 4096;

/// What every header of version 2 has, in bytes: the length of the rest is in the last two.
const V2_FIXED_BYTES: usize = 16;

/// With these a header of version 1 begins.
const V1_PREFIX: &[u8] = b"PROXY ";

/// A header that may not have come in whole.
#[derive(Debug, Default)]
pub(super) struct Header {
    bytes: Vec<u8>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This client's, or one that is not known.
    Client(ClientAddress),
    /// The balancer's own: a health check.
    Local,
}

/// What comes is not a header, or one that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoHeader;

impl Header {
    /// Takes what belongs to the header from the front of `input`. Returns what it says once it is whole.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Source>, NoHeader> {
        while let Some((byte, rest)) = input.split_first() {
            self.bytes.push(*byte);
            *input = rest;
            if let Some(origin) = self.look()? {
                return Ok(Some(origin));
            }
        }
        Ok(None)
    }

    fn look(&self) -> Result<Option<Source>, NoHeader> {
        if begins_like(&self.bytes, V1_PREFIX) {
            return self.look_at_v1();
        }
        if begins_like(&self.bytes, v2::PROTOCOL_PREFIX) {
            return self.look_at_v2();
        }
        Err(NoHeader)
    }

    fn look_at_v1(&self) -> Result<Option<Source>, NoHeader> {
        if self.bytes.ends_with(b"\n") {
            let header = v1::Header::try_from(&self.bytes[..]).map_err(|_| NoHeader)?;
            return Ok(Some(of_v1(header.addresses)));
        }
        if self.bytes.len() >= MAX_V1_BYTES {
            return Err(NoHeader);
        }
        Ok(None)
    }

    fn look_at_v2(&self) -> Result<Option<Source>, NoHeader> {
        let Some(length) = self.bytes.get(14..V2_FIXED_BYTES) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let whole = V2_FIXED_BYTES + length;
        if whole > MAX_V2_BYTES {
            return Err(NoHeader);
        }
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let header = v2::Header::try_from(&self.bytes[..]).map_err(|_| NoHeader)?;
        Ok(Some(match (header.command, header.protocol) {
            (Command::Local, _) => Source::Local,
            (Command::Proxy, Protocol::Stream) => of_v2(header.addresses),
            (Command::Proxy, _) => Source::Client(ClientAddress::Unknown),
        }))
    }
}

/// Whether the shorter of both is how the longer one begins.
fn begins_like(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.starts_with(prefix) || prefix.starts_with(bytes)
}

fn of_v1(addresses: V1Addresses) -> Source {
    Source::Client(match addresses {
        V1Addresses::Unknown => ClientAddress::Unknown,
        V1Addresses::Tcp4(tcp) => of_tcp((tcp.source_address, tcp.source_port).into()),
        V1Addresses::Tcp6(tcp) => of_tcp((tcp.source_address, tcp.source_port).into()),
    })
}

fn of_v2(addresses: V2Addresses) -> Source {
    Source::Client(match addresses {
        V2Addresses::IPv4(ip) => of_tcp((ip.source_address, ip.source_port).into()),
        V2Addresses::IPv6(ip) => of_tcp((ip.source_address, ip.source_port).into()),
        V2Addresses::Unspecified | V2Addresses::Unix(_) => ClientAddress::Unknown,
    })
}

fn of_tcp(address: SocketAddr) -> ClientAddress {
    ClientAddress::of_tcp(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    /// A header of version 2: version and command, family and protocol, addresses and what follows them.
    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    /// What a stream begins with, read in two pieces cut everywhere, and byte by byte; and what is left.
    fn read(stream: &[u8]) -> Result<Option<(Source, usize)>, NoHeader> {
        let in_pieces = |pieces: &[&[u8]]| {
            let (mut header, mut origin, mut left) = (Header::default(), None, 0);
            for piece in pieces {
                let mut input = *piece;
                if origin.is_none() {
                    origin = header.take(&mut input)?;
                }
                left += input.len();
            }
            Ok(origin.map(|origin| (origin, left)))
        };
        let whole = in_pieces(&[stream]);
        for cut in 0..stream.len().min(200) {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(in_pieces(&[head, tail]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(in_pieces(&bytes), whole);
        whole
    }

    fn client(text: &str) -> Source {
        Source::Client(ClientAddress::of_tcp(text.parse().unwrap()))
    }

    const UNKNOWN: Source = Source::Client(ClientAddress::Unknown);

    #[test]
    fn version_1_names_the_client() {
        for (line, origin) in [
            (
                "PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n",
                client("192.0.2.7:4660"),
            ),
            (
                "PROXY TCP6 2001:db8::7 ::1 4660 80\r\n",
                client("[2001:db8::7]:4660"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n",
                client("192.0.2.7:1"),
            ),
            ("PROXY UNKNOWN\r\n", UNKNOWN),
            ("PROXY UNKNOWN what ever\r\n", UNKNOWN),
        ] {
            let stream = format!("{line}{{}}\n");
            assert_eq!(read(stream.as_bytes()), Ok(Some((origin, 3))), "{line}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let v6: Vec<u8> = [[0x20, 1], [0xd, 0xb8]]
            .concat()
            .into_iter()
            .chain([0; 11])
            .chain([7])
            .chain([0; 16])
            .chain([0, 9, 0, 80])
            .collect();
        let with_tlvs: Vec<u8> = V4.into_iter().chain([0x20, 0, 3, 1, 2, 3]).collect();
        let many: Vec<u8> = V4.into_iter().chain([0; 4068]).collect();
        for (header, origin) in [
            (v2(0x21, 0x11, &V4), client("192.0.2.7:4660")),
            (v2(0x21, 0x11, &with_tlvs), client("192.0.2.7:4660")),
            (v2(0x21, 0x11, &many), client("192.0.2.7:4660")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::7]:9")),
            (v2(0x21, 0x00, &[]), UNKNOWN),
            (v2(0x21, 0x12, &V4), UNKNOWN),
            (v2(0x21, 0x31, &[0; 216]), UNKNOWN),
            (v2(0x20, 0x00, &[]), Source::Local),
            (v2(0x20, 0x11, &V4), Source::Local),
        ] {
            let mut stream = header;
            stream.extend(b"\r\n\r\n\0");
            assert_eq!(read(&stream), Ok(Some((origin, 5))));
        }
    }

    #[test]
    fn what_is_no_header_is_known_by_its_first_bytes() {
        for bad in [
            &b"{\"type\":\"handshake\"}\n"[..],
            b"PROXX",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80000\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 4660 80\r\n",
        ] {
            assert_eq!(read(bad), Err(NoHeader), "{}", bad.escape_ascii());
        }
        let too_long: Vec<u8> = V4.into_iter().chain([0; 4069]).collect();
        assert_eq!(read(&v2(0x21, 0x11, &too_long)), Err(NoHeader));
        assert_eq!(read(&v2(0x31, 0x11, &V4)), Err(NoHeader), "version 3");
        assert_eq!(read(&v2(0x21, 0x11, &V4[..8])), Err(NoHeader), "too short");
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(107));
        assert_eq!(read(endless.as_bytes()), Err(NoHeader));
    }

    #[test]
    fn half_a_header_is_waited_for() {
        for half in [
            &b""[..],
            b"PRO",
            b"PROXY TCP4 192.0.2.7",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
        ] {
            assert_eq!(read(half), Ok(None));
        }
    }
}
