//! The envelope against plain JSON: the same lines are accepted, and the same is read from them. The scanner for
//! over-long lines must find what the envelope does.

use mcp_tcp_proxy::protocol::envelope::{Control, Envelope, Invalid, MAX_BATCH, Message, Method};
use mcp_tcp_proxy::protocol::id::{IdText, MAX_ID_BYTES};
use mcp_tcp_proxy::protocol::own_messages::SOURCE;
use mcp_tcp_proxy::protocol::skip::{SkipScanner, Skipped};
use serde::de::IgnoredAny;

use crate::json::{self, Dialect};

/// Up to this length, a line is skipped in two pieces at every point; a longer one at points far from each other.
const ALL_CUTS_BYTES: usize = 300;

/// Lines that are longer still are read in one piece.
const MAX_CUT_BYTES: usize = 100_000;

/// The input is a line.
pub(crate) fn envelope(line: &[u8]) {
    let read = Message::read(line);
    let Ok(text) = std::str::from_utf8(line) else {
        assert_eq!(read.err(), Some(Invalid::NotUtf8));
        return;
    };
    let is_json = json::is_valid(text, Dialect::Json);
    let accepted = serde_json::from_str::<IgnoredAny>(text).is_ok();
    assert_eq!(is_json, accepted, "the model and serde_json");
    if !json::is_valid(text, Dialect::Python) {
        assert_eq!(read.err(), Some(Invalid::NotJson));
        return;
    }
    match read {
        Err(invalid) => {
            assert_eq!(invalid, Invalid::Scalar);
            let text = text.trim_start_matches([' ', '\t', '\r', '\n']);
            assert!(!text.starts_with(['{', '[']), "{text:?}");
        }
        Ok(Message::Single(envelope)) => {
            let expected = Expected::of(text).expect("an object");
            expected.check(text, &envelope);
            if is_json {
                check_source(text, &envelope);
            }
            if !line.contains(&b'\n') {
                expected.check_skipped(line, is_json);
            }
        }
        Ok(Message::Batch(batch)) => {
            let items = json::items(text, Dialect::Python).expect("an array");
            assert_eq!(batch.len, items.len());
            let all: Vec<Expected<'_>> = items.into_iter().filter_map(Expected::of).collect();
            let matter: Vec<&Expected<'_>> = all.iter().filter(|one| one.matters()).collect();
            assert_eq!(batch.is_cut, matter.len() > MAX_BATCH);
            assert_eq!(batch.envelopes.len(), matter.len().min(MAX_BATCH));
            for (expected, envelope) in matter.into_iter().zip(&batch.envelopes) {
                expected.check(text, envelope);
            }
        }
    }
}

/// What an object says, the last of equal keys counting.
struct Expected<'a> {
    control: Option<Control>,
    method: Option<Method>,
    id: Option<&'a str>,
    cancelled: Option<&'a str>,
    /// `requestId` and `_meta`, if `params` is an object.
    in_params: Option<[Option<&'a str>; 2]>,
    has_result: bool,
    has_outcome: bool,
}

impl<'a> Expected<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let fields = json::fields(text, Dialect::Python)?;
        let last = |name: &str| last_of(&fields, name);
        let present = |name: &str| last(name).filter(|value| *value != "null");
        let method = present("method").map(method);
        Some(Self {
            control: last("type").and_then(control),
            method,
            id: present("id"),
            cancelled: present("params")
                .filter(|_| method == Some(Method::Cancelled))
                .and_then(cancelled),
            in_params: present("params").and_then(|params| {
                let fields = json::fields(params, Dialect::Python)?;
                Some(["requestId", "_meta"].map(|name| last_of(&fields, name)))
            }),
            has_result: last("result").is_some(),
            has_outcome: last("result").or(last("error")).is_some(),
        })
    }

    /// Whether such a message of a batch is examined.
    fn matters(&self) -> bool {
        self.id.is_some() || !matches!(self.method, None | Some(Method::Other))
    }

    fn check(&self, text: &str, envelope: &Envelope<'_>) {
        assert_eq!(envelope.control, self.control);
        assert_eq!(envelope.method, self.method);
        let id = |text: Option<&'a str>| text.map(|text| IdText::new(text.as_bytes()));
        assert_eq!(envelope.id, id(self.id));
        let range = envelope.id_range();
        assert_eq!(range.and_then(|range| text.get(range)), self.id);
        let ranges = envelope.ranges_in_params(["requestId", "_meta"]);
        let in_params = ranges.map(|all| all.map(|range| range.and_then(|range| text.get(range))));
        assert_eq!(in_params, self.in_params);
        assert_eq!(envelope.request_id(), id(self.method.and(self.id)));
        let is_response = self.method.is_none();
        assert_eq!(envelope.response_id(), id(self.id.filter(|_| is_response)));
        assert_eq!(envelope.cancelled_id(), id(self.cancelled));
        assert_eq!(envelope.result().is_some(), self.has_result);
    }

    /// The scanner is only used for lines that are refused, and never writes an id that is not JSON into a response.
    fn check_skipped(&self, line: &[u8], is_json: bool) {
        let whole = skip(&[line]);
        let id = self.id.filter(|id| id.len() <= MAX_ID_BYTES);
        if is_json {
            assert_eq!(whole.id.as_ref().map(ToString::to_string).as_deref(), id);
        }
        assert_eq!(whole.has_method, self.method.is_some());
        assert_eq!(whole.has_outcome, self.has_outcome);
        let cuts = 0..line.len().min(MAX_CUT_BYTES);
        for cut in cuts.step_by(1 + line.len() / ALL_CUTS_BYTES) {
            let (a, b) = line.split_at(cut);
            assert_eq!(skip(&[a, b]), whole, "cut at {cut}");
        }
    }
}

fn skip(pieces: &[&[u8]]) -> Skipped {
    let mut scanner = SkipScanner::default();
    for piece in pieces {
        scanner.feed(piece);
    }
    scanner.finish()
}

/// Whose error it is, as a document says it. Documents are limited in depth and in the size of numbers.
fn check_source(text: &str, envelope: &Envelope<'_>) {
    if let Ok(document) = serde_json::from_str::<serde_json::Value>(text) {
        let is_own = document["error"]["data"]["source"] == SOURCE;
        assert_eq!(envelope.is_proxy_error(), is_own);
    }
}

fn last_of<'a>(fields: &[(Vec<u16>, &'a str)], name: &str) -> Option<&'a str> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let found = fields.iter().rfind(|(key, _)| *key == name);
    found.map(|(_, value)| *value)
}

fn string(text: &str) -> Option<String> {
    String::from_utf16(&json::units(text)?).ok()
}

fn control(text: &str) -> Option<Control> {
    match string(text)?.as_str() {
        "heartbeat" => Some(Control::Heartbeat),
        "handshake" => Some(Control::Handshake),
        "heartbeat_response" => Some(Control::HeartbeatResponse),
        _ => None,
    }
}

fn method(text: &str) -> Method {
    match string(text).as_deref() {
        Some("initialize") => Method::Initialize,
        Some("notifications/initialized") => Method::Initialized,
        Some("server/discover") => Method::Discover,
        Some("notifications/cancelled") => Method::Cancelled,
        Some("$/mcp/serverRestarted") => Method::ServerRestarted,
        _ => Method::Other,
    }
}

fn cancelled(params: &str) -> Option<&str> {
    let fields = json::fields(params, Dialect::Python)?;
    last_of(&fields, "requestId").filter(|id| *id != "null" && id.len() <= MAX_ID_BYTES)
}
