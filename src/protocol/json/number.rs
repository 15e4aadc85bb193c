//! Numbers, and the words that may stand in the place of any value, Python's constants among them.

/// This many digits always fit.
const SAFE_DIGITS: usize = 18;

/// What follows a positive integer, if that is all there is, and what it says, if it has few digits.
#[inline(always)]
pub(super) fn after_integer(text: &[u8]) -> Option<(&[u8], Option<i64>)> {
    let [first @ b'1'..=b'9', rest @ ..] = text else {
        return None;
    };
    let (mut value, mut rest) = (u64::from(*first - b'0'), rest);
    while let [digit @ b'0'..=b'9', more @ ..] = rest {
        value = value
            .wrapping_mul(10)
            .wrapping_add(u64::from(*digit - b'0'));
        rest = more;
    }
    if let [b'.' | b'e' | b'E', ..] = rest {
        return None;
    }
    let is_safe = text.len() - rest.len() <= SAFE_DIGITS;
    Some((rest, is_safe.then_some(value.cast_signed())))
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
