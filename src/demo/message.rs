//! What a message to the demo server is: a request or a notification, legacy or modern; and why one is refused. Must not
//! know what a method does.
//!
//! JSON is read one level at a time, and the values stay the text they came as: an id or a text goes back exactly as
//! the client wrote it. A `serde_json::Value` would make 1.5 of 1.50 and a float of a long integer, and would refuse
//! lone surrogates and deep nesting.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The one modern version that is spoken here. Legacy versions are negotiated by `initialize` alone: a client may use
/// any version that it is told for its next modern request.
pub(super) const MODERN_VERSION: &str = "2026-07-28";

pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

const PARSE_ERROR: i32 = -32700;
pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
/// 2026-07-28, Overview, "Error Codes".
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// Why a request is refused: the `error` of its response.
pub(super) type Fault = Value;

pub(super) fn fault(code: i32, message: impl Into<Value>) -> Fault {
    json!({"code": code, "message": message.into()})
}

/// How a request is served: 2026-07-28, Versioning and Compatibility, "Terminology".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// 2025-11-25 and older: `initialize` opens a session.
    Legacy,
    /// 2026-07-28 and newer: each request carries its own metadata.
    Modern,
}

/// A request, or a notification, which has no id.
pub(super) struct Request<'a> {
    /// Any JSON.
    pub(super) id: Option<&'a str>,
    pub(super) method: Cow<'a, str>,
    pub(super) params: Object<'a>,
}

/// A JSON object; of members that share a name, the last one counts.
#[derive(Default)]
pub(super) struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    pub(super) fn read(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }

    /// Like `get`, but `null` counts as absent: some clients write it for what they leave out.
    pub(super) fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.get(name).filter(|value| value.get() != "null")
    }

    pub(super) fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        let json = self.get(name)?.get();
        // Only a string without escapes can be borrowed.
        let plain = serde_json::from_str(json).map(Cow::Borrowed);
        let decoded = |_| serde_json::from_str(json).map(Cow::Owned);
        plain.or_else(decoded).ok()
    }

    /// An absent object is an empty one. `None`: something else stands there.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        self.given(name)
            .map_or(Some(Self::default()), |value| Self::read(value.get()))
    }
}

/// Reads one message. `None`: a response, though this server never asks anything. An error comes with the id to send it
/// to, which is `null` if none can be read.
pub(super) fn read(json: &str) -> Result<Option<Request<'_>>, (&str, Fault)> {
    let Some(message) = Object::read(json) else {
        let not_json = (PARSE_ERROR, "Parse error: the line is not JSON");
        let why = "Invalid request: the message is not an object";
        let no_object = (INVALID_REQUEST, why);
        let (code, why) = if is_json(json) { no_object } else { not_json };
        return Err(("null", fault(code, why)));
    };
    let id = message.get("id").map(RawValue::get);
    let refuse = |code, why| Err((id.unwrap_or("null"), fault(code, why)));
    let Some(method) = message.string("method") else {
        let outcome = message.get("result").or(message.get("error"));
        if outcome.is_some() && message.get("method").is_none() {
            return Ok(None);
        }
        let why = "Invalid request: method is missing or not a string";
        return refuse(INVALID_REQUEST, why);
    };
    let params = message.object("params");
    // Nobody can be told about a mistake in a notification.
    if id.is_some() && message.string("jsonrpc").as_deref() != Some("2.0") {
        return refuse(INVALID_REQUEST, "Invalid request: jsonrpc is not \"2.0\"");
    }
    if id.is_some() && params.is_none() {
        return refuse(INVALID_PARAMS, "params is not an object");
    }
    let params = params.unwrap_or_default();
    Ok(Some(Request { id, method, params }))
}

/// Which era a request belongs to, or why it can't be served as the modern request it wants to be. `initialize` opens a
/// legacy session whatever metadata it carries: 2026-07-28, Versioning and Compatibility, "Backward Compatibility with
/// Initialization-Based Versions".
pub(super) fn era(request: &Request) -> Result<Era, Fault> {
    let meta = request.params.object("_meta").unwrap_or_default();
    let capabilities = meta.get(CAPABILITIES_KEY);
    let is_plain = meta.get(VERSION_KEY).is_none() && capabilities.is_none();
    if is_plain || request.method == "initialize" {
        return Ok(Era::Legacy);
    }
    let requested = meta.string(VERSION_KEY);
    let requested = requested.ok_or_else(|| missing_meta(VERSION_KEY))?;
    // Before the other field: another version may well have others.
    if requested != MODERN_VERSION {
        return Err(json!({
            "code": UNSUPPORTED_PROTOCOL_VERSION,
            "message": "Unsupported protocol version",
            "data": {"supported": [MODERN_VERSION], "requested": requested},
        }));
    }
    if !capabilities.is_some_and(|json| json.get().starts_with('{')) {
        return Err(missing_meta(CAPABILITIES_KEY));
    }
    Ok(Era::Modern)
}

/// 2026-07-28, Overview, "Per-request protocol fields": a request without them is malformed.
pub(super) fn missing_meta(key: &str) -> Fault {
    let why = format!("params._meta[\"{key}\"] is missing or of the wrong type");
    fault(INVALID_PARAMS, why)
}

/// Whether the bytes are UTF-8 and one JSON value.
pub(super) fn is_json(bytes: impl AsRef<[u8]>) -> bool {
    let text = std::str::from_utf8(bytes.as_ref()).unwrap_or_default();
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether two texts are the same value: clients may write 1.5 in one place and 1.50 in another.
pub(super) fn same_value(one: &str, other: &str) -> bool {
    let value = |json| serde_json::from_str::<Value>(json).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(json: &str) -> String {
        match read(json) {
            Ok(Some(Request { id, method, .. })) => {
                id.map_or(method.to_string(), |id| format!("{method} {id}"))
            }
            Ok(None) => "response".to_owned(),
            Err((id, _)) => format!("invalid {id}"),
        }
    }

    #[test]
    fn messages_are_told_apart() {
        for (json, expected) in [
            (r#"{"jsonrpc":"2.0","id":1.50,"method":"m"}"#, "m 1.50"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, "m null"),
            (
                r#"{"method":"\u006d","params":null,"jsonrpc":"2.0","id":1}"#,
                "m 1",
            ),
            (r#"{"jsonrpc":"2.0","method":"m"}"#, "m"),
            (r#"{"method":"m","params":5}"#, "m"),
            (r#"{"id":1,"result":null}"#, "response"),
            (r#"{"id":1,"error":{}}"#, "response"),
            (r#"{"id":1,"method":"m"}"#, "invalid 1"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#,
                "invalid 1",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, "invalid 1"),
            (r#"{"id":1}"#, "invalid 1"),
            ("{}", "invalid null"),
            ("[]", "invalid null"),
            (r#"{"id":1"#, "invalid null"),
        ] {
            assert_eq!(kind(json), expected, "{json}");
        }
    }

    #[test]
    fn members_are_found_wherever_they_stand() {
        let read = |json| {
            let object = Object::read(json)?;
            Some(["a", "b"].map(|name| object.get(name).map(RawValue::get)))
        };
        let json = r#"{"b":1,"x":{"a":9},"\u0061": [1.50 ] ,"b":null}"#;
        assert_eq!(read(json), Some([Some("[1.50 ]"), Some("null")]));
        assert!(Object::read(json).unwrap().given("b").is_none());
        assert_eq!(read("{}"), Some([None, None]));
        for bad in ["[1,2]", "5", "", "{\"a\":1", "{\"a\":1} 2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_are_compared_as_such() {
        assert!(same_value("1.50", "1.5"));
        assert!(same_value(r#""\u00e9""#, "\"é\""));
        assert!(!same_value("1", "\"1\""));
        assert!(!same_value("9007199254740993", "9007199254740992"));
    }

    #[test]
    fn strings_are_read() {
        let read = |json| Object::read(json).unwrap().string("a");
        assert_eq!(read("{\"a\":\"é\"}").as_deref(), Some("é"));
        assert_eq!(read(r#"{"a":"\u00e9\n"}"#).as_deref(), Some("é\n"));
        for none in [r#"{"a":"\ud800"}"#, r#"{"a":5}"#, r#"{"a":null}"#, "{}"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn json_must_be_utf8() {
        assert!(is_json("{\"a\":\"é\"}".as_bytes()));
        assert!(!is_json(b"{\"a\":\"\xff\"}"));
    }
}
