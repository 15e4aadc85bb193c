//! What the proxy must know of one line, read in one pass without building a document.
//!
//! Valid is UTF-8 that `json` accepts. Of duplicate keys the last counts.

mod batch;
mod member;
mod words;

use std::fmt;
use std::ops::Range;

pub use self::batch::{Batch, MAX_BATCH};
use self::member::Member;
pub use self::words::{Control, Method};
use super::id::{IdText, MAX_ID_BYTES};
use super::json::{self, Malformed, Reader, Value};
use super::own_messages::{ErrorReason, SOURCE};

/// A line that can be forwarded.
#[derive(Debug)]
pub enum Message<'a> {
    /// One JSON-RPC message, or a line of the heartbeat protocol.
    Single(Envelope<'a>),
    /// A JSON array.
    Batch(Batch<'a>),
}

/// What almost every message begins with, and what means nothing to a proxy.
const VERSION: &[u8] = br#""jsonrpc":"2.0""#;

/// The member of `_meta` in which a modern client names the version of MCP that it speaks.
const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The errors of a proxy are shorter, in bytes: what they quote is cut long before.
const MAX_PROXY_ERROR_BYTES: usize = 64 * 1024;

/// The longest parameters in which a cancelled request is looked for, in bytes.
const MAX_CANCELLED_BYTES: usize = 64 * 1024;

/// The top level of one JSON object.
#[derive(Debug, Default, Clone)]
pub struct Envelope<'a> {
    /// The `type` of a line of the heartbeat protocol.
    pub control: Option<Control>,
    /// What `method` says, if it is there and not null.
    pub method: Option<Method>,
    /// The id as written, if it is there and not null.
    pub id: Option<IdText<'a>>,
    id_start: usize,
    line: &'a [u8],
    params: Place,
    result: Place,
    error: Place,
}

/// Where in a line the value of a member is; nowhere, if it is not there or does not count.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    start: usize,
    end: usize,
}

/// Why a line can't be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Some byte sequence in it is not UTF-8.
    NotUtf8,
    /// It is not a JSON text.
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
    pub fn read(line: &'a [u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(line);
        match reader.peek() {
            b'{' => {
                let mut envelope = Envelope::default();
                let read = envelope.read(&mut reader);
                Self::check(line, reader, read)?;
                Ok(Self::Single(envelope))
            }
            b'[' => {
                let mut batch = Batch::default();
                // Of the copy alone, somebody else has the address.
                let mut here = reader;
                let read = batch.read(&mut here);
                Self::check(line, here, read)?;
                Ok(Self::Batch(batch))
            }
            _ => Err(Self::why_invalid(line)),
        }
    }

    /// Makes sure that what was read is all there is, and UTF-8.
    #[inline]
    fn check(
        line: &[u8],
        mut reader: Reader<'_>,
        read: Result<(), Malformed>,
    ) -> Result<(), Invalid> {
        let is_json = read.is_ok() && reader.end().is_ok();
        if is_json && (reader.is_ascii() || str::from_utf8(line).is_ok()) {
            return Ok(());
        }
        Err(Self::why_invalid(line))
    }

    /// Tells JSON texts of another kind from what is not JSON, or not even UTF-8.
    #[cold]
    fn why_invalid(line: &[u8]) -> Invalid {
        if str::from_utf8(line).is_err() {
            return Invalid::NotUtf8;
        }
        let mut reader = Reader::new(line);
        match reader.peek() {
            b'{' | b'[' => Invalid::NotJson,
            _ => match reader.value().and_then(|_| reader.end()) {
                Ok(()) => Invalid::Scalar,
                Err(Malformed) => Invalid::NotJson,
            },
        }
    }

    /// The envelopes in it, in order.
    pub fn envelopes(&self) -> &[Envelope<'a>] {
        match self {
            Self::Single(envelope) => std::slice::from_ref(envelope),
            Self::Batch(batch) => &batch.envelopes,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads an object into an empty envelope. It is a part of its caller, so that the reader stays in registers.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "nearly all lines are one object")]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let line = reader.text();
        self.line = line;
        let mut is_over = reader.begin_object(VERSION)?;
        while !is_over {
            let (member, value) = reader.member()?;
            self.set(line, member, value);
            is_over = reader.is_last_member()?;
        }
        Ok(())
    }

    /// The id of a message with a method and an id: the sender waits for a response.
    pub fn request_id(&self) -> Option<IdText<'a>> {
        self.method.and(self.id)
    }

    /// The id of a message with an id and no method: the response to a request of the other side.
    pub fn response_id(&self) -> Option<IdText<'a>> {
        if self.method.is_none() { self.id } else { None }
    }

    /// Where in the line the id is, if there is one.
    pub fn id_range(&self) -> Option<Range<usize>> {
        let id = self.id?;
        Some(self.id_start..self.id_start + id.len())
    }

    /// Where in the line these members of `params` have their values, of equal names the last; `None` if there is no
    /// object `params`. It is read anew for that, so that messages of which nobody asks this cost nothing.
    pub fn ranges_in_params<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Option<[Option<Range<usize>>; N]> {
        let start = self.params.start;
        let found = json::find(self.params.text(self.line)?, names)?;
        let in_line = |range: Range<usize>| start + range.start..start + range.end;
        Some(found.map(|range| range.map(in_line)))
    }

    /// The request that this message takes back, if it is a `notifications/cancelled`. No request has an id over
    /// [`MAX_ID_BYTES`], and nobody gives reasons of more than [`MAX_CANCELLED_BYTES`]: to look through them would take as
    /// long as to read the line.
    pub fn cancelled_id(&self) -> Option<IdText<'a>> {
        let is_long = self.params.end - self.params.start > MAX_CANCELLED_BYTES;
        if self.method != Some(Method::Cancelled) || is_long {
            return None;
        }
        let [id] = self.ranges_in_params(["requestId"])?;
        let range = id.filter(|range| range.len() <= MAX_ID_BYTES)?;
        let id = self.line.get(range).filter(|id| *id != b"null")?;
        Some(IdText::new(id))
    }

    /// Whether it is a response, if only to nobody: its id may be null.
    pub fn is_response(&self) -> bool {
        let has_outcome = self.result.is_there() || self.error.is_there();
        self.method.is_none() && (self.id.is_some() || has_outcome)
    }

    /// The `progressToken` of a notification of progress.
    pub fn progress_token(&self) -> Option<&'a str> {
        member_of(self.params.text(self.line)?, "progressToken")
    }

    /// The `progressToken` by which a request asks for notifications of its progress.
    pub fn requested_progress(&self) -> Option<&'a str> {
        let meta = member_of(self.params.text(self.line)?, "_meta")?;
        member_of(meta, "progressToken")
    }

    /// Whether `params._meta` names a protocol version, as each request of a modern client does. `params` is read anew for
    /// that.
    pub fn names_protocol_version(&self) -> bool {
        self.protocol_version().is_some()
    }

    /// The text of that version.
    pub fn protocol_version(&self) -> Option<&'a str> {
        let params = self.params.text(self.line)?;
        let [meta] = json::find(params, ["_meta"])?;
        let meta = params.get(meta?)?;
        let [version] = json::find(meta, [PROTOCOL_VERSION])?;
        meta.get(version?)
    }

    /// The text of `params`, if there are any.
    pub fn params(&self) -> Option<&'a str> {
        self.params.text(self.line)
    }

    /// Whether it has a `result`, null or not. To ask for its text takes longer.
    pub fn has_result(&self) -> bool {
        self.result.is_there()
    }

    /// The text of `result`, if there is one.
    pub fn result(&self) -> Option<&'a str> {
        self.result.text(self.line)
    }

    /// Whether it has an error that is not null.
    pub fn is_error(&self) -> bool {
        self.error.is_there()
    }

    /// The text of `error`, if there is one that is not null.
    pub fn error(&self) -> Option<&'a str> {
        self.error.text(self.line)
    }

    /// Whether it is an error that a proxy sent in the server's place.
    pub fn is_proxy_error(&self) -> bool {
        let error = self.error.bytes(self.line);
        error.is_some_and(|error| {
            error.len() <= MAX_PROXY_ERROR_BYTES && own_reason(error).is_some()
        })
    }

    /// Whether it is a proxy's error that says that it is being stopped, and that no server has seen the request.
    pub fn is_refusal_by_stop(&self) -> bool {
        self.is_proxy_error_of(ErrorReason::Shutdown)
            && self
                .error
                .bytes(self.line)
                .is_some_and(|error| is_undelivered(error) == Some(true))
    }

    /// The same, for this reason.
    pub fn is_proxy_error_of(&self, reason: ErrorReason) -> bool {
        self.is_proxy_error()
            && self.error.bytes(self.line).and_then(own_reason).as_deref() == Some(reason.name())
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs more than most members")]
    fn set(&mut self, line: &'a [u8], member: Member, value: Value) {
        match member {
            Member::Id => {
                let id = Place::of(value).bytes(line);
                self.id = id.map(|id| IdText::with_value(id, value.integer));
                self.id_start = value.start;
            }
            Member::Method => self.method = Method::of(line, value),
            Member::Params => self.params = Place::of(value),
            Member::Result => self.result = Place::any(value),
            Member::Error => self.error = Place::of(value),
            Member::Type => self.control = Control::of(line, value),
            Member::Other => {}
        }
    }
}

impl Place {
    fn is_there(self) -> bool {
        self.end > self.start
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs more than this")]
    fn any(value: Value) -> Self {
        Self {
            start: value.start,
            end: value.end,
        }
    }

    /// The place of a value that is not null.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs more than this")]
    fn of(value: Value) -> Self {
        if value.is_null {
            Self::default()
        } else {
            Self::any(value)
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call costs more than this")]
    fn bytes(self, line: &[u8]) -> Option<&[u8]> {
        line.get(self.start..self.end)
            .filter(|value| !value.is_empty())
    }

    fn text(self, line: &[u8]) -> Option<&str> {
        text(self.bytes(line)?)
    }
}

/// What `error.data.reason` says, or nothing, if `error.data.source` is the proxy's.
#[inline(never)]
fn own_reason(error: &[u8]) -> Option<String> {
    let error = text(error)?;
    let [data] = json::find(error, ["data"])?;
    let data = error.get(data?)?;
    let [source, reason] = json::find(data, ["source", "reason"])?;
    let read = |range| serde_json::from_str::<String>(data.get(range)?).ok();
    if read(source?)? != SOURCE {
        return None;
    }
    Some(reason.and_then(read).unwrap_or_default())
}

/// Whether `error.data` says that no server has seen the request.
#[inline(never)]
fn is_undelivered(error: &[u8]) -> Option<bool> {
    let error = text(error)?;
    let [data] = json::find(error, ["data"])?;
    let data = error.get(data?)?;
    let [delivered] = json::find(data, ["delivered"])?;
    Some(data.get(delivered?)? == "false")
}

/// The value of a member of an object, if it is there and not null.
fn member_of<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let [range] = json::find(object, [name])?;
    object.get(range?).filter(|value| *value != "null")
}

/// Whether a line is a notification of progress.
pub fn is_progress(line: &[u8]) -> bool {
    let method = text(line).and_then(|line| member_of(line, "method"));
    let method = method.and_then(|method| serde_json::from_str::<String>(method).ok());
    method.is_some_and(|method| method == "notifications/progress")
}

/// A part of a text that is UTF-8, cut out where no character is cut.
fn text(part: &[u8]) -> Option<&str> {
    str::from_utf8(part).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it is what is compared")]
    fn id(text: &str) -> Option<IdText<'_>> {
        Some(IdText::new(text.as_bytes()))
    }

    fn single(line: &str, check: impl FnOnce(&Envelope<'_>)) {
        match Message::read(line.as_bytes()) {
            Ok(Message::Single(envelope)) => check(&envelope),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn verdict(line: impl AsRef<[u8]>) -> Result<(), Invalid> {
        Message::read(line.as_ref()).map(|_| ())
    }

    #[test]
    fn reads_what_a_proxy_must_know() {
        single(
            r#"{"jsonrpc":"2.0","id":1.50,"method":"initialize","params":{"id":9}}"#,
            |e| {
                assert_eq!((e.id, e.method), (id("1.50"), Some(Method::Initialize)));
                assert_eq!((e.request_id(), e.response_id()), (id("1.50"), None));
            },
        );
        single(r#" {"result" : {"id":2} , "id" : "a" } "#, |e| {
            assert_eq!((e.request_id(), e.response_id()), (None, id(r#""a""#)));
            assert_eq!(e.result(), Some(r#"{"id":2}"#));
        });
        single(r#"{"id":null,"method":"x"}"#, |e| {
            assert_eq!(e.request_id(), None);
        });
    }

    #[test]
    fn a_cancelled_request_is_not_looked_for_in_endless_parameters() {
        for (bytes, is_found) in [(1000, true), (MAX_CANCELLED_BYTES, false)] {
            let reason = "x".repeat(bytes);
            let line = format!(
                r#"{{"method":"notifications/cancelled","params":{{"reason":"{reason}","requestId":7}}}}"#
            );
            single(&line, |e| assert_eq!(e.cancelled_id().is_some(), is_found));
        }
    }

    #[test]
    fn errors_of_a_proxy_are_told_from_the_servers() {
        let own = crate::protocol::own_messages::error(
            None,
            crate::protocol::own_messages::ErrorReason::Shutdown,
            "x",
            crate::protocol::own_messages::Loss::default(),
        );
        single(&own, |e| assert!(e.is_proxy_error()));
        single(
            r#"{"error":{"data":{"source":"mcp-tcp-prox\u0079"},"code":1}}"#,
            |e| assert!(e.is_proxy_error()),
        );
        let long = format!(
            r#"{{"error":{{"data":{{"source":"{SOURCE}"}},"message":"{}"}}}}"#,
            "x".repeat(MAX_PROXY_ERROR_BYTES)
        );
        single(&long, |e| assert!(!e.is_proxy_error(), "none is as long"));
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
            assert_eq!(e.response_id(), id("2"));
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
                    (Some(Method::Discover), id(r#""\ud800""#))
                );
            },
        );
        single(r#"{"type":"\ud800"}"#, |e| assert_eq!(e.control, None));
    }

    #[test]
    fn cancellations_name_a_request_wherever_params_are() {
        single(
            r#"{"params":{"requestId":"7","reason":"x"},"method":"notifications/cancelled"}"#,
            |e| {
                assert_eq!(e.cancelled_id(), id(r#""7""#));
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
    fn members_are_found_where_they_are_in_the_line() {
        let line =
            r#" {"params" : {"_meta":1,"requestId": "é", "_m\u0065ta":{"a":2} },"id": 1.50}"#;
        single(line, |e| {
            assert_eq!(&line[e.id_range().unwrap()], "1.50");
            let found = e.ranges_in_params(["_meta", "requestId", "x"]).unwrap();
            let texts = found.map(|range| range.map(|range| &line[range]));
            assert_eq!(texts, [Some(r#"{"a":2}"#), Some("\"é\""), None]);
        });
        single(r#"{"params":[1]}"#, |e| {
            assert_eq!((e.id_range(), e.ranges_in_params(["a"])), (None, None));
        });
    }

    #[test]
    fn batches() {
        let message =
            Message::read(br#"[{"id":1,"method":"a"}, 5, [{"id":9}], {"id":2}]"#).unwrap();
        let ids: Vec<_> = message
            .envelopes()
            .iter()
            .map(|e| (e.request_id(), e.response_id()))
            .collect();
        assert_eq!(ids, [(id("1"), None), (None, id("2"))]);
        assert!(matches!(Message::read(b"[]"), Ok(Message::Batch(batch)) if batch.len == 0));
    }

    #[test]
    fn a_batch_costs_no_more_memory_than_there_can_be_requests() {
        let notifications = format!("[{}]", vec![r#"{"method":"x"}"#; 3 * MAX_BATCH].join(","));
        let requests = format!(
            "[{}]",
            vec![r#"{"id":1,"method":"x"}"#; 3 * MAX_BATCH].join(",")
        );
        for (line, kept, is_cut) in [(notifications, 0, false), (requests, MAX_BATCH, true)] {
            match Message::read(line.as_bytes()) {
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
            assert_eq!(e.id, id(r#""NaN""#));
        });
        single(r#"{"a":"é","id":-Infinity,"method":"m"}"#, |e| {
            assert_eq!(e.id, id("-Infinity"));
        });
        single(
            r#"{"method":"notifications/cancelled","params":{"requestId":NaN}}"#,
            |e| assert_eq!(e.cancelled_id(), id("NaN")),
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
            let scalar = !text.trim_ascii_start().starts_with(['{', '[']);
            prop_assert_eq!(verdict(&text).is_ok(), expected && !scalar);
        }

        #[test]
        fn finds_what_a_document_holds(text in prop_oneof![jsonish(), objects()]) {
                let Ok(Message::Single(envelope)) = Message::read(text.as_bytes()) else { return Ok(()) };
            let Ok(document) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(()) };
            let id = envelope.id.map(|id| serde_json::from_slice::<serde_json::Value>(id.as_ref()).unwrap());
            prop_assert_eq!(id.as_ref(), document.get("id").filter(|id| !id.is_null()));
            prop_assert_eq!(envelope.method.is_some(), document.get("method").is_some_and(|m| !m.is_null()));
            prop_assert_eq!(envelope.control.is_some(), document.get("type").is_some_and(|t| t == "heartbeat"));
        }
    }

    /// PHP's JSON encoder does it by default, for one.
    #[test]
    fn names_are_known_although_their_slashes_are_escaped() {
        let line = concat!(
            r#"{"id":1,"method":"tools\/call","params":{"_meta":"#,
            r#"{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}}}"#
        );
        single(line, |envelope| assert!(envelope.names_protocol_version()));
    }
}
