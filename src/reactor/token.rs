//! How an event finds its descriptor.
//!
//! A key is used again after what it named was freed, and within one session a restart replaces the pipes. So every
//! registration of a descriptor gets a number of its own, and an event counts only if it bears the number of the
//! descriptor that is there now.

use std::marker::PhantomData;

use mio::Token;

/// Keys that a token can name.
pub const MAX_KEYS: usize = 1 << KEY_BITS;

/// 16 channels: no loop has half as many.
const CHANNEL_BITS: u32 = 4;

/// 16 million sessions: more than there are ports, descriptors or processes for.
const KEY_BITS: u32 = 24;

/// The kinds of descriptors that a loop watches.
pub trait Channel: Copy + 'static {
    /// All of them, in the order of their numbers.
    const ALL: &'static [Self];

    /// Its place in [`Self::ALL`].
    fn number(self) -> usize;
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<C> {
    /// Which session, server or listener.
    pub key: usize,
    /// Which of its descriptors.
    pub channel: C,
}

/// Numbers the registrations.
#[derive(Debug)]
pub struct Tokens<C> {
    last: usize,
    channels: PhantomData<C>,
}

impl<C> Default for Tokens<C> {
    fn default() -> Self {
        Self {
            last: 0,
            channels: PhantomData,
        }
    }
}

impl<C: Channel> Tokens<C> {
    /// A token that no descriptor has. The numbers begin anew after 2^36 of them.
    pub fn next(&mut self, target: Target<C>) -> Token {
        debug_assert!(target.key < MAX_KEYS);
        self.last = self.last.wrapping_add(1);
        Token(
            self.last << (KEY_BITS + CHANNEL_BITS)
                | target.key << CHANNEL_BITS
                | target.channel.number(),
        )
    }
}

impl<C: Channel> Target<C> {
    /// Reads a token; `None` if it was not made here.
    pub fn of(token: Token) -> Option<Self> {
        let channel = *C::ALL.get(token.0 & ((1 << CHANNEL_BITS) - 1))?;
        Some(Self {
            key: token.0 >> CHANNEL_BITS & (MAX_KEYS - 1),
            channel,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        First,
        Last,
    }

    impl Channel for Kind {
        const ALL: &'static [Self] = &[Self::First, Self::Last];

        fn number(self) -> usize {
            self as usize
        }
    }

    #[test]
    fn a_token_tells_its_target_and_is_never_the_same() {
        let mut tokens = Tokens::default();
        for channel in [Kind::First, Kind::Last] {
            for key in [0, 1, MAX_KEYS - 1] {
                let target = Target { key, channel };
                let (a, b) = (tokens.next(target), tokens.next(target));
                assert_eq!((Target::of(a), Target::of(b)), (Some(target), Some(target)));
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn a_channel_that_there_is_not_is_not_made_up() {
        assert_eq!(Target::<Kind>::of(Token(2)), None);
        assert_eq!(Target::<Kind>::of(Token(15)), None);
    }
}
