//! A JSON reader that checks a text and says where its parts lie, in one pass and without building anything.
//!
//! It accepts what `serde_json` accepts when it ignores a value, and the three constants that Python's `json` writes
//! for numbers that JSON has no form for: `NaN`, `Infinity` and `-Infinity`. Nesting costs one bit a level.

use std::borrow::Cow;

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a text from its start.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The members of an object, the last of equal keys last; `None` if the text is no object. Keys that no `str` can hold
/// are left out.
pub(crate) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = Vec::new();
    let mut reader = Reader::new(text);
    let read = reader.object(|key, value| {
        members.extend(key.value().map(|key| (key, value)));
    });
    read.and_then(|()| reader.end()).ok()?;
    Some(members)
}

/// A string, as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// What stands between the quotation marks.
    inner: &'a str,
    has_escapes: bool,
}

impl<'a> Text<'a> {
    /// What it stands for; `None` if it holds a lone surrogate, for which a `str` has no place.
    pub(super) fn value(self) -> Option<Cow<'a, str>> {
        if self.has_escapes {
            let quoted = format!("\"{}\"", self.inner);
            serde_json::from_str(&quoted).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(self.inner))
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte of what comes next, whitespace aside.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Makes sure that nothing comes any more.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.peek().map_or(Ok(()), |_| Err(Malformed))
    }

    /// Reads an object, and hands out its members: the keys, and the values as written.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(Text<'a>, &'a str),
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
    pub(super) fn value(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string().map(|_| ())?,
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = open == b'{';
                    if self.peek() == Some(closing(is_object)) {
                        self.at += 1;
                    } else {
                        nesting.open(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => self.skip_word()?,
            }
            loop {
                let Some(in_object) = nesting.innermost() else {
                    return Ok(&self.text[start..self.at]);
                };
                if !self.is_last(closing(in_object))? {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                nesting.close();
            }
        }
    }

    /// Reads a key and the colon behind it.
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

    /// Behind an item: whether `close` comes, and no comma.
    fn is_last(&mut self, close: u8) -> Result<bool, Malformed> {
        let next = self.peek();
        self.at += 1;
        match next {
            Some(b',') => Ok(false),
            Some(byte) if byte == close => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Skips a string from its opening quotation mark on. Returns whether there are escapes in it.
    fn skip_string(&mut self) -> Result<bool, Malformed> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        let mut has_escapes = false;
        loop {
            at += plain_len(&bytes[at..]);
            match bytes[at..] {
                [b'"', ..] => {
                    self.at = at + 1;
                    return Ok(has_escapes);
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
            has_escapes = true;
        }
    }

    fn skip_number(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        if bytes[self.at] == b'-' {
            self.at += 1;
            if bytes.get(self.at) == Some(&b'I') {
                return self.skip_word();
            }
        }
        if bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Skips digits, of which there must be one.
    fn skip_digits(&mut self) -> Result<(), Malformed> {
        let digits = self.text.as_bytes()[self.at..].iter();
        let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(Malformed) } else { Ok(()) }
    }

    fn skip_word(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.at..];
        let words: [&[u8]; 5] = [b"true", b"false", b"null", b"NaN", b"Infinity"];
        let word = words.iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or(Malformed)?.len();
        Ok(())
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// How many bytes there are before the first that means something in a string: a quotation mark, a backslash, or a
/// control character, which must not stand there.
fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    let (words, _) = bytes.as_chunks();
    for word in words.iter().take(SHORT_WORDS) {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += WORD;
    }
    // Blocks of this size are compared a vector at a time.
    let (blocks, _) = bytes[at..].as_chunks::<64>();
    for block in blocks {
        if block
            .iter()
            .fold(false, |any, byte| any | is_special(*byte))
        {
            break;
        }
        at += block.len();
    }
    let rest = bytes[at..].iter();
    at + rest.take_while(|byte| !is_special(**byte)).count()
}

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// Most strings end within so many words.
const SHORT_WORDS: usize = 8;

fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < b' '
}

/// The highest bit of the lowest special byte, and none below it. What it says about the bytes above is not exact.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, b' ') | equal(b'"') | equal(b'\\')
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
