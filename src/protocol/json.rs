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

mod container;
mod nesting;
mod number;
pub(super) mod strings;
pub(super) mod text;
pub(super) mod word;

use std::ops::Range;

use self::container::container_end;
use self::number::{after_integer, after_number_or_word};
use self::strings::{after_plain_string, string_end};
use self::text::Text;

/// Stands for a byte where there is none. In a text it has no place outside of strings, and none in them either.
const END: u8 = 0;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a text from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    /// What was not read yet.
    rest: &'a [u8],
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
    let read = reader.object(|key: Text<'_>, value| {
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

/// What is to be known of the key of a member.
pub(super) trait Key<'a>: Sized {
    /// The key that a text begins with, and what follows it, if that can be told at a glance.
    #[inline(always)]
    fn at_a_glance(_: &'a [u8]) -> Option<(Self, &'a [u8])> {
        None
    }

    /// Any key.
    fn of(text: Text<'a>) -> Self;
}

impl<'a> Key<'a> for Text<'a> {
    #[inline(always)]
    fn of(text: Self) -> Self {
        text
    }
}

/// Where a value is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_null: bool,
    /// What it says, if it is a positive integer of few digits: they are not read twice.
    pub(super) integer: Option<i64>,
}

impl Value {
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// What is between its quotation marks, if it is a string; `text` is what it is a part of.
    #[inline]
    pub(super) fn string(self, text: &[u8]) -> Option<Text<'_>> {
        Text::new(text.get(self.range())?)
    }
}

impl<'a> Reader<'a> {
    /// The text is UTF-8; that is not checked here.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            rest: text,
            is_ascii: true,
        }
    }

    /// What is read.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The first byte of what comes next, whitespace aside; [`END`] if nothing does.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> u8 {
        if let [byte @ b'!'..=u8::MAX, ..] = self.rest {
            return *byte;
        }
        self.rest = skip_blanks(self.rest);
        self.rest.first().copied().unwrap_or(END)
    }

    /// Passes over the byte that comes next.
    #[inline(always)]
    fn pass(&mut self) {
        if let [_, rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// How much was read.
    #[inline(always)]
    fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// Whether everything read so far is ASCII. Only strings can be otherwise: outside them, valid JSON is ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// Makes sure that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        self.peek();
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Reads an object, and hands out its members: the keys, and where their values are.
    pub(super) fn object<K: Key<'a>>(
        &mut self,
        mut member: impl FnMut(K, Value),
    ) -> Result<(), Malformed> {
        let mut is_over = self.begin_object(b"")?;
        while !is_over {
            let (key, value) = self.member()?;
            member(key, value);
            is_over = self.is_last_member()?;
        }
        Ok(())
    }

    /// Reads the beginning of an object, for whoever reads its members one by one. If it begins with `ignored`, a member,
    /// that is left out; it takes hardly any time. Returns whether the object ends here.
    #[inline(always)]
    pub(super) fn begin_object(&mut self, ignored: &[u8]) -> Result<bool, Malformed> {
        self.expect(b'{')?;
        match self.peek() {
            b'"' => {}
            b'}' => {
                self.pass();
                return Ok(true);
            }
            _ => return Err(Malformed),
        }
        if !ignored.is_empty()
            && let Some(rest) = self.rest.strip_prefix(ignored)
        {
            self.rest = rest;
            return self.is_last_member();
        }
        Ok(false)
    }

    /// Reads a member of an object: its key, and where its value is.
    #[inline(always)]
    pub(super) fn member<K: Key<'a>>(&mut self) -> Result<(K, Value), Malformed> {
        let (key, first) = self.key()?;
        Ok((key, self.value_of(first)?))
    }

    /// Reads an array. `item` is called before each of its items, and has to read it.
    pub(super) fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'[')?;
        if self.peek() == b']' {
            self.pass();
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
        self.value_of(first)
    }

    /// Reads a value that begins here, with this byte.
    #[inline(always)]
    fn value_of(&mut self, first: u8) -> Result<Value, Malformed> {
        let start = self.at();
        let mut integer = None;
        if let b'{' | b'[' = first {
            let end = container_end(self.rest).ok_or(Malformed)?;
            self.rest = end.rest;
            self.is_ascii &= end.is_ascii;
        } else {
            integer = self.skip_scalar(first)?;
        }
        Ok(Value {
            start,
            end: self.at(),
            // Nothing else that is valid begins with this byte.
            is_null: first == b'n',
            integer,
        })
    }

    /// Skips what is neither an object nor an array, and begins with this byte. Returns what it says, if it is an integer.
    #[inline(always)]
    fn skip_scalar(&mut self, first: u8) -> Result<Option<i64>, Malformed> {
        if first == b'"' {
            self.skip_string::<false>()?;
            return Ok(None);
        }
        let (rest, integer) = match after_integer(self.rest) {
            Some(read) => read,
            None => (after_number_or_word(self.rest).ok_or(Malformed)?, None),
        };
        self.rest = rest;
        Ok(integer)
    }

    /// Reads a key from its quotation mark on, and the colon after it. Returns the first byte of the value, too.
    #[inline(always)]
    fn key<K: Key<'a>>(&mut self) -> Result<(K, u8), Malformed> {
        let text = self.rest;
        if let Some((key, rest)) = K::at_a_glance(text) {
            self.rest = rest;
            return Ok((key, self.colon()?));
        }
        let has_escapes = self.skip_string::<true>()?;
        let inner = &text[1..text.len() - self.rest.len() - 1];
        Ok((K::of(Text { inner, has_escapes }), self.colon()?))
    }

    /// The same for a key that nobody wants to know.
    #[inline(always)]
    fn skip_key(&mut self) -> Result<u8, Malformed> {
        self.skip_string::<true>()?;
        self.colon()
    }

    /// Reads the colon after a key. Returns the first byte of what comes next, whitespace aside.
    #[inline(always)]
    fn colon(&mut self) -> Result<u8, Malformed> {
        if let [b':', first @ b'!'..=u8::MAX, ..] = self.rest {
            self.pass();
            return Ok(*first);
        }
        self.expect(b':')?;
        Ok(self.peek())
    }

    /// After a member: whether the object ends. If not, the quotation mark of a key comes next.
    #[inline(always)]
    pub(super) fn is_last_member(&mut self) -> Result<bool, Malformed> {
        if self.rest.first_chunk() == Some(b",\"") {
            self.pass();
            return Ok(false);
        }
        if self.is_last(b'}')? {
            return Ok(true);
        }
        match self.peek() {
            b'"' => Ok(false),
            _ => Err(Malformed),
        }
    }

    /// After an item: whether `close` comes, and not a comma.
    #[inline(always)]
    fn is_last(&mut self, close: u8) -> Result<bool, Malformed> {
        let next = self.peek();
        self.pass();
        match next {
            b',' => Ok(false),
            byte if byte == close => Ok(true),
            _ => Err(Malformed),
        }
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != byte {
            return Err(Malformed);
        }
        self.pass();
        Ok(())
    }

    /// Skips a string from its opening quotation mark on. Returns whether there are escapes in it.
    #[inline(always)]
    fn skip_string<const IS_KEY: bool>(&mut self) -> Result<bool, Malformed> {
        self.pass();
        let rest = match after_plain_string::<IS_KEY>(self.rest) {
            Ok(rest) => {
                self.rest = rest;
                return Ok(false);
            }
            Err(rest) => rest,
        };
        let end = string_end(rest).ok_or(Malformed)?;
        self.rest = end.rest;
        self.is_ascii &= end.is_ascii;
        Ok(end.has_escapes)
    }
}

#[inline(never)]
fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = text {
        text = rest;
    }
    text
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
