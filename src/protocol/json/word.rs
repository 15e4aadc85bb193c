//! Eight bytes at a time, in a register of any processor.

/// The lowest bit of each byte of a word.
pub(crate) const ONES: u64 = u64::MAX / 0xff;

/// The highest bit of each.
pub(crate) const HIGHS: u64 = ONES << 7;

/// Bytes in a word.
pub(crate) const WORD: usize = size_of::<u64>();

/// The lowest bit of each byte that equals `byte`.
#[inline(always)]
pub(crate) fn equal_bytes(word: u64, byte: u8) -> u64 {
    let differing = word ^ all(byte);
    // The highest bit of each byte that is not zero; no sum exceeds its byte.
    let not_zero = ((differing & !HIGHS) + !HIGHS) | differing;
    (!not_zero & HIGHS) >> 7
}

/// A word of which each byte is this one.
pub(crate) const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}
