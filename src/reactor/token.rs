//! How an event finds its descriptor.
//!
//! A slot is used again after its session was freed, and within one session a restart replaces the pipes. So every
//! registration of a descriptor gets a number of its own, and an event counts only if it bears the number of the
//! descriptor that is there now.

use mio::Token;

/// Slots that a token can name.
pub const MAX_SLOTS: usize = 1 << SLOT_BITS;

const PORT_BITS: u32 = 4;
const SLOT_BITS: u32 = 24;

/// What kind of descriptor an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The signal descriptor.
    Signals,
    /// A listening socket; the slot is its number.
    Listener,
    /// The connection to a client.
    Client,
    /// The stdin of a server, or our own.
    Stdin,
    /// The stdout of a server, or our own.
    Stdout,
    /// The stderr of a server.
    Stderr,
    /// The connection to a proxy.
    Upstream,
    /// The alarm of the loop.
    Alarm,
    /// A pipe of a server that waits for a session; the slot is its number.
    Spares,
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Where the session or the listener is kept.
    pub slot: usize,
    /// Which of its descriptors.
    pub port: Channel,
}

/// Numbers the registrations.
#[derive(Debug, Default)]
pub struct Tokens {
    last: usize,
}

impl Tokens {
    /// A token that no descriptor has. The numbers begin anew after 2^36 of them.
    pub fn next(&mut self, address: Address) -> Token {
        debug_assert!(address.slot < MAX_SLOTS);
        self.last = self.last.wrapping_add(1);
        Token(
            self.last << (SLOT_BITS + PORT_BITS)
                | address.slot << PORT_BITS
                | address.port as usize,
        )
    }
}

impl Address {
    /// Reads a token; `None` if it was not made here.
    pub fn of(token: Token) -> Option<Self> {
        let port = match token.0 & ((1 << PORT_BITS) - 1) {
            0 => Channel::Signals,
            1 => Channel::Listener,
            2 => Channel::Client,
            3 => Channel::Stdin,
            4 => Channel::Stdout,
            5 => Channel::Stderr,
            6 => Channel::Upstream,
            7 => Channel::Alarm,
            8 => Channel::Spares,
            _ => return None,
        };
        Some(Self {
            slot: token.0 >> PORT_BITS & (MAX_SLOTS - 1),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_address_and_is_never_the_same() {
        let mut tokens = Tokens::default();
        let ports = [
            Channel::Signals,
            Channel::Listener,
            Channel::Client,
            Channel::Stdin,
            Channel::Stdout,
            Channel::Stderr,
            Channel::Upstream,
            Channel::Alarm,
            Channel::Spares,
        ];
        for port in ports {
            for slot in [0, 1, MAX_SLOTS - 1] {
                let address = Address { slot, port };
                let (a, b) = (tokens.next(address), tokens.next(address));
                assert_eq!(
                    (Address::of(a), Address::of(b)),
                    (Some(address), Some(address))
                );
                assert_ne!(a, b);
            }
        }
    }
}
