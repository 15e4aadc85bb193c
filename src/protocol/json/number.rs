//! Numbers, and the words that may stand in the place of any value, Python's constants among them.

use super::word::{HIGHS, WORD, all};

/// This many digits always fit.
const SAFE_DIGITS: usize = 18;

/// What follows a positive integer, if that is all there is, and what it says, if it has few digits.
#[inline(always)]
pub(super) fn after_integer(text: &[u8]) -> Option<(&[u8], Option<i64>)> {
    let [b'1'..=b'9', ..] = text else {
        return None;
    };
    let (rest, value) = few_digits(text).unwrap_or_else(|| any_digits(text));
    if let [b'.' | b'e' | b'E', ..] = rest {
        return None;
    }
    Some((rest, value))
}

/// What follows the digits at the beginning of a text, of which there is one at least, and what they say, if they are fewer
/// than the bytes of a word.
#[inline(always)]
fn few_digits(text: &[u8]) -> Option<(&[u8], Option<i64>)> {
    let (bytes, _) = text.split_first_chunk::<WORD>()?;
    let digits = u64::from_le_bytes(*bytes) ^ all(b'0');
    // The highest bit of the first byte that is none, and none before it.
    let others = (digits.wrapping_add(all(0x7f - 9)) | digits) & HIGHS;
    if others == 0 {
        return None;
    }
    let bits = others.trailing_zeros() & !7;
    let rest = text.get(bits as usize / 8..)?;
    Some((rest, Some(value_of(digits << (64 - bits)).cast_signed())))
}

/// What eight digits say, the first of which is in the lowest byte: pairs of them are put together, then pairs of these.
#[inline(always)]
fn value_of(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(10 << 8 | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000 << 32 | 1) >> 32
}

#[inline(never)]
fn any_digits(text: &[u8]) -> (&[u8], Option<i64>) {
    let (mut value, mut rest) = (0_u64, text);
    while let [digit @ b'0'..=b'9', more @ ..] = rest {
        value = value
            .wrapping_mul(10)
            .wrapping_add(u64::from(*digit - b'0'));
        rest = more;
    }
    let is_safe = text.len() - rest.len() <= SAFE_DIGITS;
    (rest, is_safe.then_some(value.cast_signed()))
}

pub(super) fn after_number_or_word(text: &[u8]) -> Option<&[u8]> {
    let mut rest = match text {
        [b'-', b'I', ..] => return after_word(&text[1..]),
        [b'-', rest @ ..] => rest,
        [b'0'..=b'9', ..] => text,
        _ => return after_word(text),
    };
    rest = match rest {
        [b'0', rest @ ..] => rest,
        _ => skip_digits(rest)?,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = skip_digits(fraction)?;
    }
    if let [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] = rest {
        rest = skip_digits(exponent)?;
    }
    Some(rest)
}

/// Skips digits, of which there must be one.
fn skip_digits(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'0'..=b'9', rest @ ..] => Some(skip_any_digits(rest)),
        _ => None,
    }
}

#[inline(always)]
fn skip_any_digits(mut text: &[u8]) -> &[u8] {
    while let [b'0'..=b'9', rest @ ..] = text {
        text = rest;
    }
    text
}

fn after_word(text: &[u8]) -> Option<&[u8]> {
    let words: [&[u8]; 5] = [b"true", b"false", b"null", b"NaN", b"Infinity"];
    words.iter().find_map(|word| text.strip_prefix(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_what_its_digits_say_however_many_and_whatever_follows() {
        for count in 1..=20 {
            let digits = &"98765432109876543210"[..count];
            let value = digits.parse().ok().filter(|_| count <= SAFE_DIGITS);
            for after in ["", ",", "}", ":", "/", "\0", "é", "\u{80}\"1", " 123456789"] {
                let text = format!("{digits}{after}");
                let read = after_integer(text.as_bytes());
                assert_eq!(read, Some((after.as_bytes(), value)), "{text:?}");
            }
            for after in [".5", "e1", "E+1"] {
                let text = format!("{digits}{after}");
                assert_eq!(after_integer(text.as_bytes()), None, "{text}");
            }
        }
        for text in ["", "0", "01", "-1", "x"] {
            assert_eq!(after_integer(text.as_bytes()), None, "{text}");
        }
    }
}
