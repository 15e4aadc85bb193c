//! Networks in CIDR notation, and whether an address is in one of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    first: IpAddr,
    /// How many bits all of them share.
    bits: u8,
}

/// An IPv4 address as an IPv6 one begins with this many bits that say so.
const MAPPED_BITS: u8 = 96;

impl Network {
    /// Reads `192.0.2.0/24`, `2001:db8::/32`, or an address alone. A v4-mapped network (`::ffff:192.0.2.0/120`) is the
    /// IPv4 network. The error completes the sentence "'x' is not …".
    pub fn parse(text: &str) -> Result<Self, String> {
        let not_one = || "a network (192.0.2.0/24, 2001:db8::/32 or an address)".to_owned();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| not_one())?;
        let width: u8 = if written.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(not_one)?,
            Some(_) => return Err(not_one()),
        };
        let (first, bits) = match written.to_canonical() {
            mapped @ IpAddr::V4(_) if written.is_ipv6() && bits >= MAPPED_BITS => {
                (mapped, bits - MAPPED_BITS)
            }
            _ => (written, bits),
        };
        let network = Self {
            first: masked(first, bits),
            bits,
        };
        if network.first != first {
            return Err(format!(
                "a network, as bits after the first {bits} are set (did you mean {network}?)"
            ));
        }
        Ok(network)
    }

    /// Whether it has this address. A v4-mapped one is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }

    /// Whether it has all addresses of its kind.
    pub fn is_everything(&self) -> bool {
        self.bits == 0
    }
}

/// The first `bits` bits of an address.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(network: &str, address: &str) -> bool {
        let network = Network::parse(network).unwrap();
        network.contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_if_it_begins_like_it() {
        assert!(has("192.0.2.0/24", "192.0.2.255"));
        assert!(!has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("192.0.2.7", "192.0.2.7"));
        assert!(!has("192.0.2.7", "192.0.2.6"));
        assert!(has("0.0.0.0/0", "8.8.8.8"));
        assert!(!has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::/0", "2001:db8::1"));
        assert!(has("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!has("2001:db8::/33", "2001:db8:8000::1"));
    }

    #[test]
    fn a_v4_mapped_address_is_the_ipv4_address() {
        assert!(has("192.0.2.0/24", "::ffff:192.0.2.9"));
        assert!(has("::ffff:192.0.2.0/120", "192.0.2.9"));
        assert!(!has("::ffff:192.0.2.0/120", "192.0.3.9"));
        assert!(!has("::/0", "::ffff:192.0.2.9"), "that is IPv4");
        assert!(!has("::/0", "192.0.2.9"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "x",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "::/129",
            "192.0.2/24",
            "[::1]/128",
            "192.0.2.0/24/1",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
        let slip = Network::parse("192.0.2.7/24").unwrap_err();
        assert!(slip.contains("did you mean 192.0.2.0/24?"), "{slip}");
    }

    #[test]
    fn a_network_of_everything_is_known_as_such() {
        for (text, is_everything) in [("0.0.0.0/0", true), ("::/0", true), ("10.0.0.0/8", false)] {
            assert_eq!(Network::parse(text).unwrap().is_everything(), is_everything);
        }
    }
}
