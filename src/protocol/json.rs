//! A JSON reader that checks a text and says where its parts lie, in one pass and without building anything.
//!
//! It accepts what `serde_json` accepts when it ignores a value, and the three constants that Python's `json` writes
//! for numbers that JSON has no form for: `NaN`, `Infinity` and `-Infinity`. Nesting costs one bit a level.

#![allow(
    clippy::inline_always,
    reason = "in one piece, the place in the text stays in a register: a third less time"
)]

use std::borrow::Cow;

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a text from its start.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// The bits of all bytes of strings up to here, in any order, and perhaps of what stands behind them.
    seen: u64,
}

/// The members of an object, the last of equal keys last; `None` if the text is no object. Keys that no `str` can hold
/// are left out.
pub(crate) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = Vec::new();
    let mut reader = Reader::new(text.as_bytes());
    let read = reader.object(|key, value| {
        let value = str::from_utf8(value).unwrap_or_default();
        members.extend(key.value().map(|key| (key, value)));
    });
    read.and_then(|()| reader.end()).ok()?;
    Some(members)
}

/// A string, as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// What stands between the quotation marks.
    inner: &'a [u8],
    has_escapes: bool,
}

impl<'a> Text<'a> {
    /// What it stands for; `None` if it holds a lone surrogate, for which a `str` has no place.
    pub(super) fn value(self) -> Option<Cow<'a, str>> {
        let text = str::from_utf8(self.inner).ok()?;
        if self.has_escapes {
            serde_json::from_str(&format!("\"{text}\""))
                .ok()
                .map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(text))
        }
    }

    /// What stands between the quotation marks, if that is what it stands for.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        (!self.has_escapes).then_some(self.inner)
    }
}

impl<'a> Reader<'a> {
    /// The text is UTF-8; that is not checked here.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            seen: 0,
        }
    }

    /// The first byte of what comes next, whitespace aside.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Option<u8> {
        match self.text.get(self.at) {
            Some(b' ' | b'\t' | b'\r' | b'\n') => self.peek_behind_blanks(),
            other => other.copied(),
        }
    }

    #[cold]
    fn peek_behind_blanks(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Whether all strings up to here are ASCII. What is no string is, in a text that was read without an error.
    pub(super) fn is_ascii(&self) -> bool {
        self.seen & HIGHS == 0
    }

    /// Makes sure that nothing comes any more.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.peek().map_or(Ok(()), |_| Err(Malformed))
    }

    /// Reads an object, and hands out its members: the keys, and the values as written.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(Text<'a>, &'a [u8]),
    ) -> Result<(), Malformed> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(key, self.value()?);
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads an array. `item` is called in front of each of its items, and has to read it.
    pub(super) fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            if self.is_last(b']')? {
                return Ok(());
            }
        }
    }

    /// Reads a value of any kind. Returns it as written.
    #[inline(always)]
    pub(super) fn value(&mut self) -> Result<&'a [u8], Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'{' | b'[') => self.skip_container()?,
            first => self.skip_scalar(first)?,
        }
        Ok(&self.text[start..self.at])
    }

    /// Skips an object or an array with all that is in it.
    fn skip_container(&mut self) -> Result<(), Malformed> {
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = open == b'{';
                    if self.peek() != Some(closing(is_object)) {
                        nesting.open(is_object);
                        if is_object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                first => self.skip_scalar(first)?,
            }
            loop {
                let Some(in_object) = nesting.innermost() else {
                    return Ok(());
                };
                if !self.is_last(closing(in_object))? {
                    if in_object {
                        self.skip_key()?;
                    }
                    break;
                }
                nesting.close();
            }
        }
    }

    /// Skips what is no object and no array, and begins with this byte.
    #[inline(always)]
    fn skip_scalar(&mut self, first: Option<u8>) -> Result<(), Malformed> {
        match first {
            Some(b'"') => self.skip_string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            _ => self.skip_word(),
        }
    }

    /// Reads a key and the colon behind it.
    #[inline(always)]
    fn key(&mut self) -> Result<Text<'a>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        let start = self.at + 1;
        let has_escapes = self.skip_string()?;
        let inner = &self.text[start..self.at - 1];
        self.expect(b':')?;
        Ok(Text { inner, has_escapes })
    }

    #[inline(always)]
    fn skip_key(&mut self) -> Result<(), Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        self.skip_string()?;
        self.expect(b':')
    }

    /// Behind an item: whether `close` comes, and no comma.
    #[inline(always)]
    fn is_last(&mut self, close: u8) -> Result<bool, Malformed> {
        let next = self.peek();
        self.at += 1;
        match next {
            Some(b',') => Ok(false),
            Some(byte) if byte == close => Ok(true),
            _ => Err(Malformed),
        }
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Skips a string from its opening quotation mark on. Returns whether there are escapes in it.
    #[inline(always)]
    fn skip_string(&mut self) -> Result<bool, Malformed> {
        let end = self.plain_end(self.at + 1);
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(false);
        }
        self.skip_escapes(end)
    }

    /// Skips the rest of a string, from an escape on.
    fn skip_escapes(&mut self, mut at: usize) -> Result<bool, Malformed> {
        loop {
            match self.text[at..] {
                [b'"', ..] => {
                    self.at = at + 1;
                    return Ok(true);
                }
                [
                    b'\\',
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                    ..,
                ] => at += 2,
                [b'\\', b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) => {
                    at += 6;
                }
                _ => return Err(Malformed),
            }
            at = self.plain_end(at);
        }
    }

    /// The place, from `at` on, of the first byte that means something in a string: a quotation mark, a backslash, or a
    /// control character, which must not stand there.
    #[inline(always)]
    fn plain_end(&mut self, mut at: usize) -> usize {
        let mut words = 0;
        while let Some(word) = self
            .text
            .get(at..at + WORD)
            .and_then(|word| word.first_chunk())
        {
            let word = u64::from_le_bytes(*word);
            let special = special_bytes(word);
            self.seen |= word;
            if special != 0 {
                return at + special.trailing_zeros() as usize / 8;
            }
            at += WORD;
            words += 1;
            if words == SHORT_WORDS {
                at = self.plain_blocks(at);
            }
        }
        self.plain_tail(at)
    }

    /// The place, from `at` on, of the first block with such a byte in it, or of what is left behind the last block. The
    /// bytes of a block are compared a vector at a time.
    #[inline(never)]
    fn plain_blocks(&mut self, mut at: usize) -> usize {
        let (words, _) = self.text[at..].as_chunks::<WORD>();
        let (blocks, _) = words.as_chunks::<BLOCK_WORDS>();
        for block in blocks {
            let mut special = 0;
            for word in block {
                let word = u64::from_le_bytes(*word);
                special |= special_bytes(word);
                self.seen |= word;
            }
            if special != 0 {
                break;
            }
            at += WORD * BLOCK_WORDS;
        }
        at
    }

    /// The same for what is shorter than a word.
    fn plain_tail(&mut self, mut at: usize) -> usize {
        while let Some(byte) = self.text.get(at).filter(|byte| !is_special(**byte)) {
            self.seen |= u64::from(*byte);
            at += 1;
        }
        at
    }

    fn skip_number(&mut self) -> Result<(), Malformed> {
        if self.text[self.at] == b'-' {
            self.at += 1;
            if self.next_is(b'I') {
                return self.skip_word();
            }
        }
        if self.next_is(b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.next_is(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if self.next_is(b'e') || self.next_is(b'E') {
            self.at += 1;
            if self.next_is(b'+') || self.next_is(b'-') {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn next_is(&self, byte: u8) -> bool {
        self.text.get(self.at) == Some(&byte)
    }

    /// Skips digits, of which there must be one.
    #[inline(always)]
    fn skip_digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        if self.at == start {
            Err(Malformed)
        } else {
            Ok(())
        }
    }

    fn skip_word(&mut self) -> Result<(), Malformed> {
        let rest = &self.text[self.at.min(self.text.len())..];
        let words: [&[u8]; 5] = [b"true", b"false", b"null", b"NaN", b"Infinity"];
        let word = words.iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or(Malformed)?.len();
        Ok(())
    }
}

#[inline]
fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// The lowest bit of each byte of a word.
const ONES: u64 = u64::MAX / 0xff;

/// The highest bit of each.
const HIGHS: u64 = ONES << 7;

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// Words in a block.
const BLOCK_WORDS: usize = 8;

/// Most strings end within so many words.
const SHORT_WORDS: usize = 4;

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..b' ')
}

/// The highest bit of the lowest special byte, and none below it. What it says about the bytes above is not exact, as a
/// subtraction borrows from them.
#[inline]
fn special_bytes(word: u64) -> u64 {
    let all = |byte: u8| ONES * u64::from(byte);
    let control = word.wrapping_sub(all(b' '));
    let quote = (word ^ all(b'"')).wrapping_sub(ONES);
    let backslash = (word ^ all(b'\\')).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGHS
}

/// Which of the containers that are open are objects, innermost last.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    /// The innermost 64 levels or fewer, the innermost in the lowest bit.
    top: u64,
    /// Full words of the levels further out.
    outer: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(u64::BITS as usize) {
            self.outer.push(self.top);
        }
        self.depth += 1;
        self.top = self.top << 1 | u64::from(is_object);
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth.is_multiple_of(u64::BITS as usize) {
            self.top = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost one is an object; `None` if none is open.
    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.top & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.value().and_then(|_| reader.end()).is_ok()
    }

    /// Strings are looked at by words and by blocks of words: wherever a byte stands, it must be seen.
    #[test]
    fn no_byte_of_a_string_is_overlooked() {
        for len in 0..200 {
            for at in 0..len {
                for byte in [b'"', b'\\', b'\n', 0, 0x1f, b' ', 0x7f, 0x80, 0xff] {
                    let mut text = vec![b'x'; len + 2];
                    text[0] = b'"';
                    text[len + 1] = b'"';
                    text[1 + at] = byte;
                    // UTF-8 is not checked here.
                    let expected = byte == b' ' || byte >= 0x7f;
                    assert_eq!(accepts(&text), expected, "{byte} at {at} of {len}");
                    let mut reader = Reader::new(&text);
                    if reader.value().is_ok() {
                        assert_eq!(reader.is_ascii(), byte < 0x80, "{byte} at {at} of {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn escapes_end_where_they_end() {
        for len in 0..100 {
            for escape in [
                r"\n", r#"\""#, r"\\", r"\u00e9", r"\ud800", r"\u00g0", r"\x", r"\u12",
            ] {
                let text = format!("\"{}{escape}{}\"", "x".repeat(len), "y".repeat(len / 2));
                let expected = serde_json::from_str::<IgnoredAny>(&text).is_ok();
                assert_eq!(accepts(text.as_bytes()), expected, "{text}");
            }
        }
    }

    #[test]
    fn nesting_is_remembered_level_by_level() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 1000] {
            // Objects at each third level, arrays at the others.
            let opens = |level: usize| {
                if level.is_multiple_of(3) {
                    r#"{"k":"#
                } else {
                    "["
                }
            };
            let closes = |level: usize| if level.is_multiple_of(3) { "}" } else { "]" };
            let open: String = (0..depth).map(opens).collect();
            let close: Vec<&str> = (0..depth).rev().map(closes).collect();
            assert!(accepts(format!("{open}1{}", close.concat()).as_bytes()));
            for wrong in 0..depth {
                let mut close = close.clone();
                close[wrong] = if close[wrong] == "}" { "]" } else { "}" };
                assert!(!accepts(format!("{open}1{}", close.concat()).as_bytes()));
            }
        }
    }

    #[test]
    fn pythons_constants_stand_where_numbers_stand() {
        for text in ["NaN", "-Infinity", "[Infinity,-Infinity]", r#"{"a":NaN}"#] {
            assert!(accepts(text.as_bytes()), "{text}");
        }
        for text in [
            "-NaN",
            "NaN1",
            "Inf",
            "+Infinity",
            "--Infinity",
            "{NaN:1}",
            "nan",
            "-",
        ] {
            assert!(!accepts(text.as_bytes()), "{text}");
        }
    }
}
