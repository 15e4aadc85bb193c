//! JSON-RPC request ids: compared by JSON value, echoed as they were written.
//!
//! A server may write `1.50` as `1.5`, `é` as `\u00e9` or `1.0` as `1`, so bytes do not tell whether an answer
//! belongs to a request. The usual ids (integers, short plain strings) are kept without an allocation.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Visitor};

/// The longest id that is accepted, in bytes as written. Every request in flight keeps its id, so this bounds memory.
pub const MAX_ID_BYTES: usize = 1024;

/// Strings up to this many bytes are kept inline; a UUID has 36.
pub const INLINE_BYTES: usize = 38;

/// The id of a request: what it was written as, and what it is worth.
#[derive(Clone)]
pub struct RequestId(Repr);

#[derive(Clone)]
enum Repr {
    /// An integer, written in the one way that `Display` writes it.
    Integer(i64),
    /// A string without escapes.
    Plain { len: u8, bytes: [u8; INLINE_BYTES] },
    /// Anything else: long or escaped strings, fractions, and what JSON-RPC does not allow but servers echo.
    Other(Box<Written>),
}

#[derive(Clone)]
struct Written {
    text: Box<str>,
    /// What it is worth, if that is not the text itself.
    value: Option<Value>,
}

/// The value of an id, in a form in which equal values have equal representations.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    /// Of 64 bits, signed or unsigned.
    Integer(i128),
    /// The bits of a double that is no 64-bit integer.
    Double(u64),
    /// The characters of a string; bytes, as a lone surrogate has no place in a `str`.
    String(Box<[u8]>),
    /// An array or an object with its keys sorted, or a boolean.
    Json(Box<str>),
}

/// The same, wherever it is kept.
#[derive(PartialEq, Eq)]
enum ValueRef<'a> {
    Integer(i128),
    Double(u64),
    String(&'a [u8]),
    Json(&'a str),
}

impl RequestId {
    /// Reads an id from its JSON text, which is taken to be valid.
    pub fn new(text: &str) -> Self {
        if let Some(integer) = canonical_integer(text) {
            return Self(Repr::Integer(integer));
        }
        if let Some(string) = plain_string(text)
            && string.len() <= INLINE_BYTES
        {
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
        let Repr::Other(written) = &self.0 else {
            return 0;
        };
        let value = match &written.value {
            Some(Value::String(string)) => string.len(),
            Some(Value::Json(text)) => text.len(),
            Some(Value::Integer(_) | Value::Double(_)) | None => 0,
        };
        size_of::<Written>() + written.text.len() + value
    }

    fn value(&self) -> ValueRef<'_> {
        match &self.0 {
            Repr::Integer(integer) => ValueRef::Integer(i128::from(*integer)),
            Repr::Plain { len, bytes } => ValueRef::String(&bytes[..usize::from(*len)]),
            Repr::Other(written) => match (&written.value, plain_string(&written.text)) {
                (Some(Value::Integer(integer)), _) => ValueRef::Integer(*integer),
                (Some(Value::Double(bits)), _) => ValueRef::Double(*bits),
                (Some(Value::String(string)), _) => ValueRef::String(string),
                (Some(Value::Json(text)), _) => ValueRef::Json(text),
                (None, Some(string)) => ValueRef::String(string.as_bytes()),
                (None, None) => ValueRef::Json(&written.text),
            },
        }
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Integer(a), Repr::Integer(b)) => a == b,
            _ => self.value() == other.value(),
        }
    }
}

impl Eq for RequestId {}

/// The id as it was written, as JSON.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Integer(integer) => integer.fmt(f),
            Repr::Plain { len, bytes } => {
                let text = std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default();
                write!(f, "\"{text}\"")
            }
            Repr::Other(written) => f.write_str(&written.text),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value {
    /// `None` if the text is its own value: a string without escapes, or what has none.
    fn of(text: &str) -> Option<Self> {
        match text.as_bytes().first() {
            Some(b'"') if plain_string(text).is_some() => None,
            Some(b'"') => {
                let string = serde_json::from_str::<StringBytes>(text).ok()?;
                Some(Self::String(string.0.into()))
            }
            Some(b'-' | b'0'..=b'9') => Self::of_number(text),
            // serde_json sorts the keys of an object.
            _ => {
                let value = serde_json::from_str::<serde_json::Value>(text).ok()?;
                Some(Self::Json(value.to_string().into()))
            }
        }
    }

    /// What servers keep an integer of up to 64 bits as is exact; beyond that, it is a double.
    fn of_number(text: &str) -> Option<Self> {
        const INTEGERS: RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;
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

/// An integer, if `text` is the way in which `Display` would write it.
fn canonical_integer(text: &str) -> Option<i64> {
    /// So many digits always fit.
    const SAFE_DIGITS: usize = 18;
    let digits = text.as_bytes();
    match digits {
        [b'0'] => return Some(0),
        [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => {}
        _ => return None,
    }
    if digits.len() > SAFE_DIGITS || digits[0] == b'-' {
        return text.parse().ok();
    }
    digits.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

fn plain_string(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

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
    fn equal_values_in_different_clothes() {
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
