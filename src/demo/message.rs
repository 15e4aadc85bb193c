//! What a message to the demo server is: request, notification or response, legacy or modern. Must not
//! know any method.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::answer::Fault;
use super::json::{is_object, members, string};

/// The one modern version that is spoken here.
const MODERN_VERSION: &str = "2026-07-28";

/// Modern versions as a JSON array. Legacy ones are not in it, as in the SDKs: a client may use any of
/// these for its next modern request, and legacy versions are negotiated by `initialize` alone.
pub(super) const MODERN_VERSIONS: &str = r#"["2026-07-28"]"#;

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// How a request is served: 2026-07-28, Versioning and Compatibility, "Terminology".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// 2025-11-25 and older: `initialize` opens a session.
    Legacy,
    /// 2026-07-28 and newer: each request carries its own metadata.
    Modern,
}

pub(super) enum Message<'a> {
    Request(Request<'a>),
    Notification {
        method: Cow<'a, str>,
        params: Params<'a>,
    },
    /// Never asked for: this server sends no requests.
    Response,
    /// `id` is JSON.
    Invalid {
        id: &'a str,
        fault: Fault,
    },
}

pub(super) struct Request<'a> {
    /// Any JSON, to be echoed as it came.
    pub(super) id: &'a RawValue,
    pub(super) method: Cow<'a, str>,
    pub(super) params: Params<'a>,
}

/// All that any method here reads of its `params`. `null` counts as absent.
#[derive(Default)]
pub(super) struct Params<'a> {
    meta: Option<&'a RawValue>,
    pub(super) protocol_version: Option<&'a RawValue>,
    pub(super) request_id: Option<&'a RawValue>,
    pub(super) cursor: Option<&'a RawValue>,
    pub(super) name: Option<&'a RawValue>,
    pub(super) arguments: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads one message. What is not JSON is invalid, too, with the `id` null.
    pub(super) fn read(json: &'a str) -> Self {
        let names = ["jsonrpc", "id", "method", "params", "result", "error"];
        let Some([jsonrpc, id, method, params, result, error]) = members(json, names) else {
            return Self::invalid(None, "the message is not an object");
        };
        let Some(method) = method else {
            return match result.or(error) {
                Some(_) => Self::Response,
                None => Self::invalid(id, "method is missing"),
            };
        };
        let Some(method) = string(method) else {
            return Self::invalid(id, "method is not a string");
        };
        let Some(id) = id else {
            // Notifications are never answered, so whatever else is wrong with one is let pass.
            let params = Params::read(params).unwrap_or_default();
            return Self::Notification { method, params };
        };
        if jsonrpc.and_then(string).as_deref() != Some("2.0") {
            return Self::invalid(Some(id), "jsonrpc is not \"2.0\"");
        }
        match Params::read(params) {
            Ok(params) => Self::Request(Request { id, method, params }),
            Err(fault) => Self::Invalid {
                id: id.get(),
                fault,
            },
        }
    }

    fn invalid(id: Option<&'a RawValue>, why: &str) -> Self {
        Self::Invalid {
            id: id.map_or("null", RawValue::get),
            fault: Fault::invalid_request(&format!("Invalid request: {why}")),
        }
    }
}

impl<'a> Params<'a> {
    /// `null` counts as absent here, too: some clients write it for a request without parameters.
    pub(super) fn read(params: Option<&'a RawValue>) -> Result<Self, Fault> {
        let Some(params) = params.and_then(given) else {
            return Ok(Self::default());
        };
        let names = [
            "_meta",
            "protocolVersion",
            "requestId",
            "cursor",
            "name",
            "arguments",
        ];
        let Some(found) = members(params.get(), names) else {
            return Err(Fault::invalid_params("params is not an object"));
        };
        let [meta, protocol_version, request_id, cursor, name, arguments] =
            found.map(|member| member.and_then(given));
        Ok(Self {
            meta,
            protocol_version,
            request_id,
            cursor,
            name,
            arguments,
        })
    }

    /// Which era the request belongs to, or why it can't be served as the modern request it wants to be.
    pub(super) fn era(&self) -> Result<Era, Fault> {
        let meta = self.meta.map_or("{}", RawValue::get);
        let (version, capabilities) = match members(meta, [VERSION_KEY, CAPABILITIES_KEY]) {
            None | Some([None, None]) => return Ok(Era::Legacy),
            Some([version, capabilities]) => (version, capabilities),
        };
        let Some((version, requested)) = version.and_then(|json| Some((json, string(json)?)))
        else {
            return Err(missing_meta(VERSION_KEY));
        };
        // Before the other field: another version may well have others.
        if requested != MODERN_VERSION {
            return Err(Fault::unsupported_version(MODERN_VERSIONS, version.get()));
        }
        if !capabilities.is_some_and(is_object) {
            return Err(missing_meta(CAPABILITIES_KEY));
        }
        Ok(Era::Modern)
    }
}

/// What a request of a method that only modern MCP has is refused with if it carries no metadata.
pub(super) fn not_modern() -> Fault {
    missing_meta(VERSION_KEY)
}

/// 2026-07-28, Overview, "Per-request protocol fields": a request without them is malformed.
fn missing_meta(key: &str) -> Fault {
    Fault::invalid_params(&format!(
        "params._meta[\"{key}\"] is missing or of the wrong type"
    ))
}

/// Takes `null` for absent.
pub(super) fn given(json: &RawValue) -> Option<&RawValue> {
    (json.get() != "null").then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(json: &str) -> String {
        match Message::read(json) {
            Message::Request(request) => format!("{} {}", request.method, request.id),
            Message::Notification { method, .. } => method.into_owned(),
            Message::Response => "response".to_owned(),
            Message::Invalid { id, .. } => format!("invalid {id}"),
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
}
