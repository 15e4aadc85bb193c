//! Plain JSON: read one byte after the other, with a stack of what is open, and nothing clever.
//!
//! It is the model that the envelope is measured by. It is itself measured by `serde_json`, which knows nothing of
//! Python's constants.

/// Which numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Those of RFC 8259.
    Json,
    /// `NaN`, `Infinity` and `-Infinity`, too.
    Python,
}

/// Whether `text` is one JSON value with nothing but blanks around it.
pub(crate) fn is_valid(text: &str, dialect: Dialect) -> bool {
    let mut reader = Reader::new(text, dialect);
    reader.value().is_some() && reader.ends()
}

/// The keys, as UTF-16, and the values, as written, of an object; `None` if `text` is none.
pub(crate) fn fields(text: &str, dialect: Dialect) -> Option<Vec<(Vec<u16>, &str)>> {
    let mut reader = Reader::new(text, dialect);
    let mut fields = Vec::new();
    reader.blanks();
    reader.eat(b'{')?;
    reader.blanks();
    while reader.eat(b'}').is_none() {
        if !fields.is_empty() {
            reader.eat(b',')?;
        }
        reader.blanks();
        let key = units(reader.part(Reader::string)?)?;
        reader.blanks();
        reader.eat(b':')?;
        reader.blanks();
        fields.push((key, reader.part(Reader::value)?));
        reader.blanks();
    }
    Some(fields)
}

/// The values in an array, as written; `None` if `text` is none.
pub(crate) fn items(text: &str, dialect: Dialect) -> Option<Vec<&str>> {
    let mut reader = Reader::new(text, dialect);
    let mut items = Vec::new();
    reader.blanks();
    reader.eat(b'[')?;
    reader.blanks();
    while reader.eat(b']').is_none() {
        if !items.is_empty() {
            reader.eat(b',')?;
        }
        reader.blanks();
        items.push(reader.part(Reader::value)?);
        reader.blanks();
    }
    Some(items)
}

/// What a JSON string says, as UTF-16, in which a lone surrogate has a place; `None` if `text` is no string.
pub(crate) fn units(text: &str) -> Option<Vec<u16>> {
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut units = Vec::new();
    while let Some(char) = rest.next() {
        let plain = match char {
            '\\' => match rest.next()? {
                'u' => {
                    let digits: String = rest.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    Some(units)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    dialect: Dialect,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Self {
        Self {
            text,
            at: 0,
            dialect,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn eat_word(&mut self, word: &str) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        rest.starts_with(word.as_bytes())
            .then(|| self.at += word.len())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn ends(&mut self) -> bool {
        self.blanks();
        self.peek().is_none()
    }

    /// The text that `read` goes over.
    fn part(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a str> {
        let start = self.at;
        read(self)?;
        self.text.get(start..self.at)
    }

    fn value(&mut self) -> Option<()> {
        let mut closers = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    self.blanks();
                    if self.eat(b'}').is_none() {
                        self.key()?;
                        closers.push(b'}');
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    self.blanks();
                    if self.eat(b']').is_none() {
                        closers.push(b']');
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            loop {
                let Some(closer) = closers.last().copied() else {
                    return Some(());
                };
                self.blanks();
                if self.eat(b',').is_some() {
                    if closer == b'}' {
                        self.blanks();
                        self.key()?;
                    }
                    break;
                }
                self.eat(closer)?;
                closers.pop();
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.blanks();
        self.eat(b':')
    }

    fn scalar(&mut self) -> Option<()> {
        let constants: &[&str] = match self.dialect {
            Dialect::Json => &[],
            Dialect::Python => &["NaN", "Infinity", "-Infinity"],
        };
        if constants.iter().any(|word| self.eat_word(word).is_some()) {
            return Some(());
        }
        match self.peek()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.eat_word("true"),
            b'f' => self.eat_word("false"),
            _ => self.eat_word("null"),
        }
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 4;
                        }
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}
