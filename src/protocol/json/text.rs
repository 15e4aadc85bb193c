//! Strings as they are written, and what they stand for.

/// No name of a member, or of a method, that means something to a proxy is longer: the longest is
/// `io.modelcontextprotocol/protocolVersion`. Some writers escape its slash.
pub(crate) const LONGEST_NAME: usize = 40;

/// A string, as written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    /// What is between the quotation marks.
    pub(crate) inner: &'a [u8],
    pub(crate) has_escapes: bool,
}

impl<'a> Text<'a> {
    /// A string with its quotation marks, which is taken to be valid; `None` if it has none.
    pub(crate) fn new(text: &'a [u8]) -> Option<Self> {
        match text {
            [b'"', inner @ .., b'"'] => Some(Self {
                inner,
                has_escapes: inner.contains(&b'\\'),
            }),
            _ => None,
        }
    }

    /// What is between the quotation marks of a string with escapes.
    pub(crate) fn escaped(inner: &'a [u8]) -> Self {
        Self {
            inner,
            has_escapes: true,
        }
    }

    /// What is between the quotation marks, if that is what it stands for.
    #[inline(always)]
    pub(crate) fn plain(self) -> Option<&'a [u8]> {
        (!self.has_escapes).then_some(self.inner)
    }

    /// Calls `with` with what the string stands for, if that is ASCII and no longer than a name; otherwise with something
    /// that no name equals.
    #[inline(always)]
    pub(crate) fn with_name<T>(self, with: impl FnOnce(&[u8]) -> T) -> T {
        if self.has_escapes {
            with(unescape(self.inner, &mut [0; LONGEST_NAME]))
        } else {
            with(self.inner)
        }
    }
}

/// Takes no longer than the longest name: the rest of a long key is not examined.
#[cold]
fn unescape<'b>(mut inner: &[u8], buffer: &'b mut [u8; LONGEST_NAME]) -> &'b [u8] {
    let mut len = 0;
    while let Some((byte, rest)) = next_char(inner) {
        let Some(place) = buffer.get_mut(len) else {
            return &[];
        };
        *place = byte;
        len += 1;
        inner = rest;
    }
    &buffer[..len]
}

/// The first character of a valid string, and what follows it. Any byte that is not ASCII stands for one that is not.
fn next_char(inner: &[u8]) -> Option<(u8, &[u8])> {
    const NOT_ASCII: u8 = 0xff;
    match inner {
        [b'\\', b'u', digits @ ..] => {
            let (digits, rest) = digits.split_at_checked(4)?;
            let digits = str::from_utf8(digits).ok()?;
            let unit = u16::from_str_radix(digits, 16).ok()?;
            let byte = u8::try_from(unit).ok().filter(u8::is_ascii);
            Some((byte.unwrap_or(NOT_ASCII), rest))
        }
        [b'\\', escape, rest @ ..] => {
            let byte = match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => *other,
            };
            Some((byte, rest))
        }
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}
