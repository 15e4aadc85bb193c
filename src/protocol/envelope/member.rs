//! The members of a message that mean something to a proxy, by their names.

use crate::protocol::json::Key;
use crate::protocol::json::text::Text;
use crate::protocol::json::word::WORD;

/// The members that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Id,
    Method,
    Params,
    Result,
    Error,
    Type,
    Other,
}

impl Member {
    fn named(name: &[u8]) -> Self {
        match name {
            b"id" => Self::Id,
            b"method" => Self::Method,
            b"params" => Self::Params,
            b"result" => Self::Result,
            b"error" => Self::Error,
            b"type" => Self::Type,
            _ => Self::Other,
        }
    }

    #[cold]
    fn escaped(inner: &[u8]) -> Self {
        Text::escaped(inner).with_name(Self::named)
    }
}

impl<'a> Key<'a> for Member {
    /// The names of most members, with their quotation marks, are words of the processor.
    #[inline(always)]
    fn at_a_glance(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        const fn word(bytes: [u8; WORD]) -> u64 {
            u64::from_le_bytes(bytes)
        }
        const ID_BYTES: usize = br#""id""#.len();
        const ID_MASK: u64 = word([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let (bytes, rest) = text.split_first_chunk()?;
        let first = word(*bytes);
        if first & ID_MASK == word(*b"\"id\"\0\0\0\0") {
            return Some((Self::Id, &text[ID_BYTES..]));
        }
        let member = if first == word(*br#""method""#) {
            Self::Method
        } else if first == word(*br#""params""#) {
            Self::Params
        } else if first == word(*br#""result""#) {
            Self::Result
        } else {
            return None;
        };
        Some((member, rest))
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs more than this")]
    fn of(text: Text<'a>) -> Self {
        match text.plain() {
            Some(name) => Self::named(name),
            None => Self::escaped(text.inner),
        }
    }
}
