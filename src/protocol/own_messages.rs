//! The lines that the proxy writes itself, none of which has a line end.
//!
//! Errors carry a `source`, so that nobody takes them for the server's own.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What `error.data.source` says in errors that are the proxy's own.
pub const SOURCE: &str = "mcp-tcp-proxy";

/// Why the proxy responds in the server's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorReason {
    /// A line is not JSON or not UTF-8.
    ParseError,
    /// A line or an id is over its limit, or there is no memory for the line.
    TooLarge,
    /// The server's response is over the limit, or there is no memory for it.
    ResponseTooLarge,
    /// Plain text came where TLS has to be.
    TlsRequired,
    /// The client showed no token, or a wrong one.
    Unauthorized,
    /// The client may not use this server.
    Forbidden,
    /// There is no server of this name.
    UnknownServer,
    /// The client's first line took too long.
    EntranceTimeout,
    /// The connection had to make room for a newer one.
    TooManyConnections,
    /// The proxy at the other end does not let this client in.
    AccessDenied,
    /// Too many requests wait for their responses.
    InFlightLimit,
    /// The server process went away before it responded.
    ProcessTerminated,
    /// The connection went away before the response came.
    ConnectionLost,
    /// For too long there was no connection, or there is none to be had.
    Unreachable,
    /// There are as many sessions as there may be.
    SessionLimit,
    /// The server died too often, or is not to be restarted.
    RestartLimit,
    /// The server could not be started.
    SpawnFailed,
    /// After a restart the server does not agree to what the client relies on.
    ServerChanged,
    /// After a restart the server did not respond to the handshake.
    ReplayTimeout,
    /// The connection could not be made again, or is not to be.
    ReconnectLimit,
    /// The proxy is being stopped.
    Shutdown,
    /// A message that can't be passed on to a server with other clients.
    InvalidRequest,
    /// A server with other clients is not asked this.
    MethodNotFound,
    /// A request without what each request has to say since 2026-07-28.
    NotModern,
    /// A request with it, in a session that began without.
    NotLegacy,
    /// `initialize`, in a session without one.
    UnsupportedVersion,
    /// Servers died of requests of this client.
    Quarantined,
}

impl ErrorReason {
    /// The JSON-RPC error code: JSON-RPC's own for bad input, for the rest numbers that read as in HTTP, outside the
    /// range that JSON-RPC 2.0 reserves (section 5.1).
    pub fn code(self) -> i32 {
        match self {
            Self::ParseError => -32700,
            Self::TooLarge | Self::InvalidRequest | Self::NotLegacy => -32600,
            Self::MethodNotFound => -32601,
            Self::NotModern => -32602,
            Self::UnsupportedVersion => -32022,
            Self::TlsRequired => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownServer => 404,
            Self::EntranceTimeout => 408,
            Self::InFlightLimit | Self::TooManyConnections => 429,
            Self::ResponseTooLarge
            | Self::ProcessTerminated
            | Self::ConnectionLost
            | Self::Unreachable => 502,
            Self::AccessDenied
            | Self::SessionLimit
            | Self::RestartLimit
            | Self::SpawnFailed
            | Self::ServerChanged
            | Self::ReplayTimeout
            | Self::ReconnectLimit
            | Self::Shutdown
            | Self::Quarantined => 503,
        }
    }

    /// The name in `error.data.reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::TooLarge => "too_large",
            Self::ResponseTooLarge => "response_too_large",
            Self::TlsRequired => "tls_required",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UnknownServer => "unknown_server",
            Self::EntranceTimeout => "entrance_timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::AccessDenied => "access_denied",
            Self::InFlightLimit => "in_flight_limit",
            Self::ProcessTerminated => "process_terminated",
            Self::ConnectionLost => "connection_lost",
            Self::Unreachable => "unreachable",
            Self::SessionLimit => "session_limit",
            Self::RestartLimit => "restart_limit",
            Self::SpawnFailed => "spawn_failed",
            Self::ServerChanged => "server_changed",
            Self::ReplayTimeout => "replay_timeout",
            Self::ReconnectLimit => "reconnect_limit",
            Self::Shutdown => "shutdown",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::NotModern | Self::NotLegacy | Self::UnsupportedVersion => "wrong_era",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Whether a server may have acted on a request that gets an error instead of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// One has read it.
    Yes,
    /// None has seen it.
    No,
    /// That can't be told.
    Unknown,
}

impl Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "true",
            Self::No => "false",
            Self::Unknown => "\"unknown\"",
        })
    }
}

/// What else an error says of a request that was lost, or of one that is not served.
#[derive(Debug, Default, Clone, Copy)]
pub struct Loss<'a> {
    /// What is served instead, as JSON.
    pub supported: Option<&'a str>,
    /// How the upstream ended.
    pub status: Option<&'a str>,
    /// Whether a server may have acted on the request.
    pub delivered: Option<Delivered>,
}

/// A JSON-RPC error. `id` is JSON text, null if there is none.
pub fn error(
    id: Option<&dyn Display>,
    reason: ErrorReason,
    message: &str,
    loss: Loss<'_>,
) -> String {
    let mut line = String::from(r#"{"jsonrpc":"2.0","id":"#);
    match id {
        Some(id) => push(&mut line, id),
        None => line.push_str("null"),
    }
    push(
        &mut line,
        &format_args!(r#","error":{{"code":{},"message":"#, reason.code()),
    );
    push(&mut line, &JsonString(message));
    push(
        &mut line,
        &format_args!(
            r#","data":{{"source":"{SOURCE}","reason":"{}""#,
            reason.name()
        ),
    );
    if let Some(supported) = loss.supported {
        push(&mut line, &format_args!(r#","supported":{supported}"#));
    }
    if let Some(status) = loss.status {
        push(
            &mut line,
            &format_args!(r#","status":{}"#, JsonString(status)),
        );
    }
    if let Some(delivered) = loss.delivered {
        push(&mut line, &format_args!(r#","delivered":{delivered}"#));
    }
    line.push_str("}}}");
    line
}

/// The question which versions of MCP a server speaks, asked in this one, which is given as JSON.
pub fn discover(id: &dyn Display, protocol_version: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{protocol_version},"io.modelcontextprotocol/clientInfo":{{"name":"mcp-tcp-proxy","version":"{version}"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

/// The heartbeat of the proxy. `unix_time` is the time since 1970.
pub fn heartbeat_response(unix_time: Duration, mcp_alive: bool) -> String {
    let timestamp = Seconds(unix_time);
    format!(r#"{{"type":"heartbeat_response","timestamp":{timestamp},"mcp_alive":{mcp_alive}}}"#)
}

/// The notice that the session goes on with a new server process. `unix_time` is the time since 1970.
pub fn server_restarted(unix_time: Duration) -> String {
    let timestamp = Seconds(unix_time);
    format!(
        r#"{{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","params":{{"timestamp":{timestamp},"reason":"process_terminated"}}}}"#
    )
}

/// Takes a request back. `id` is JSON text.
pub fn cancelled(id: &dyn Display, reason: &str) -> String {
    let reason = JsonString(reason);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#
    )
}

/// Asks something about a resource.
pub fn about_resource(id: &dyn Display, method: &str, uri: &str) -> String {
    let uri = JsonString(uri);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"uri":{uri}}}}}"#)
}

/// Responds to a request with an empty result. `id` is JSON text.
pub fn empty_result(id: &dyn Display) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

/// The key in `_meta` under which the id of a subscription is.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The result with which a `subscriptions/listen` ends well. `id` is JSON text.
pub fn subscription_closed(id: &dyn Display) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )
}

/// What a client is told that speaks HTTP, without its last line feed. It says nothing of what the client said.
pub const HTTP_RESPONSE: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n",
    "Content-Length: 141\r\n",
    "Connection: close\r\n",
    "\r\n",
    "This port speaks MCP over plain TCP, one JSON-RPC message per line, and not HTTP.\n",
    "MCP applications reach it through `mcp-tcp-proxy connect`.",
);

/// With this a client announces itself to a proxy, shows its token if it has one, and names the server that it wants.
/// `resume` is what it asks for, as JSON, if the session is to be kept when the connection is lost.
pub fn handshake(token: Option<&str>, server: Option<&str>, resume: Option<&str>) -> String {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let mut line = String::from(r#"{"type":"handshake""#);
    if let Some(token) = token {
        push(
            &mut line,
            &format_args!(r#","token":{}"#, JsonString(token)),
        );
    }
    if let Some(server) = server {
        push(
            &mut line,
            &format_args!(r#","server":{}"#, JsonString(server)),
        );
    }
    push(
        &mut line,
        &format_args!(
            r#","client_version":"{VERSION}","supports_heartbeat":true,"replay":"eager""#
        ),
    );
    if let Some(resume) = resume {
        push(&mut line, &format_args!(r#","resume":{resume}"#));
    }
    line.push('}');
    line
}

/// The heartbeat of a client. `unix_time` is the time since 1970.
pub fn heartbeat(unix_time: Duration) -> String {
    format!(
        r#"{{"type":"heartbeat","timestamp":{}}}"#,
        Seconds(unix_time)
    )
}

/// Writing to a `String` does not fail.
fn push(line: &mut String, part: &(impl Display + ?Sized)) {
    let _ = write!(line, "{part}");
}

/// Decimal seconds to the microsecond.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// A text as a JSON string, with its quotation marks.
pub(crate) struct JsonString<'a>(pub(crate) &'a str);

impl Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn errors_echo_the_id_as_written() {
        let line = error(
            Some(&"1.50"),
            ErrorReason::ProcessTerminated,
            "the server \"x\" died",
            Loss {
                status: Some("exit code 3"),
                delivered: Some(Delivered::Yes),
                ..Loss::default()
            },
        );
        assert!(line.contains(r#""id":1.50,"#));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["error"]["code"], 502);
        assert_eq!(value["error"]["message"], "the server \"x\" died");
        let data = json!({"source": "mcp-tcp-proxy", "reason": "process_terminated", "status": "exit code 3", "delivered": true});
        assert_eq!(value["error"]["data"], data);
    }

    #[test]
    fn errors_say_whether_a_server_may_have_acted_on_the_request() {
        for (delivered, text) in [
            (Delivered::Yes, json!(true)),
            (Delivered::No, json!(false)),
            (Delivered::Unknown, json!("unknown")),
        ] {
            let loss = Loss {
                status: None,
                delivered: Some(delivered),
                ..Loss::default()
            };
            let line = error(None, ErrorReason::ConnectionLost, "lost", loss);
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["error"]["data"]["delivered"], text);
        }
    }

    #[test]
    fn errors_without_an_id_have_null() {
        let value: Value =
            serde_json::from_str(&error(None, ErrorReason::ParseError, "no", Loss::default()))
                .unwrap();
        assert_eq!(value["id"], Value::Null);
        assert_eq!(
            value["error"]["data"],
            json!({"source": "mcp-tcp-proxy", "reason": "parse_error"})
        );
    }

    #[test]
    fn the_response_to_http_has_the_length_that_it_says() {
        let (head, body) = HTTP_RESPONSE.split_once("\r\n\r\n").unwrap();
        let length = format!("Content-Length: {}\r\n", body.len() + "\n".len());
        assert!(head.contains(&length), "{length}");
    }

    #[test]
    fn exact_shapes() {
        let time = Duration::new(1_700_000_000, 5_000_000);
        assert_eq!(
            heartbeat(time),
            r#"{"type":"heartbeat","timestamp":1700000000.005000}"#
        );
        let version = env!("CARGO_PKG_VERSION");
        let mut expected = json!({"type": "handshake", "client_version": version, "supports_heartbeat": true, "replay": "eager"});
        let read = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        assert_eq!(read(&handshake(None, None, None)), expected);
        expected["token"] = json!("a \"token\"");
        assert_eq!(read(&handshake(Some("a \"token\""), None, None)), expected);
        expected["resume"] = json!({"version": 1});
        let resume = Some(r#"{"version":1}"#);
        let line = handshake(Some("a \"token\""), None, resume);
        assert_eq!(read(&line), expected);
        assert_eq!(
            heartbeat_response(time, true),
            r#"{"type":"heartbeat_response","timestamp":1700000000.005000,"mcp_alive":true}"#
        );
        assert_eq!(
            server_restarted(time),
            r#"{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","params":{"timestamp":1700000000.005000,"reason":"process_terminated"}}"#
        );
    }
}
