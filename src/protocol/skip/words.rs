//! A line that is not checked, word by word: how brackets are nested, whatever is in strings.

use crate::protocol::json::word::{HIGHS, ONES, WORD, equal_bytes};

/// A text that is not checked, word by word.
pub(crate) struct Words<'a> {
    rest: &'a [u8],
}

/// What matters of a word without a backslash.
pub(crate) struct Word {
    /// The lowest bit of each byte that is a bracket which opens something, and is not in a string.
    opening: u64,
    /// Of each that closes something.
    closing: u64,
    pub(crate) has_quote: bool,
    pub(crate) ends_in_string: bool,
}

impl Word {
    /// The depth after the word, if it is above zero all the time; `depth` is that before it.
    #[inline]
    pub(crate) fn depth_after(&self, depth: u64) -> Option<u64> {
        // Each byte becomes the number of brackets up to it, and the highest one that of all.
        let opened = self.opening.wrapping_mul(ONES);
        let closed = self.closing.wrapping_mul(ONES);
        let all = u64::BITS - 8;
        if depth <= WORD as u64 {
            let depths = (ONES * depth).wrapping_add(opened).wrapping_sub(closed);
            // The lowest byte that is zero shows; those above it do not matter.
            if depths.wrapping_sub(ONES) & !depths & HIGHS != 0 {
                return None;
            }
        }
        Some(depth + (opened >> all) - (closed >> all))
    }
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// The next word; `None` if there is a backslash in it, or if less than a word is left. `in_string` tells whether it
    /// begins within a string.
    #[inline]
    pub(crate) fn next_unescaped(&mut self, in_string: bool) -> Option<Word> {
        let (word, rest) = self.rest.split_first_chunk()?;
        let word = u64::from_le_bytes(*word);
        if has_byte(word, b'\\') {
            return None;
        }
        self.rest = rest;
        let has_quote = has_byte(word, b'"');
        // Each byte becomes the number of quotation marks up to it.
        let mut counts = ONES * u64::from(in_string);
        if has_quote {
            counts += equal_bytes(word, b'"').wrapping_mul(ONES);
        }
        let outside = !counts & ONES;
        // The two kinds of brackets differ in this bit.
        let brackets = word | (ONES * u64::from(b'{' ^ b'['));
        Some(Word {
            opening: equal_bytes(brackets, b'{') & outside,
            closing: equal_bytes(brackets, b'}') & outside,
            has_quote,
            ends_in_string: counts >> (u64::BITS - 8) & 1 == 1,
        })
    }
}

#[inline]
fn has_byte(word: u64, byte: u8) -> bool {
    let differing = word ^ (ONES * u64::from(byte));
    differing.wrapping_sub(ONES) & !differing & HIGHS != 0
}

/// How many blanks a text that is not checked begins with.
pub(crate) fn count_blanks(text: &[u8]) -> usize {
    let is_blank = |word: u64| {
        let space_or_tab = equal_bytes(word, b' ') | equal_bytes(word, b'\t');
        space_or_tab | equal_bytes(word, b'\r') == ONES
    };
    let (words, _) = text.as_chunks::<WORD>();
    let full = words.iter().map(|word| u64::from_le_bytes(*word));
    let full = WORD * full.take_while(|word| is_blank(*word)).count();
    let rest = text[full..].iter();
    full + rest
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .count()
}
