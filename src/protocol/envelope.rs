//! What the proxy must know of one line, read in one pass without building a document.
//!
//! Valid is what `serde_json` accepts when it ignores a value, after a UTF-8 check, plus the three constants that
//! Python's `json` writes for numbers without a JSON form. Of duplicate keys the last counts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::id::MAX_ID_BYTES;
use super::python_constants::patch_python_constants;
use super::reply::SOURCE;

/// A line that can be forwarded.
#[derive(Debug)]
pub enum Message<'a> {
    /// One JSON-RPC message, or a line of the heartbeat protocol.
    Single(Envelope<'a>),
    /// A JSON array.
    Batch(Batch<'a>),
}

/// What matters of a JSON array.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The messages with an id, and the notifications that mean something to a proxy, in order: the first
    /// [`MAX_BATCH`] of them.
    pub envelopes: Vec<Envelope<'a>>,
    /// How many things there are in the array.
    pub len: usize,
    /// Whether there are more than [`MAX_BATCH`] that matter.
    pub is_cut: bool,
}

/// So many messages of a batch are looked at. An envelope takes more memory than the smallest message, so there has to
/// be a limit; this is beyond what can be in flight both ways.
pub const MAX_BATCH: usize = 4096;

/// The top level of one JSON object.
#[derive(Debug, Default, Clone)]
pub struct Envelope<'a> {
    /// The `type` of a line of the heartbeat protocol.
    pub control: Option<Control>,
    /// What `method` says, if it is there and not null.
    pub method: Option<Method>,
    /// The id as written, if it is there and not null.
    pub id: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
    /// Where all but the id lies, if that is not the line itself.
    copy: Option<Copied<'a>>,
}

/// A copy of a line in which every byte has kept its place.
#[derive(Debug, Clone, Copy)]
struct Copied<'a> {
    copy: &'a str,
    original: &'a str,
}

impl<'a> Copied<'a> {
    /// The text of a part of the copy, as it was written.
    fn written(self, part: &str) -> &'a str {
        let start = part.as_ptr() as usize - self.copy.as_ptr() as usize;
        &self.original[start..start + part.len()]
    }
}

/// Lines that the two ends of a connection exchange about the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `"type":"heartbeat"`
    Heartbeat,
    /// `"type":"handshake"`
    Handshake,
    /// `"type":"heartbeat_response"`
    HeartbeatResponse,
}

/// The methods that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `initialize`, with which a legacy session opens.
    Initialize,
    /// `notifications/initialized`, which ends a legacy handshake.
    Initialized,
    /// `server/discover`, with which a modern client looks whom it talks to.
    Discover,
    /// `notifications/cancelled`, which takes a request back.
    Cancelled,
    /// `$/mcp/serverRestarted`, with which a proxy tells of a restart.
    ServerRestarted,
    /// Any other.
    Other,
}

/// Why a line can't be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Some byte sequence in it is no UTF-8.
    NotUtf8,
    /// It is no JSON text.
    NotJson,
    /// It is JSON, but neither an object nor an array.
    Scalar,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "the line is not UTF-8",
            Self::NotJson => "the line is not JSON",
            Self::Scalar => "the line is neither a JSON object nor an array",
        })
    }
}

impl<'a> Message<'a> {
    /// Reads a line without its line end.
    ///
    /// `patched` is where a copy goes if the line holds one of Python's constants.
    pub fn read(line: &'a [u8], patched: &'a mut String) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(line).map_err(|_| Invalid::NotUtf8)?;
        match Self::parse(text) {
            Err(Invalid::NotJson) if patch_python_constants(text, patched) => {
                let patched = patched.as_str();
                Self::parse(patched).map(|message| message.translated(patched, text))
            }
            read => read,
        }
    }

    /// The envelopes in it, in order.
    pub fn envelopes(&self) -> &[Envelope<'a>] {
        match self {
            Self::Single(envelope) => std::slice::from_ref(envelope),
            Self::Batch(batch) => &batch.envelopes,
        }
    }

    /// Only the first level is looked into; what is deeper `serde_json` skips without recursion.
    fn parse(text: &'a str) -> Result<Self, Invalid> {
        let read = match text.trim_start_matches(BLANKS).as_bytes().first() {
            Some(b'{') => serde_json::from_str::<Envelope<'a>>(text).map(Self::Single),
            Some(b'[') => serde_json::from_str::<Batch<'a>>(text).map(Self::Batch),
            _ => {
                let scalar = serde_json::from_str::<IgnoredAny>(text);
                return Err(if scalar.is_ok() {
                    Invalid::Scalar
                } else {
                    Invalid::NotJson
                });
            }
        };
        read.map_err(|_| Invalid::NotJson)
    }

    /// A patched copy keeps every byte in its place, so that what was written as an id can be found again.
    fn translated(mut self, patched: &'a str, original: &'a str) -> Self {
        let envelopes = match &mut self {
            Self::Single(envelope) => std::slice::from_mut(envelope),
            Self::Batch(batch) => batch.envelopes.as_mut_slice(),
        };
        let copied = Copied {
            copy: patched,
            original,
        };
        for envelope in envelopes {
            envelope.id = envelope.id.map(|id| copied.written(id));
            envelope.copy = Some(copied);
        }
        self
    }
}

impl<'a> Envelope<'a> {
    /// The id of a message with a method and an id: whoever sent it waits for an answer.
    pub fn request_id(&self) -> Option<&'a str> {
        self.method.and(self.id)
    }

    /// The id of a message with an id and no method: the answer to a request of the other side.
    pub fn answered_id(&self) -> Option<&'a str> {
        if self.method.is_none() { self.id } else { None }
    }

    /// The request that this message takes back, if it is a `notifications/cancelled`. No request has an id over
    /// [`MAX_ID_BYTES`].
    pub fn cancelled_id(&self) -> Option<&'a str> {
        if self.method != Some(Method::Cancelled) {
            return None;
        }
        let params = serde_json::from_str::<CancelledParams<'a>>(self.params?).ok()?;
        let id = params
            .0
            .filter(|id| *id != "null" && id.len() <= MAX_ID_BYTES)?;
        Some(self.copy.map_or(id, |copied| copied.written(id)))
    }

    /// The text of `result`, if there is one.
    pub fn result(&self) -> Option<&'a str> {
        self.result
    }

    /// Whether it is an error that a proxy answered in the server's place.
    pub fn is_proxy_error(&self) -> bool {
        let error = self
            .error
            .and_then(|error| serde_json::from_str::<serde_json::Value>(error).ok());
        error.is_some_and(|error| error["data"]["source"] == SOURCE)
    }

    fn set(&mut self, key: &str, value: &'a str) {
        let present = (value != "null").then_some(value);
        match key {
            "type" => self.control = string_value(value).and_then(|kind| Control::named(&kind)),
            "method" => self.method = present.map(Method::of),
            "id" => self.id = present,
            "params" => self.params = present,
            "result" => self.result = Some(value),
            "error" => self.error = present,
            _ => {}
        }
    }
}

impl Control {
    fn named(kind: &str) -> Option<Self> {
        match kind {
            "heartbeat" => Some(Self::Heartbeat),
            "handshake" => Some(Self::Handshake),
            "heartbeat_response" => Some(Self::HeartbeatResponse),
            _ => None,
        }
    }
}

impl Method {
    fn of(text: &str) -> Self {
        match string_value(text).as_deref() {
            Some("initialize") => Self::Initialize,
            Some("notifications/initialized") => Self::Initialized,
            Some("server/discover") => Self::Discover,
            Some("notifications/cancelled") => Self::Cancelled,
            Some("$/mcp/serverRestarted") => Self::ServerRestarted,
            _ => Self::Other,
        }
    }
}

/// What JSON calls whitespace (RFC 8259, section 2).
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// The value of a JSON string; `None` for another kind of value and for a string that holds a lone surrogate.
fn string_value(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(inner.into())
    }
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut envelope = Envelope::default();
                // As raw text, because a key with a lone surrogate is valid but no `str`.
                while let Some(key) = map.next_key::<&RawValue>()? {
                    match string_value(key.get()) {
                        Some(key)
                            if matches!(
                                &*key,
                                "type" | "method" | "id" | "params" | "result" | "error"
                            ) =>
                        {
                            envelope.set(&key, map.next_value::<&RawValue>()?.get());
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Batch<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<'de>, A::Error> {
                let mut batch = Batch::default();
                while let Some(item) = seq.next_element::<&RawValue>()? {
                    batch.len += 1;
                    if item.get().starts_with('{') {
                        batch.add(serde_json::from_str(item.get()).map_err(A::Error::custom)?);
                    }
                }
                Ok(batch)
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

impl<'a> Batch<'a> {
    fn add(&mut self, envelope: Envelope<'a>) {
        let is_plain = matches!(envelope.method, None | Some(Method::Other));
        if envelope.id.is_none() && is_plain {
            return;
        }
        if self.envelopes.len() < MAX_BATCH {
            self.envelopes.push(envelope);
        } else {
            self.is_cut = true;
        }
    }
}

/// `requestId` of the parameters of a `notifications/cancelled`.
struct CancelledParams<'a>(Option<&'a str>);

impl<'de> Deserialize<'de> for CancelledParams<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = CancelledParams<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<CancelledParams<'de>, A::Error> {
                let mut id = None;
                while let Some(key) = map.next_key::<&RawValue>()? {
                    let value = map.next_value::<&RawValue>()?.get();
                    if string_value(key.get()).as_deref() == Some("requestId") {
                        id = Some(value);
                    }
                }
                Ok(CancelledParams(id))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(line: &str, check: impl FnOnce(&Envelope<'_>)) {
        let mut patched = String::new();
        match Message::read(line.as_bytes(), &mut patched) {
            Ok(Message::Single(envelope)) => check(&envelope),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn verdict(line: impl AsRef<[u8]>) -> Result<(), Invalid> {
        Message::read(line.as_ref(), &mut String::new()).map(|_| ())
    }

    #[test]
    fn reads_what_a_proxy_must_know() {
        single(
            r#"{"jsonrpc":"2.0","id":1.50,"method":"initialize","params":{"id":9}}"#,
            |e| {
                assert_eq!((e.id, e.method), (Some("1.50"), Some(Method::Initialize)));
                assert_eq!((e.request_id(), e.answered_id()), (Some("1.50"), None));
            },
        );
        single(r#" {"result" : {"id":2} , "id" : "a" } "#, |e| {
            assert_eq!((e.request_id(), e.answered_id()), (None, Some(r#""a""#)));
            assert_eq!(e.result(), Some(r#"{"id":2}"#));
        });
        single(r#"{"id":null,"method":"x"}"#, |e| {
            assert_eq!(e.request_id(), None);
        });
    }

    #[test]
    fn errors_of_a_proxy_are_told_from_the_servers() {
        let own = crate::protocol::reply::error(
            None,
            crate::protocol::reply::Reason::Shutdown,
            "x",
            None,
        );
        single(&own, |e| assert!(e.is_proxy_error()));
        for other in [
            r#"{"id":1,"error":{"code":1,"data":{"source":"x"}}}"#,
            r#"{"error":null}"#,
            r#"{"error":"mcp-tcp-proxy"}"#,
        ] {
            single(other, |e| assert!(!e.is_proxy_error()));
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_counts() {
        single(r#"{"type":"heartbeat","type":5}"#, |e| {
            assert_eq!(e.control, None);
        });
        single(r#"{"type":5,"type":"heartbeat"}"#, |e| {
            assert_eq!(e.control, Some(Control::Heartbeat));
        });
        single(r#"{"id":1,"id":2,"method":"a","method":null}"#, |e| {
            assert_eq!(e.answered_id(), Some("2"));
        });
    }

    #[test]
    fn escapes_in_keys_and_values() {
        single(r#"{"\u0074ype":"hand\u0073hake","\ud800":1}"#, |e| {
            assert_eq!(e.control, Some(Control::Handshake));
        });
        single(
            r#"{"m\u0065thod":"server\/discover","i\u0064":"\ud800"}"#,
            |e| {
                assert_eq!(
                    (e.method, e.id),
                    (Some(Method::Discover), Some(r#""\ud800""#))
                );
            },
        );
        single(r#"{"type":"\ud800"}"#, |e| assert_eq!(e.control, None));
    }

    #[test]
    fn cancellations_name_a_request_wherever_params_stand() {
        single(
            r#"{"params":{"requestId":"7","reason":"x"},"method":"notifications/cancelled"}"#,
            |e| {
                assert_eq!(e.cancelled_id(), Some(r#""7""#));
            },
        );
        single(
            r#"{"method":"notifications/other","params":{"requestId":7}}"#,
            |e| assert_eq!(e.cancelled_id(), None),
        );
        for params in [r#""requestId""#, "[7]", "{}", r#"{"requestId":null}"#] {
            single(
                &format!(r#"{{"method":"notifications/cancelled","params":{params}}}"#),
                |e| {
                    assert_eq!(e.cancelled_id(), None);
                },
            );
        }
    }

    #[test]
    fn batches() {
        let mut patched = String::new();
        let message = Message::read(
            br#"[{"id":1,"method":"a"}, 5, [{"id":9}], {"id":2}]"#,
            &mut patched,
        )
        .unwrap();
        let ids: Vec<_> = message
            .envelopes()
            .iter()
            .map(|e| (e.request_id(), e.answered_id()))
            .collect();
        assert_eq!(ids, [(Some("1"), None), (None, Some("2"))]);
        assert!(
            matches!(Message::read(b"[]", &mut String::new()), Ok(Message::Batch(batch)) if batch.len == 0)
        );
    }

    #[test]
    fn a_batch_costs_no_more_memory_than_there_can_be_requests() {
        let notifications = format!("[{}]", vec![r#"{"method":"x"}"#; 3 * MAX_BATCH].join(","));
        let requests = format!(
            "[{}]",
            vec![r#"{"id":1,"method":"x"}"#; 3 * MAX_BATCH].join(",")
        );
        for (line, kept, is_cut) in [(notifications, 0, false), (requests, MAX_BATCH, true)] {
            let mut patched = String::new();
            match Message::read(line.as_bytes(), &mut patched) {
                Ok(Message::Batch(batch)) => {
                    assert_eq!(
                        (batch.len, batch.envelopes.len(), batch.is_cut),
                        (3 * MAX_BATCH, kept, is_cut)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_message() {
        for scalar in ["5", r#""x""#, "true", "null", "NaN", "-Infinity", " 1 "] {
            assert_eq!(verdict(scalar), Err(Invalid::Scalar), "{scalar}");
        }
        for text in [
            "{",
            "{]",
            "{} {}",
            "[1,]",
            "{a:1}",
            "\u{feff}{}",
            "{\"a\":\"\0\"}",
            r#"{"a":01}"#,
            "x",
            r#"{"a":"\x"}"#,
        ] {
            assert_eq!(verdict(text), Err(Invalid::NotJson), "{text}");
        }
        assert_eq!(verdict(b"{\"a\":\"\xff\"}"), Err(Invalid::NotUtf8));
        assert_eq!(verdict(b"{\"a\":\"\xed\xa0\x80\"}"), Err(Invalid::NotUtf8));
    }

    #[test]
    fn pythons_constants() {
        for text in [
            r#"{"a":NaN}"#,
            "[NaN,Infinity , -Infinity]",
            r#"{"é":"\"NaN","b":{"c":[Infinity]}}"#,
        ] {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
        for text in [
            "{NaN:1}",
            "{NaN :1}",
            "[-NaN]",
            "[1NaN]",
            "[NaN5]",
            "[+Infinity]",
            "[--Infinity]",
            "[Infinit]",
            "[nan]",
            "[1-Infinity]",
            r#"["a"NaN]"#,
            r#"{"a":NaN"#,
            r#"["NaN]"#,
        ] {
            assert_eq!(verdict(text), Err(Invalid::NotJson), "{text}");
        }
        single(r#"{"a":NaN,"id":"NaN","method":"é"}"#, |e| {
            assert_eq!(e.id, Some(r#""NaN""#));
        });
        single(r#"{"a":"é","id":-Infinity,"method":"m"}"#, |e| {
            assert_eq!(e.id, Some("-Infinity"));
        });
        single(
            r#"{"method":"notifications/cancelled","params":{"requestId":NaN}}"#,
            |e| assert_eq!(e.cancelled_id(), Some("NaN")),
        );
    }

    #[test]
    fn depth_costs_no_stack() {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(verdict(format!("{{\"a\":{open}1{close}}}")), Ok(()));
        assert_eq!(verdict(format!("{open}{close}")), Ok(()));
        assert_eq!(verdict(&open), Err(Invalid::NotJson));
    }

    /// Pieces that are likely to be put together wrongly.
    fn jsonish() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"id\":",
            "\"method\":",
            "\"type\":\"heartbeat\"",
            "1",
            "-1.5e3",
            "null",
            "true",
            "\"",
            "\\",
            "\\u0069",
            r#""\ud800""#,
            " ",
            "\t",
            "é",
            "\0",
            "\"a\":",
            "{\"a\":1}",
            "99999999999999999999",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Objects and arrays with the keys that matter, duplicates and escapes included.
    fn objects() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "id",
            "i\\u0064",
            "method",
            "type",
            "params",
            "x",
            "\\ud83d\\ude00",
        ]);
        let value = prop::sample::select(vec![
            "1",
            "null",
            "\"heartbeat\"",
            "{\"id\":2}",
            "[{\"method\":1}]",
            " -0.50 ",
            "\"é\"",
        ]);
        prop::collection::vec((key, value), 0..6).prop_map(|fields| {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("\"{key}\":{value}"))
                .collect();
            format!("{{{}}}", fields.join(" , "))
        })
    }

    proptest! {
        #[test]
        fn accepts_what_serde_json_accepts(text in prop_oneof![jsonish(), objects()]) {
            let expected = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            let scalar = !text.trim_start_matches(BLANKS).starts_with(['{', '[']);
            prop_assert_eq!(verdict(&text).is_ok(), expected && !scalar);
        }

        #[test]
        fn finds_what_a_document_holds(text in prop_oneof![jsonish(), objects()]) {
            let mut patched = String::new();
            let Ok(Message::Single(envelope)) = Message::read(text.as_bytes(), &mut patched) else { return Ok(()) };
            let Ok(document) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(()) };
            let id = envelope.id.map(|id| serde_json::from_str::<serde_json::Value>(id).unwrap());
            prop_assert_eq!(id.as_ref(), document.get("id").filter(|id| !id.is_null()));
            prop_assert_eq!(envelope.method.is_some(), document.get("method").is_some_and(|m| !m.is_null()));
            prop_assert_eq!(envelope.control.is_some(), document.get("type").is_some_and(|t| t == "heartbeat"));
        }
    }
}
