//! Looks for the id in a line that is too long to keep, in constant memory.
//!
//! The line is not checked: it is going to be refused whatever it holds. All that matters is whose request it was,
//! and the id may stand anywhere, also at the very end.

use super::id::{MAX_ID_BYTES, RequestId};

/// Longer keys are none that matter, even if each character is written as `\u….`
const MAX_KEY_BYTES: usize = 64;

/// A line of which only this is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its top-level id, if it has one that is not null and within [`MAX_ID_BYTES`].
    pub id: Option<RequestId>,
    /// Whether it has a top-level `method`, which makes it a request or a notification.
    pub has_method: bool,
    /// Whether it has a top-level `result` or `error`, which makes it an answer.
    pub has_outcome: bool,
}

/// Takes a line in pieces of any size.
#[derive(Debug, Default)]
pub struct SkipScanner {
    depth: u64,
    top_is_object: bool,
    in_string: bool,
    escaped: bool,
    place: Place,
    /// What has been seen of the key or the value at hand, cut at its limit.
    captured: Vec<u8>,
    /// Whether a blank has come since; there may be any number of them before what ends the key or the value.
    after_blank: bool,
    /// Whether more has come than was captured: it is too long, or it is no JSON.
    overflowed: bool,
    id: Option<RequestId>,
    has_method: bool,
    has_outcome: bool,
}

/// Where in the top-level object the scanner stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Key,
    Value(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Method,
    Outcome,
    Other,
}

impl SkipScanner {
    /// Takes the next piece of the line.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.in_string {
                self.feed_string(bytes)
            } else {
                self.feed_structure(bytes)
            };
            bytes = &bytes[taken..];
        }
    }

    /// What was found, once the line has ended.
    pub fn finish(mut self) -> Skipped {
        self.end_value();
        Skipped {
            id: self.id,
            has_method: self.has_method,
            has_outcome: self.has_outcome,
        }
    }

    /// Inside a string only a quote and a backslash mean anything.
    fn feed_string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            self.capture(&bytes[..1]);
            return 1;
        }
        let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else {
            self.capture(bytes);
            return bytes.len();
        };
        self.capture(&bytes[..=at]);
        match bytes[at] {
            b'"' => self.in_string = false,
            _ => self.escaped = true,
        }
        at + 1
    }

    fn feed_structure(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match byte {
            b'"' => {
                self.in_string = true;
                self.capture(&bytes[..1]);
            }
            b'{' | b'[' => {
                self.capture(&bytes[..1]);
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
                    self.capture(&bytes[..1]);
                }
            }
            b':' if self.depth == 1 => self.end_key(),
            b',' if self.depth == 1 => self.end_value(),
            b' ' | b'\t' | b'\r' if self.depth <= 1 => {
                self.after_blank = !self.captured.is_empty();
            }
            _ => self.capture(&bytes[..1]),
        }
        1
    }

    fn capture(&mut self, bytes: &[u8]) {
        let limit = match self.place {
            Place::Value(Field::Id) => MAX_ID_BYTES,
            Place::Key | Place::Value(Field::Method) => MAX_KEY_BYTES,
            Place::Value(Field::Outcome | Field::Other) => 0,
        };
        if self.depth == 0 || !self.top_is_object {
            return;
        }
        let taken = bytes.len().min(limit - self.captured.len().min(limit));
        self.captured.extend_from_slice(&bytes[..taken]);
        self.overflowed |= taken < bytes.len() || self.after_blank;
    }

    fn end_key(&mut self) {
        if self.place != Place::Key {
            return;
        }
        let key = if self.overflowed {
            None
        } else {
            serde_json::from_slice::<String>(&self.captured).ok()
        };
        let field = match key.as_deref() {
            Some("id") => Field::Id,
            Some("method") => Field::Method,
            Some("result" | "error") => Field::Outcome,
            _ => Field::Other,
        };
        self.turn_to(Place::Value(field));
    }

    fn end_value(&mut self) {
        let null = !self.overflowed && self.captured == b"null";
        match self.place {
            Place::Value(Field::Id) => self.id = if null { None } else { self.captured_id() },
            Place::Value(Field::Method) => self.has_method = !null,
            Place::Value(Field::Outcome) => self.has_outcome = true,
            Place::Value(Field::Other) | Place::Key => {}
        }
        self.turn_to(Place::Key);
    }

    /// The id, if it is whole and is JSON; it is going to be written into an answer.
    fn captured_id(&self) -> Option<RequestId> {
        let text = std::str::from_utf8(&self.captured).ok()?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
        (!self.overflowed).then(|| RequestId::new(text))
    }

    fn turn_to(&mut self, place: Place) {
        self.place = place;
        self.captured.clear();
        self.after_blank = false;
        self.overflowed = false;
    }
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
    fn tells_requests_from_answers() {
        let request = skip(&[br#"{"method":"m","params":{"result":1},"id":1}"#]);
        assert!(request.has_method && !request.has_outcome);
        let answer = skip(&[br#"{"id":1,"result":{"method":"m"}}"#]);
        assert!(!answer.has_method && answer.has_outcome);
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
        assert!(scanner.captured.capacity() <= 2 * MAX_ID_BYTES);
        scanner.feed(br#"","id":5}"#);
        assert_eq!(scanner.finish().id, Some(RequestId::new("5")));
    }

    proptest! {
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
