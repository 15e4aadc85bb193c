//! JSON as a tree that keeps what a map would lose: the order of the keys, and keys that stand twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As it can be written.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What it is, for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads a text. The error is one line with its place, and says what to do about it.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("it is UTF-16 (save it as UTF-8)".to_owned());
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (line, column) = place(&bytes[..error.valid_up_to()]);
            return Err(format!(
                "line {line}, column {column}: it is not UTF-8 (save it as UTF-8)"
            ));
        }
    };
    if text.trim_ascii().is_empty() {
        return Err(
            r#"it is empty (the least is {"mcpServers":{"NAME":{"command":"…"}}})"#.to_owned(),
        );
    }
    serde_json::from_str(text).map_err(|error| explained(&error, text))
}

/// Line and column after this, from 1.
fn place(before: &[u8]) -> (usize, usize) {
    let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    (line, before.len() - start + 1)
}

fn explained(error: &serde_json::Error, text: &str) -> String {
    let (line, column) = (error.line(), error.column().max(1));
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    let found = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let found = found.as_bytes().get(column - 1).copied();
    let advice = match found {
        _ if error.is_eof() => " (a bracket or a quote is not closed)",
        Some(b'/' | b'#') => " (JSON has no comments: leave them out)",
        _ if words.contains("trailing comma") => " (leave the comma out)",
        _ if words.contains("key must be a string") => " (keys stand in double quotes)",
        Some(b'\'') => " (strings stand in double quotes)",
        _ if words.contains("control character") => " (write \\n or \\t in strings)",
        _ if words.contains("invalid escape") => " (a backslash is written as \\\\)",
        _ if words.contains("expected value") => {
            " (a string in double quotes, a number, true, false, null, a list or an object)"
        }
        _ if words.contains("recursion") => " (no configuration is nested so deeply)",
        _ => "",
    };
    format!("line {line}, column {column}: {words}{advice}")
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = all.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = all.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_doubled_keys_are_kept_and_a_mark_at_the_beginning_is_fine() {
        let text = "\u{feff}{\"b\": [1, 2.50, -3], \"a\": null, \"b\": {\"x\": true}}";
        let number = |text: &str| Json::Number(text.to_owned());
        let list = Json::List(vec![number("1"), number("2.5"), number("-3")]);
        let inner = Json::Object(vec![("x".to_owned(), Json::Bool(true))]);
        let expected = [("b", list), ("a", Json::Null), ("b", inner)];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(parse(text.as_bytes()), Ok(Json::Object(expected.into())));
    }

    #[test]
    fn errors_have_a_place_and_a_way_out() {
        for (text, start, way_out) in [
            (
                "{\n  // time\n  \"a\": 1}",
                "line 2, column 3: ",
                "comments",
            ),
            ("{\n  # time\n}", "line 2, column 3: ", "comments"),
            (
                "{\"a\": [1, 2,]}",
                "line 1, column 13: ",
                "leave the comma out",
            ),
            ("{\"a\": 1,}", "line 1, column 9: ", "leave the comma out"),
            ("{'a': 1}", "line 1, column 2: ", "double quotes"),
            ("{\"a\": 'b'}", "line 1, column 7: ", "double quotes"),
            ("{a: 1}", "line 1, column 2: ", "double quotes"),
            ("{\"a\": {\n", "line 2, column ", "not closed"),
            ("{\"a\": \"b\nc\"}", "line ", "write \\n"),
            ("", "it is empty", "mcpServers"),
            (" \n", "it is empty", "mcpServers"),
            ("{} {}", "line 1, column 4: ", "trailing characters"),
            ("{\"a\": \"c:\\dir\"}", "line 1, column ", "backslash"),
            ("{\"a\": NaN}", "line 1, column 7: ", "a number, true"),
            (&"[".repeat(1000), "line 1, column 128: ", "nested"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
            assert!(error.contains(way_out), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = parse(b"{\n\"a\": \"\xe4\"}").unwrap_err();
        assert!(
            error.starts_with("line 2, column 7: it is not UTF-8"),
            "{error}"
        );
        assert!(parse(b"\xff\xfe{\0}\0").unwrap_err().contains("UTF-16"));
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).unwrap_err().starts_with("line 1"));
    }
}
