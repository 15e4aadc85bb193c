//! Where a string ends.

use super::word::{HIGHS, ONES, WORD, word_at};

/// Words in a block.
const BLOCK_WORDS: usize = 8;

/// Most strings end within this many words.
const SHORT_WORDS: usize = 2;

/// A string of this many words and more is likely to be much longer.
const LONG_WORDS: usize = 4;

/// The place after a string that begins at `start`, after its quotation mark, and ends within a few words, if it is
/// plain ASCII.
#[inline(always)]
pub(crate) fn plain_string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    for _ in 0..SHORT_WORDS {
        let word = word_at(text, at)?;
        let special = special_bytes(word) | word & HIGHS;
        if special != 0 {
            at += special.trailing_zeros() as usize / 8;
            return (text.get(at) == Some(&b'"')).then_some(at + 1);
        }
        at += WORD;
    }
    None
}

/// Where a string ends, and what was in it.
pub(crate) struct StringEnd {
    /// The place after the closing quotation mark.
    pub(crate) at: usize,
    pub(crate) is_ascii: bool,
    pub(crate) has_escapes: bool,
}

/// Reads the rest of a string from `start` on, whatever is in it.
#[inline(never)]
pub(crate) fn string_end(text: &[u8], start: usize) -> Option<StringEnd> {
    let (mut at, mut seen) = plain_end(text, start);
    let mut has_escapes = false;
    loop {
        match text[at..] {
            [b'"', ..] => {
                return Some(StringEnd {
                    at: at + 1,
                    is_ascii: seen & HIGHS == 0,
                    has_escapes,
                });
            }
            [
                b'\\',
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                ..,
            ] => at += 2,
            [b'\\', b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => {
                at += 6;
            }
            _ => return None,
        }
        has_escapes = true;
        // Escapes often follow each other.
        if text.get(at) != Some(&b'\\') {
            let (end, bits) = plain_end(text, at);
            at = end;
            seen |= bits;
        }
    }
}

/// The place, from `at` on, of the first byte that means something in a string: a quotation mark, a backslash, or a
/// control character, which is not allowed there. Returns the bits of the bytes before it, too.
#[inline]
fn plain_end(text: &[u8], mut at: usize) -> (usize, u64) {
    let mut seen = 0;
    let mut words = 0;
    while let Some(word) = word_at(text, at) {
        let special = special_bytes(word);
        seen |= word;
        if special != 0 {
            return (at + special.trailing_zeros() as usize / 8, seen);
        }
        at += WORD;
        words += 1;
        if words == LONG_WORDS {
            let (end, bits) = skip_plain_blocks(text, at);
            at = end;
            seen |= bits;
        }
    }
    // What is left is shorter than a word.
    while let Some(byte) = text.get(at).filter(|byte| !is_special(**byte)) {
        seen |= u64::from(*byte);
        at += 1;
    }
    (at, seen)
}

/// The place, from `at` on, of the first block with such a byte in it, or of what follows the last block. The bytes of a
/// block are compared a vector at a time.
#[inline(never)]
fn skip_plain_blocks(text: &[u8], mut at: usize) -> (usize, u64) {
    let mut seen = 0;
    let (words, _) = text[at..].as_chunks::<WORD>();
    let (blocks, _) = words.as_chunks::<BLOCK_WORDS>();
    for block in blocks {
        let mut special = 0;
        for word in block {
            let word = u64::from_le_bytes(*word);
            special |= special_bytes(word);
            seen |= word;
        }
        if special != 0 {
            break;
        }
        at += WORD * BLOCK_WORDS;
    }
    (at, seen)
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..b' ')
}

/// The highest bit of the lowest special byte, and none below it. What it says about the bytes above is not exact, as a
/// subtraction borrows from them.
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    const fn all(byte: u8) -> u64 {
        ONES * byte as u64
    }
    // With this bit flipped, the quotation mark follows the control characters, and the two that were there are above it.
    const FLIP: u8 = b'"' ^ b' ';
    let control_or_quote = (word ^ all(FLIP)).wrapping_sub(all(b' ' + 1));
    let backslash = (word ^ all(b'\\')).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGHS
}
