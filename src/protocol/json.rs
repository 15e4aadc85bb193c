//! A JSON reader that checks a text and tells where its parts are, in one pass and without building anything.
//!
//! It accepts what `serde_json` accepts when it ignores a value, and the three constants that Python's `json` writes
//! for numbers that JSON cannot express: `NaN`, `Infinity` and `-Infinity`. Nesting costs one bit a level.
//!
//! The common case is inlined into one piece, in which the position stays in a register. What is rare or long is left to
//! functions that take the position and return it.

#![allow(
    clippy::inline_always,
    reason = "a call in the loop over members costs more than the member"
)]

mod nesting;
pub(super) mod strings;
pub(super) mod text;
pub(super) mod word;

use std::ops::Range;

use self::nesting::{Deep, NOTHING_OPEN, Nesting, Shallow};
use self::strings::{plain_string_end, string_end};
use self::text::Text;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a text from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    is_ascii: bool,
}

/// Where the members of these names have their values, of equal names the last; `None` if the text is not an object. The
/// names are ASCII, and no longer than `LONGEST_NAME`.
pub(crate) fn find<const N: usize>(
    text: &str,
    names: [&str; N],
) -> Option<[Option<Range<usize>>; N]> {
    let mut found = [const { None }; N];
    let mut reader = Reader::new(text.as_bytes());
    let read = reader.object(b"", |key, value| {
        key.with_name(|key| {
            let names = names.iter().zip(&mut found);
            for (_, place) in names.filter(|(name, _)| name.as_bytes() == key) {
                *place = Some(value.range());
            }
        });
    });
    read.and_then(|()| reader.end()).ok()?;
    Some(found)
}

/// Where a value is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it is a string with escapes.
    has_escapes: bool,
}

impl Value {
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// What is between its quotation marks, if it is a string; `text` is what it is a part of.
    #[inline]
    pub(super) fn string(self, text: &[u8]) -> Option<Text<'_>> {
        match text.get(self.range())? {
            [b'"', inner @ .., b'"'] => Some(Text {
                inner,
                has_escapes: self.has_escapes,
            }),
            _ => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// The text is UTF-8; that is not checked here.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            is_ascii: true,
        }
    }

    /// What is read.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The first byte of what comes next, whitespace aside.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        if byte > b' ' {
            return Some(byte);
        }
        self.at = skip_blanks(self.text, self.at);
        self.text.get(self.at).copied()
    }

    /// Whether everything read so far is ASCII. Only strings can be otherwise: outside them, valid JSON is ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// Makes sure that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.peek().map_or(Ok(()), |_| Err(Malformed))
    }

    /// Reads an object, and hands out its members: the keys, and where their values are. A member that is written as
    /// `ignored` may be left out; it takes hardly any time.
    #[inline(always)]
    pub(super) fn object(
        &mut self,
        ignored: &[u8],
        mut member: impl FnMut(Text<'a>, Value),
    ) -> Result<(), Malformed> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if !ignored.is_empty() && self.text[self.at..].starts_with(ignored) {
                self.at += ignored.len();
            } else {
                let key = self.key()?;
                member(key, self.value()?);
            }
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads an array. `item` is called before each of its items, and has to read it.
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

    /// Reads a value of any kind.
    #[inline(always)]
    pub(super) fn value(&mut self) -> Result<Value, Malformed> {
        let first = self.peek();
        let start = self.at;
        let has_escapes = match first {
            Some(b'{' | b'[') => {
                let end = container_end(self.text, self.at).ok_or(Malformed)?;
                self.at = end.at;
                self.is_ascii &= end.is_ascii;
                false
            }
            first => self.skip_scalar(first)?,
        };
        Ok(Value {
            start,
            end: self.at,
            has_escapes,
        })
    }

    /// Skips what is neither an object nor an array, and begins with this byte. Returns whether it is a string with
    /// escapes.
    #[inline(always)]
    fn skip_scalar(&mut self, first: Option<u8>) -> Result<bool, Malformed> {
        if first == Some(b'"') {
            return self.skip_string();
        }
        self.at = match integer_end(self.text, self.at) {
            Some(end) => end,
            None => number_or_word_end(self.text, self.at).ok_or(Malformed)?,
        };
        Ok(false)
    }

    /// Reads a key and the colon after it.
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

    /// After an item: whether `close` comes, and not a comma.
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
        let start = self.at + 1;
        if let Some(end) = plain_string_end(self.text, start) {
            self.at = end;
            return Ok(false);
        }
        let end = string_end(self.text, start).ok_or(Malformed)?;
        self.at = end.at;
        self.is_ascii &= end.is_ascii;
        Ok(end.has_escapes)
    }
}

/// Where an object or an array ends, and what was in it.
struct ContainerEnd {
    at: usize,
    is_ascii: bool,
}

/// Skips an object or an array with all that is in it. One that turns out to be deep is read once more.
fn container_end(text: &[u8], start: usize) -> Option<ContainerEnd> {
    let mut reader = Reader {
        text,
        at: start,
        is_ascii: true,
    };
    match reader.skip_container(&mut Shallow::default()) {
        Ok(()) => {}
        Err(Failed::Malformed) => return None,
        Err(Failed::TooDeep) => {
            reader.at = start;
            reader.skip_container(&mut Deep::default()).ok()?;
        }
    }
    Some(ContainerEnd {
        at: reader.at,
        is_ascii: reader.is_ascii,
    })
}

/// Why a container could not be skipped.
enum Failed {
    Malformed,
    /// What remembers the nesting has no room for more.
    TooDeep,
}

impl From<Malformed> for Failed {
    #[inline(always)]
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl Reader<'_> {
    #[inline(always)]
    fn skip_container(&mut self, nesting: &mut impl Nesting) -> Result<(), Failed> {
        let mut close = NOTHING_OPEN;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    if !nesting.open(close) {
                        return Err(Failed::TooDeep);
                    }
                    close = closing(open);
                    if self.peek() != Some(close) {
                        if open == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                    close = nesting.close();
                }
                first => {
                    self.skip_scalar(first)?;
                }
            }
            while close != NOTHING_OPEN {
                if !self.is_last(close)? {
                    break;
                }
                close = nesting.close();
            }
            match close {
                NOTHING_OPEN => return Ok(()),
                b'}' => self.skip_key()?,
                _ => {}
            }
        }
    }
}

#[cold]
fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}

/// The place after a positive integer, if that is all there is.
#[inline(always)]
fn integer_end(text: &[u8], start: usize) -> Option<usize> {
    let Some(b'1'..=b'9') = text.get(start) else {
        return None;
    };
    let mut at = start + 1;
    loop {
        match text.get(at) {
            Some(b'0'..=b'9') => at += 1,
            Some(b'.' | b'e' | b'E') => return None,
            _ => return Some(at),
        }
    }
}

fn number_or_word_end(text: &[u8], mut at: usize) -> Option<usize> {
    match text.get(at)? {
        b'-' => {
            at += 1;
            if text.get(at) == Some(&b'I') {
                return word_end(text, at);
            }
        }
        b'0'..=b'9' => {}
        _ => return word_end(text, at),
    }
    at = if text.get(at) == Some(&b'0') {
        at + 1
    } else {
        skip_digits(text, at)?
    };
    if text.get(at) == Some(&b'.') {
        at = skip_digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = skip_digits(text, at)?;
    }
    Some(at)
}

/// Skips digits, of which there must be one.
#[inline(always)]
fn skip_digits(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    (at > start).then_some(at)
}

fn word_end(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let words: [&[u8]; 5] = [b"true", b"false", b"null", b"NaN", b"Infinity"];
    let word = words.iter().find(|word| rest.starts_with(word))?;
    Some(at + word.len())
}

/// What closes a container; the two pairs of brackets are equally far apart.
#[inline(always)]
fn closing(open: u8) -> u8 {
    open + (b'}' - b'{')
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut reader = Reader::new(text);
        reader.value().and_then(|_| reader.end()).is_ok()
    }

    /// Strings are examined by words and by blocks of words: wherever a byte is, it must be seen.
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
    fn pythons_constants_may_take_the_place_of_numbers() {
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
