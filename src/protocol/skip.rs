//! Looks for the id in a line that is too long to keep, in constant memory, and in less time than it takes to read it.
//!
//! The line is not checked: it is going to be refused whatever it holds. All that matters is whose request it was, and
//! the id may be anywhere, also at the very end. What is nested is passed over a word at a time, by counting brackets.

mod words;

use serde::{Deserialize, Serialize};

use crate::util::side_bytes;

use self::words::{Words, count_blanks};
use super::id::{MAX_ID_BYTES, RequestId};
use super::json::strings::after_plain_string;
use super::json::text::Text;

/// Longer keys mean nothing, even if each character is written as `\u….`
const MAX_KEY_BYTES: usize = 64;

/// In a string, this many bytes without an escape are examined one by one before a search begins, which takes a while to
/// get going.
const NEAR_BYTES: usize = 16;

/// What is left of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its top-level id, if it has one that is not null and within [`MAX_ID_BYTES`].
    pub id: Option<RequestId>,
    /// Whether it has a top-level `method`, which makes it a request or a notification.
    pub has_method: bool,
    /// Whether it has a top-level `result` or `error`, which makes it a response.
    pub has_outcome: bool,
    /// How long it is, in bytes.
    pub len: u64,
}

/// Takes a line in pieces of any size.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SkipScanner {
    depth: u64,
    top_is_object: bool,
    in_string: bool,
    escaped: bool,
    place: Place,
    captured: Captured,
    found: Found,
}

/// What has been seen of the key or the value at hand, cut at its limit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Captured {
    #[serde(with = "side_bytes")]
    bytes: Vec<u8>,
    /// Whether a blank has come since; there may be any number of them before what ends the key or the value.
    after_blank: bool,
    /// Whether more has come than is kept: it is too long, or it is not JSON.
    overflowed: bool,
}

/// What has been found so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    /// The last id, which is not checked before the end of the line.
    #[serde(with = "side_bytes")]
    id: Vec<u8>,
    has_id: bool,
    has_method: bool,
    has_outcome: bool,
    len: u64,
}

/// Where in the top-level object the scanner is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    #[default]
    Key,
    Value(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Field {
    Id,
    Method,
    Outcome,
    Other,
}

impl Field {
    fn of(key: &[u8]) -> Self {
        match key {
            b"id" => Self::Id,
            b"method" => Self::Method,
            b"result" | b"error" => Self::Outcome,
            _ => Self::Other,
        }
    }
}

impl SkipScanner {
    /// Takes the next piece of the line.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.found.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let taken = if self.is_capturing() {
                self.feed_captured(bytes)
            } else if self.depth > self.least_depth() {
                self.skip_nested(bytes)
            } else if self.in_string {
                self.skip_string(bytes)
            } else if self.depth == 0 {
                self.skip_to_start(bytes)
            } else {
                self.skip_in_value(bytes)
            };
            bytes = &bytes[taken..];
        }
    }

    /// What was found, once the line has ended.
    pub fn finish(mut self) -> Skipped {
        self.end_value();
        Skipped {
            id: if self.found.has_id {
                checked_id(&self.found.id)
            } else {
                None
            },
            has_method: self.found.has_method,
            has_outcome: self.found.has_outcome,
            len: self.found.len,
        }
    }

    /// Whether what comes next is a part of something that matters.
    fn is_capturing(&self) -> bool {
        self.depth > 0 && self.top_is_object && !self.captured.overflowed && self.limit() > 0
    }

    /// How much of what is at hand matters.
    fn limit(&self) -> usize {
        match self.place {
            Place::Value(Field::Id) => MAX_ID_BYTES,
            Place::Key | Place::Value(Field::Method) => MAX_KEY_BYTES,
            Place::Value(Field::Outcome | Field::Other) => 0,
        }
    }

    /// At this depth something may come that matters: in an object a member, in an array nothing.
    fn least_depth(&self) -> u64 {
        u64::from(self.top_is_object)
    }

    fn feed_captured(&mut self, bytes: &[u8]) -> usize {
        let members = self.plain_members(bytes);
        if members > 0 {
            return members;
        }
        // More than this is not captured anyway.
        let bytes = &bytes[..bytes.len().min(MAX_ID_BYTES + 1)];
        if self.in_string {
            return self.capture_string(bytes);
        }
        match bytes[0] {
            b'"' => {
                self.in_string = true;
                let len = 1 + self.rest_of_string(&bytes[1..]);
                self.capture(&bytes[..len]);
                len
            }
            b' ' | b'\t' | b'\r' if self.depth == 1 => {
                self.captured.after_blank = !self.captured.bytes.is_empty();
                count_blanks(bytes)
            }
            b'0'..=b'9' | b'a'..=b'z' => {
                let len = run(bytes, |byte| byte.is_ascii_alphanumeric());
                self.capture(&bytes[..len]);
                len
            }
            byte => {
                self.feed_structure(byte);
                1
            }
        }
    }

    /// Short members that are written plainly and mean nothing, with the commas after them: how many bytes they are.
    fn plain_members(&mut self, bytes: &[u8]) -> usize {
        if self.place != Place::Key || self.depth > 1 || !self.captured.bytes.is_empty() {
            return 0;
        }
        let mut at = 0;
        while let Some(end) = plain_member_end(bytes, at) {
            at = end;
        }
        at
    }

    fn capture_string(&mut self, bytes: &[u8]) -> usize {
        let len = self.rest_of_string(bytes);
        self.capture(&bytes[..len]);
        len
    }

    /// How much of a string there is, with the quotation mark at its end. Inside it, only that and a backslash mean
    /// anything.
    fn rest_of_string(&mut self, bytes: &[u8]) -> usize {
        let mut at = usize::from(std::mem::take(&mut self.escaped));
        while let Some(byte) = bytes.get(at) {
            at += match byte {
                b'"' => {
                    self.in_string = false;
                    return at + 1;
                }
                b'\\' => 2,
                _ => 1,
            };
        }
        self.escaped = at > bytes.len();
        bytes.len()
    }

    /// What is not in a string, and neither a part of a word nor a blank between members.
    fn feed_structure(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.capture(&[byte]);
                self.depth += 1;
                if self.depth == 1 {
                    self.top_is_object = byte == b'{';
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.end_value();
                } else {
                    self.capture(&[byte]);
                }
            }
            b':' if self.depth == 1 => self.end_key(),
            b',' if self.depth == 1 => self.end_value(),
            _ => self.capture(&[byte]),
        }
    }

    /// Outside of everything, only its beginning matters.
    fn skip_to_start(&mut self, bytes: &[u8]) -> usize {
        let Some(at) = memchr::memchr3(b'"', b'{', b'[', bytes) else {
            return bytes.len();
        };
        match bytes[at] {
            b'"' => self.in_string = true,
            bracket => self.feed_structure(bracket),
        }
        at + 1
    }

    /// In a member that means nothing, only its end matters, and what has to be passed over as a whole.
    fn skip_in_value(&mut self, bytes: &[u8]) -> usize {
        let at = run(bytes, |byte| {
            !matches!(byte, b'"' | b':' | b',' | b'{' | b'}' | b'[' | b']')
        });
        match bytes.get(at) {
            Some(b'"') => self.in_string = true,
            Some(byte) => self.feed_structure(*byte),
            None => return at,
        }
        at + 1
    }

    /// Skips the rest of a string, which may be long.
    fn skip_string(&mut self, bytes: &[u8]) -> usize {
        let mut at = usize::from(std::mem::take(&mut self.escaped));
        let mut plain_bytes = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    self.in_string = false;
                    return at + 1;
                }
                b'\\' => {
                    at += 2;
                    plain_bytes = 0;
                }
                _ if plain_bytes < NEAR_BYTES => {
                    at += 1;
                    plain_bytes += 1;
                }
                _ => {
                    let rest = &bytes[at..];
                    at += memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                }
            }
        }
        self.escaped = at > bytes.len();
        bytes.len()
    }

    /// Skips what is deeper than anything that matters.
    fn skip_nested(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                at += self.skip_string(&bytes[at..]);
                continue;
            }
            let (passed, in_string) = self.pass_words(&bytes[at..]);
            at += passed;
            self.in_string = in_string;
            if in_string {
                continue;
            }
            // Near the end of it, or next to a backslash.
            let near = bytes.len().min(at + size_of::<u64>());
            while at < near && !self.in_string {
                match bytes[at] {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
                at += 1;
                if self.depth == self.least_depth() {
                    if self.depth == 0 {
                        self.end_value();
                    }
                    return at;
                }
            }
        }
        at
    }

    /// Passes over words without a backslash in which what is skipped can't end. Returns how many bytes that was, and
    /// whether a string is open after them that may be long.
    fn pass_words(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut words = Words::new(bytes);
        let mut passed = 0;
        let mut in_string = false;
        while let Some(word) = words.next_unescaped(in_string) {
            let Some(depth) = word.depth_after(self.depth - self.least_depth()) else {
                break;
            };
            self.depth = self.least_depth() + depth;
            passed += size_of::<u64>();
            if in_string && word.ends_in_string && !word.has_quote {
                return (passed, true);
            }
            in_string = word.ends_in_string;
        }
        (passed, in_string)
    }

    fn capture(&mut self, bytes: &[u8]) {
        if self.depth == 0 || !self.top_is_object {
            return;
        }
        let limit = self.limit();
        let taken = bytes
            .len()
            .min(limit - self.captured.bytes.len().min(limit));
        self.captured.bytes.extend_from_slice(&bytes[..taken]);
        self.captured.overflowed |= taken < bytes.len() || self.captured.after_blank;
    }

    fn end_key(&mut self) {
        if self.place != Place::Key {
            return;
        }
        let key = Text::new(&self.captured.bytes).filter(|_| !self.captured.overflowed);
        let field = key.map_or(Field::Other, |key| key.with_name(Field::of));
        self.turn_to(Place::Value(field));
    }

    fn end_value(&mut self) {
        let null = !self.captured.overflowed && self.captured.bytes == b"null";
        match self.place {
            Place::Value(Field::Id) => {
                self.found.has_id = !null && !self.captured.overflowed;
                std::mem::swap(&mut self.found.id, &mut self.captured.bytes);
            }
            Place::Value(Field::Method) => self.found.has_method = !null,
            Place::Value(Field::Outcome) => self.found.has_outcome = true,
            Place::Value(Field::Other) | Place::Key => {}
        }
        self.turn_to(Place::Key);
    }

    fn turn_to(&mut self, place: Place) {
        self.place = place;
        self.captured.bytes.clear();
        self.captured.after_blank = false;
        self.captured.overflowed = false;
    }
}

/// The place after a member that begins at `at`, if it is short, written plainly, and means nothing.
fn plain_member_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let (key_end, field) = if let Some(end) = plain_string_end(bytes, at + 1) {
        (end, Field::of(&bytes[at + 1..end - 1]))
    } else {
        let end = at + escaped_key_len(&bytes[at..])?;
        (end, Text::new(&bytes[at..end])?.with_name(Field::of))
    };
    if bytes.get(key_end) != Some(&b':') || field != Field::Other {
        return None;
    }
    let value = key_end + 1;
    let value_end = if bytes.get(value) == Some(&b'"') {
        plain_string_end(bytes, value + 1)?
    } else {
        value + run(&bytes[value..], |byte| byte.is_ascii_alphanumeric())
    };
    (bytes.get(value_end) == Some(&b',')).then_some(value_end + 1)
}

/// The place after a string that begins at `start`, after its quotation mark, if it is short and plain.
#[inline]
fn plain_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let rest = after_plain_string::<false>(bytes.get(start..)?).ok()?;
    Some(bytes.len() - rest.len())
}

/// The length of a key with its quotation marks, with which `bytes` begin, if it is not too long to mean anything.
fn escaped_key_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < MAX_KEY_BYTES {
        at += match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => 2,
            _ => 1,
        };
    }
    None
}

/// How many bytes from the front on are of this kind.
fn run(bytes: &[u8], is_of_kind: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !is_of_kind(*byte));
    end.unwrap_or(bytes.len())
}

/// The id, if it is JSON; it is going to be written into a response.
fn checked_id(text: &[u8]) -> Option<RequestId> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(RequestId::new(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skip(pieces: &[&[u8]]) -> Skipped {
        let mut scanner = SkipScanner::default();
        for piece in pieces {
            scanner.feed(piece);
        }
        scanner.finish()
    }

    /// The same, one byte after the other.
    #[derive(Default)]
    struct Model(SkipScanner);

    impl Model {
        fn feed(&mut self, byte: u8) {
            let scanner = &mut self.0;
            match byte {
                _ if scanner.escaped => {
                    scanner.escaped = false;
                    scanner.capture(&[byte]);
                }
                b'"' => {
                    scanner.in_string ^= true;
                    scanner.capture(&[byte]);
                }
                b'\\' if scanner.in_string => {
                    scanner.escaped = true;
                    scanner.capture(&[byte]);
                }
                _ if scanner.in_string => scanner.capture(&[byte]),
                b' ' | b'\t' | b'\r' if scanner.depth <= 1 => {
                    scanner.captured.after_blank = !scanner.captured.bytes.is_empty();
                }
                _ => scanner.feed_structure(byte),
            }
        }

        fn skip(line: &[u8]) -> Skipped {
            let mut model = Self::default();
            for byte in line {
                model.feed(*byte);
            }
            model.0.found.len = line.len() as u64;
            model.0.finish()
        }
    }

    fn id_of(line: &str) -> Option<String> {
        skip(&[line.as_bytes()]).id.map(|id| id.to_string())
    }

    #[test]
    fn finds_the_top_level_id_anywhere() {
        for (line, id) in [
            (r#"{"id":1,"method":"m"}"#, Some("1")),
            (
                r#"{"params":{"id":9,"x":["}",{"id":8}]},"method":"m","id":"last"}"#,
                Some(r#""last""#),
            ),
            (r#"{"i\u0064" : "a,\"b" , "x":1}"#, Some(r#""a,\"b""#)),
            (r#"{"id":1,"id":2}"#, Some("2")),
            (r#"{"id":null}"#, None),
            (r#"{"x":"\\","id":3}"#, Some("3")),
            (r#"{"x":{"id":3}}"#, None),
            (r#"[{"id":3}]"#, None),
            (r#"{"id":[1,{"a":2}]}"#, Some(r#"[1,{"a":2}]"#)),
            (r#"{"id":1 2}"#, None),
            (r#"{"id": [1, 2] }"#, Some("[1, 2]")),
            ("xxxx", None),
        ] {
            assert_eq!(id_of(line).as_deref(), id, "{line}");
        }
    }

    #[test]
    fn blanks_around_the_id_count_for_nothing() {
        let many = " \t".repeat(MAX_ID_BYTES);
        for id in ["7", r#""a""#, "[1, 2]"] {
            let line = format!(r#"{{{many}"id"{many}:{many}{id}{many},{many}"method"{many}:1}}"#);
            assert_eq!(id_of(&line).as_deref(), Some(id));
            assert!(skip(&[line.as_bytes()]).has_method);
        }
        for line in [
            r#"{"id" "x":1}"#,
            r#"{"id":1 [2]}"#,
            r#"{"id":"a" "b"}"#,
            r#"{"id":null}"#,
        ] {
            assert_eq!(id_of(&line.replace(' ', &many)), None, "{line}");
        }
    }

    #[test]
    fn tells_requests_from_responses() {
        let request = skip(&[br#"{"method":"m","params":{"result":1},"id":1}"#]);
        assert!(request.has_method && !request.has_outcome);
        let response = skip(&[br#"{"id":1,"result":{"method":"m"}}"#]);
        assert!(!response.has_method && response.has_outcome);
        assert!(!skip(&[br#"{"id":1,"method":null}"#]).has_method);
    }

    #[test]
    fn an_id_over_the_limit_is_none() {
        let line = |len: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(len));
        assert!(id_of(&line(MAX_ID_BYTES - 2)).is_some());
        assert!(id_of(&line(MAX_ID_BYTES - 1)).is_none());
    }

    #[test]
    fn keeps_nothing_of_what_does_not_matter() {
        let mut scanner = SkipScanner::default();
        scanner.feed(br#"{"params":""#);
        for _ in 0..1000 {
            scanner.feed(&[b'x'; 4096]);
        }
        assert!(scanner.captured.bytes.capacity() <= 2 * MAX_ID_BYTES);
        scanner.feed(br#"","id":5}"#);
        assert_eq!(scanner.finish().id, Some(RequestId::new("5")));
    }

    /// Pieces of which lines are made, likely and unlikely ones.
    fn jsonish() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\\"",
            " ",
            "\t",
            "\"id\":",
            "\"i\\u0064\":",
            "7",
            "\"a\"",
            "null",
            "\"method\":",
            "\"m\"",
            "\"error\":",
            "{\"id\":[1,2]}",
            "\"a long enough string\"",
            "\"with \\\" quotes\"",
            "[[[[[]]]]]",
            "{\"a\":{\"b\":[]}}",
            "12345678",
            "é",
            "\"parameters\":",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn equals_a_scan_byte_by_byte(text in jsonish(), begins in any::<bool>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
            let line = if begins { format!("{{{text}") } else { text };
            let line = line.as_bytes();
            let expected = Model::skip(line);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(line.len() + 1)).collect();
            cuts.extend([0, line.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &line[pair[0]..pair[1]]).collect();
            prop_assert_eq!(skip(&pieces), expected);
        }

        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0usize..120, 0..6)) {
            let line = br#"{"jsonrpc":"2.0","params":{"a":"}\"{","id":[1]},"m\u0065thod":"tools/call","error":{},"id":"x\\y"}"#;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(line.len())).collect();
            cuts.extend([0, line.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &line[pair[0]..pair[1]]).collect();
            let skipped = skip(&pieces);
            prop_assert_eq!(&skipped, &skip(&[line]));
            prop_assert_eq!(skipped.id, Some(RequestId::new(r#""x\\y""#)));
        }
    }
}
