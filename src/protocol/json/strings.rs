//! Where a string ends.

use super::word::{HIGHS, ONES, WORD, all};

/// Bytes that are examined at once where a string is long.
const CHUNK: usize = 32;

/// Most strings end within this many words.
const SHORT_WORDS: usize = 2;

/// A string of this many words and more is likely to be much longer.
const LONG_WORDS: usize = 4;

/// What follows a string, if it ends within a few words and is plain ASCII; otherwise what follows a part of it that is.
/// `text` begins after the string's quotation mark. For a key, less is plain: see [`special_in_key`].
#[inline(always)]
pub(crate) fn after_plain_string<const IS_KEY: bool>(mut text: &[u8]) -> Result<&[u8], &[u8]> {
    for _ in 0..SHORT_WORDS {
        let Some((bytes, rest)) = text.split_first_chunk::<WORD>() else {
            break;
        };
        let word = u64::from_le_bytes(*bytes);
        let special = if IS_KEY {
            special_in_key(word)
        } else {
            special_in_ascii(word)
        };
        let special = (special | word) & HIGHS;
        if special != 0 {
            let place = special.trailing_zeros() as usize / 8;
            return if text.get(place) == Some(&b'"') {
                Ok(&text[place + 1..])
            } else {
                Err(&text[place..])
            };
        }
        text = rest;
    }
    Err(text)
}

/// What follows a string, and what was in it.
pub(crate) struct StringEnd<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) is_ascii: bool,
    pub(crate) has_escapes: bool,
}

/// Reads the rest of a string, whatever is in it.
#[inline(never)]
pub(crate) fn string_end(text: &[u8]) -> Option<StringEnd<'_>> {
    let mut seen = 0;
    let text = skip_plain(skip_plain_chunks(text, &mut seen), &mut seen);
    if let [b'"', rest @ ..] = text {
        return Some(StringEnd {
            rest,
            is_ascii: seen & HIGHS == 0,
            has_escapes: false,
        });
    }
    escaped_string_end(text, seen)
}

/// The same from an escape on; `seen` are the bits of what is before it.
#[inline(never)]
fn escaped_string_end(mut text: &[u8], mut seen: u64) -> Option<StringEnd<'_>> {
    let mut has_escapes = false;
    loop {
        text = match text {
            [b'"', rest @ ..] => {
                return Some(StringEnd {
                    rest,
                    is_ascii: seen & HIGHS == 0,
                    has_escapes,
                });
            }
            [
                b'\\',
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                rest @ ..,
            ] => rest,
            [b'\\', b'u', a, b, c, d, rest @ ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                rest
            }
            _ => return None,
        };
        has_escapes = true;
        // Escapes often follow each other.
        if text.first() != Some(&b'\\') {
            text = skip_plain_part(text, &mut seen);
        }
    }
}

/// Skips what is between two escapes.
#[inline(never)]
fn skip_plain_part<'a>(text: &'a [u8], seen: &mut u64) -> &'a [u8] {
    skip_plain(text, seen)
}

/// What follows the bytes that mean nothing in a string: all but a quotation mark, a backslash, and a control character,
/// which is not allowed there. Adds their bits to `seen`.
#[inline(always)]
fn skip_plain<'a>(mut text: &'a [u8], seen: &mut u64) -> &'a [u8] {
    let mut words = 0;
    while let Some((word, rest)) = text.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let special = special_bytes(word);
        *seen |= word;
        if special != 0 {
            return &text[special.trailing_zeros() as usize / 8..];
        }
        text = rest;
        words += 1;
        if words == LONG_WORDS {
            text = skip_plain_chunks(text, seen);
        }
    }
    // What is left is shorter than a word.
    while let Some((byte, rest)) = text.split_first()
        && !is_special(*byte)
    {
        *seen |= u64::from(*byte);
        text = rest;
    }
    text
}

/// Skips all chunks before the first one with such a byte in it. Compilers make vector instructions of the loop over the
/// bytes of a chunk.
#[inline(always)]
fn skip_plain_chunks<'a>(mut text: &'a [u8], seen: &mut u64) -> &'a [u8] {
    while let Some((chunk, rest)) = text.split_first_chunk::<CHUNK>() {
        if chunk
            .iter()
            .fold(false, |any, byte| any | is_special(*byte))
        {
            break;
        }
        for word in chunk.as_chunks::<WORD>().0 {
            *seen |= u64::from_le_bytes(*word);
        }
        text = rest;
    }
    text
}

/// With this bit flipped, the quotation mark follows the control characters, and the two that were there are above it.
const FLIP: u8 = b'"' ^ b' ';

#[expect(
    clippy::needless_bitwise_bool,
    reason = "bytes are examined side by side, so there is nothing to be skipped"
)]
fn is_special(byte: u8) -> bool {
    (byte ^ FLIP <= b' ') | (byte == b'\\')
}

/// The highest bits of special bytes, as far as all bytes before them are ASCII; nothing is meant by the other bits. No byte
/// that is ASCII borrows from the next one when it is subtracted from the highest bit.
#[inline(always)]
fn special_in_ascii(word: u64) -> u64 {
    let control_or_quote = (HIGHS + all(b' ')).wrapping_sub(word ^ all(FLIP));
    control_or_quote | HIGHS.wrapping_sub(word ^ all(b'\\'))
}

/// The same, with the two characters that are below the quotation mark and are not special: they are rare in keys, and what
/// they cost there is less than to tell them apart everywhere.
#[inline(always)]
fn special_in_key(word: u64) -> u64 {
    (HIGHS + all(b'"')).wrapping_sub(word) | HIGHS.wrapping_sub(word ^ all(b'\\'))
}

/// The highest bit of the lowest special byte, and none below it. What it says about the bytes above is not exact, as a
/// subtraction borrows from them.
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    let control_or_quote = (word ^ all(FLIP)).wrapping_sub(all(b' ' + 1));
    let backslash = (word ^ all(b'\\')).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGHS
}
