//! JSON-RPC request ids: compared by JSON value, echoed as they were written.
//!
//! A server may write `1.50` as `1.5`, `é` as `\u00e9` or `1.0` as `1`, so bytes do not tell whether a response
//! belongs to a request. The usual ids (integers, short plain strings) are kept without an allocation, and a UUID with one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id that is accepted, in bytes as written. Every request in flight keeps its id, so this bounds memory.
pub const MAX_ID_BYTES: usize = 1024;

/// Strings up to this many bytes are kept inline: as much as makes an id no larger than a longer string does.
pub const INLINE_BYTES: usize = 22;

/// The text of an id, in the line that holds it. It is UTF-8, and only checked again where it is shown.
#[derive(Clone, Copy)]
pub struct IdText<'a> {
    text: &'a [u8],
    /// Its value, if that is known already.
    integer: Option<i64>,
}

impl<'a> IdText<'a> {
    /// A part of a line that is known to be UTF-8.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            integer: None,
        }
    }

    /// The same, if it is known to be an integer of which this is the value.
    pub fn with_value(text: &'a [u8], integer: Option<i64>) -> Self {
        Self { text, integer }
    }

    /// How long it is, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no id is empty")]
    pub fn len(self) -> usize {
        self.text.len()
    }
}

impl PartialEq for IdText<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for IdText<'_> {}

impl AsRef<[u8]> for IdText<'_> {
    fn as_ref(&self) -> &[u8] {
        self.text
    }
}

impl fmt::Display for IdText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(self.text).unwrap_or_default())
    }
}

impl fmt::Debug for IdText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of a request: how it was written, and its value.
#[derive(Clone)]
pub struct RequestId(Repr);

#[derive(Clone)]
enum Repr {
    /// An integer, written as `Display` writes it.
    Integer(i64),
    /// What is between the quotation marks of a string without escapes.
    Plain { len: u8, bytes: [u8; INLINE_BYTES] },
    /// The same, if it is longer.
    Long(Box<str>),
    /// Anything else: escaped strings, fractions, and what JSON-RPC does not allow but servers echo.
    Other(Box<Written>),
}

#[derive(Clone)]
struct Written {
    text: Box<str>,
    value: Value,
}

/// The value of an id, in a form in which equal values have equal representations.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    /// Of 64 bits, signed or unsigned.
    Integer(i128),
    /// The bits of a double that is not a 64-bit integer.
    Double(u64),
    /// The characters of a string; bytes, as a lone surrogate has no place in a `str`.
    String(Box<[u8]>),
    /// An array or an object with its keys sorted, or a boolean.
    Json(Box<str>),
    /// The text itself.
    Text,
}

/// The same, wherever it is kept.
#[derive(PartialEq, Eq, Hash)]
enum ValueRef<'a> {
    Integer(i128),
    Double(u64),
    String(&'a [u8]),
    Json(&'a str),
}

impl RequestId {
    /// Reads an id of a message.
    #[inline]
    pub fn of(id: IdText<'_>) -> Self {
        match id.integer {
            Some(integer) => Self(Repr::Integer(integer)),
            None => Self::new(id),
        }
    }

    /// Reads an id from its JSON text, which is taken to be valid.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        match canonical_integer(text) {
            Some(integer) => Self(Repr::Integer(integer)),
            None => Self::of_other(str::from_utf8(text).unwrap_or_default()),
        }
    }

    /// Reads what is not a plain integer.
    fn of_other(text: &str) -> Self {
        if let Some(string) = plain_string(text) {
            if string.len() > INLINE_BYTES {
                return Self(Repr::Long(string.into()));
            }
            let mut bytes = [0; INLINE_BYTES];
            bytes[..string.len()].copy_from_slice(string.as_bytes());
            return Self(Repr::Plain {
                len: string.len() as u8,
                bytes,
            });
        }
        Self(Repr::Other(Box::new(Written {
            text: text.into(),
            value: Value::of(text),
        })))
    }

    /// The memory that it holds besides its own size, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let written = match &self.0 {
            Repr::Integer(_) | Repr::Plain { .. } => return 0,
            Repr::Long(string) => return string.len(),
            Repr::Other(written) => written,
        };
        let value = match &written.value {
            Value::String(string) => string.len(),
            Value::Json(text) => text.len(),
            Value::Integer(_) | Value::Double(_) | Value::Text => 0,
        };
        size_of::<Written>() + written.text.len() + value
    }

    /// Its value, if it is an integer of 64 bits.
    pub fn integer(&self) -> Option<i64> {
        match self.value() {
            ValueRef::Integer(integer) => i64::try_from(integer).ok(),
            ValueRef::Double(_) | ValueRef::String(_) | ValueRef::Json(_) => None,
        }
    }

    /// The id that a peer makes of this one if it keeps ids as strings, or as numbers: `"7"` of 7, and 7 of `"7"`.
    pub fn coerced(&self) -> Option<Self> {
        match self.value() {
            ValueRef::Integer(integer) => Some(Self::new(format!("\"{integer}\""))),
            ValueRef::String(string) if string.len() <= MAX_INTEGER_BYTES => {
                let text = str::from_utf8(string).ok()?;
                let integer: i128 = text.parse().ok()?;
                (INTEGERS.contains(&integer) && integer.to_string() == text)
                    .then(|| Self::new(text))
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn has_value_of(&self, other: &Self) -> bool {
        self.value() == other.value()
    }

    fn value(&self) -> ValueRef<'_> {
        match &self.0 {
            Repr::Integer(integer) => ValueRef::Integer(i128::from(*integer)),
            Repr::Plain { len, bytes } => ValueRef::String(&bytes[..usize::from(*len)]),
            Repr::Long(string) => ValueRef::String(string.as_bytes()),
            Repr::Other(written) => match &written.value {
                Value::Integer(integer) => ValueRef::Integer(*integer),
                Value::Double(bits) => ValueRef::Double(*bits),
                Value::String(string) => ValueRef::String(string),
                Value::Json(text) => ValueRef::Json(text),
                Value::Text => ValueRef::Json(&written.text),
            },
        }
    }
}

impl PartialEq for RequestId {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Integer(a), Repr::Integer(b)) => a == b,
            _ => self.has_value_of(other),
        }
    }
}

impl Eq for RequestId {}

/// Equal ids have equal hashes, whatever they were written as.
impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value().hash(state);
    }
}

/// The id as it was written, as JSON.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Integer(integer) => integer.fmt(f),
            Repr::Plain { len, bytes } => {
                let text = std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default();
                write!(f, "\"{text}\"")
            }
            Repr::Long(string) => write!(f, "\"{string}\""),
            Repr::Other(written) => f.write_str(&written.text),
        }
    }
}

/// As it was written.
impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value {
    /// What can't be read, as it holds one of Python's constants or is nested too deep, has its text as its value.
    fn of(text: &str) -> Self {
        let value = match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str::<StringBytes>(text)
                .ok()
                .map(|string| Self::String(string.0.into())),
            Some(b'-' | b'0'..=b'9') => Self::of_number(text),
            // serde_json sorts the keys of an object.
            _ => serde_json::from_str::<serde_json::Value>(text)
                .ok()
                .map(|value| Self::Json(value.to_string().into())),
        };
        value.unwrap_or(Self::Text)
    }

    fn of_number(text: &str) -> Option<Self> {
        if let Some(integer) = text.parse().ok().filter(|value| INTEGERS.contains(value)) {
            return Some(Self::Integer(integer));
        }
        let double = text
            .parse::<f64>()
            .ok()
            .filter(|double| double.is_finite())?;
        // A double beyond this type's range becomes its minimum or maximum.
        let integer = double as i128;
        let is_integer = double.fract() == 0.0 && INTEGERS.contains(&integer);
        Some(if is_integer {
            Self::Integer(integer)
        } else {
            Self::Double(double.to_bits())
        })
    }
}

/// Servers keep integers of up to 64 bits exactly; beyond that, a number becomes a double.
const INTEGERS: RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

/// The longest of these, in bytes.
const MAX_INTEGER_BYTES: usize = "-9223372036854775808".len();

/// An integer, if `text` is what `Display` would write.
fn canonical_integer(digits: &[u8]) -> Option<i64> {
    /// This many digits always fit.
    const SAFE_DIGITS: usize = 18;
    match digits {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => {}
        _ => return None,
    }
    if digits.len() > SAFE_DIGITS || digits[0] == b'-' {
        return str::from_utf8(digits).ok()?.parse().ok();
    }
    let mut value = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

fn plain_string(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

const _: () = assert!(size_of::<RequestId>() == 24);

/// A JSON string as bytes: unlike `String` it accepts lone surrogates, which `IgnoredAny` accepts too.
struct StringBytes(Vec<u8>);

impl<'de> Deserialize<'de> for StringBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = StringBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<StringBytes, E> {
                Ok(StringBytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let (a, b) = (RequestId::new(a), RequestId::new(b));
        let (forth, back) = (a == b, b == a);
        assert_eq!(forth, back, "equality is symmetric");
        forth
    }

    #[test]
    fn equal_values_in_different_spellings() {
        for (a, b) in [
            ("1", "1"),
            ("1.50", "1.5"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("-0", "0"),
            ("0.10", "1e-1"),
            (r#""é""#, r#""\u00e9""#),
            (r#""a/b""#, r#""a\/b""#),
            (r#""\ud800""#, r#""\uD800""#),
            ("18446744073709551616", "18446744073709551616.0"),
            ("18446744073709551616", "1.8446744073709552e19"),
            ("9223372036854775808", "9223372036854775808.0"),
            ("-9223372036854775808", "-9.223372036854775808e18"),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#),
            ("true", "true"),
        ] {
            assert!(same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn different_values() {
        for (a, b) in [
            ("1", r#""1""#),
            ("1", "2"),
            ("1.5", "1"),
            (r#""a""#, r#""A""#),
            (r#""""#, "0"),
            ("true", r#""true""#),
            ("9007199254740993", "9007199254740992"),
            ("9223372036854775808", "9223372036854775809"),
            ("18446744073709551614", "18446744073709551615"),
            ("1e400", "1e401"),
            ("1e400", "-1e400"),
            (
                r#""a234567890123456789012345678901234567890""#,
                r#""b234567890123456789012345678901234567890""#,
            ),
        ] {
            assert!(!same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn equal_ids_have_equal_hashes() {
        let hashing = std::hash::RandomState::new();
        let hash = |text: &str| std::hash::BuildHasher::hash_one(&hashing, RequestId::new(text));
        let long = "é".repeat(60);
        let escaped = "\\u00e9".repeat(60);
        for (a, b) in [
            ("1.50", "1.5"),
            ("1.0", "1"),
            ("-0", "0"),
            (r#""é""#, r#""\u00e9""#),
            (&format!("\"{long}\""), &format!("\"{escaped}\"")),
            ("18446744073709551616", "1.8446744073709552e19"),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#),
        ] {
            assert!(same(a, b), "{a} and {b}");
            assert_eq!(hash(a), hash(b), "{a} and {b}");
        }
        assert_ne!(hash("7"), hash(r#""7""#));
    }

    #[test]
    fn integers_and_strings_are_coerced_into_each_other() {
        for (a, b) in [
            ("7", r#""7""#),
            ("-1", r#""-1""#),
            ("7.0", r#""7""#),
            ("18446744073709551615", r#""18446744073709551615""#),
            (r#""\u0037""#, "7"),
        ] {
            assert_eq!(RequestId::new(a).coerced(), Some(RequestId::new(b)), "{a}");
        }
        for text in [
            r#""07""#,
            r#""7.0""#,
            r#"" 7""#,
            r#""+7""#,
            r#""""#,
            r#""x""#,
            r#""18446744073709551616""#,
            "1.5",
            "true",
            "[7]",
        ] {
            assert_eq!(RequestId::new(text).coerced(), None, "{text}");
        }
    }

    #[test]
    fn echoed_as_written() {
        let long = format!("\"{}\"", "x".repeat(300));
        for text in [
            "1",
            "-7",
            "-0",
            "1.50",
            "1e2",
            r#""é""#,
            r#""\u00e9""#,
            r#""""#,
            "[1, 2]",
            "NaN",
            long.as_str(),
        ] {
            assert_eq!(RequestId::new(text).to_string(), text);
        }
    }
}
