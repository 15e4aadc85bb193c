//! Reading JSON without copying it: values stay the text that they came as. Must not know JSON-RPC.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Whether the bytes are UTF-8 and one JSON value.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

pub(super) fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}

/// The members of these names, if `json` is an object; the last one of a name counts.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = reader.deserialize_map(Members(names)).ok()?;
    reader.end().ok()?;
    Some(found)
}

/// The value of a JSON string, borrowed if it has no escapes.
pub(super) fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    let text = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if text.contains('\\') {
        serde_json::from_str(json.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(text))
    }
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether two texts are the same value: clients may write 1.5 in one place and 1.50 in another.
pub(super) fn same_value(one: &RawValue, other: &RawValue) -> bool {
    let value = |json: &RawValue| serde_json::from_str::<serde_json::Value>(json.get()).ok();
    one.get() == other.get() || value(one).is_some_and(|one| Some(one) == value(other))
}

/// Takes the members of these names out of an object. By hand, for serde's derive refuses duplicates,
/// takes arrays for objects and is a build dependency more.
struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(index) = map.next_key_seed(IndexOf(&self.0))? {
            let value = map.next_value()?;
            if let Some(index) = index {
                found[index] = Some(value);
            }
        }
        Ok(found)
    }
}

/// Reads a member's name as its place among these names, if it is one of them.
struct IndexOf<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for IndexOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for IndexOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn members_are_found_wherever_they_stand() {
        let read =
            |json| members(json, ["a", "b"]).map(|found| found.map(|one| one.map(RawValue::get)));
        let json = r#"{"b":1,"x":{"a":9},"\u0061": [1.50 ] ,"b":null}"#;
        assert_eq!(read(json), Some([Some("[1.50 ]"), Some("null")]));
        assert_eq!(read("{}"), Some([None, None]));
        for bad in ["[1,2]", "5", "", "{\"a\":1", "{\"a\":1} 2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_are_compared_as_such() {
        assert!(same_value(raw("1.50"), raw("1.5")));
        assert!(same_value(raw(r#""\u00e9""#), raw("\"é\"")));
        assert!(!same_value(raw("1"), raw("\"1\"")));
        assert!(!same_value(
            raw("9007199254740993"),
            raw("9007199254740992")
        ));
    }

    #[test]
    fn strings_are_read_and_written() {
        assert_eq!(string(raw("\"é\"")).as_deref(), Some("é"));
        assert_eq!(string(raw(r#""\u00e9\n""#)).as_deref(), Some("é\n"));
        assert_eq!(string(raw(r#""\ud800""#)), None);
        assert_eq!(string(raw("5")), None);
        assert_eq!(quoted("a\"\n"), r#""a\"\n""#);
    }

    #[test]
    fn json_must_be_utf8() {
        assert!(is_json("{\"a\":\"é\"}".as_bytes()));
        assert!(!is_json(b"{\"a\":\"\xff\"}"));
    }
}
