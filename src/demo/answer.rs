//! The answers that the demo server writes, without the line end, which depends on whether they stand
//! alone or in a batch. Must not know what was asked.

use super::json::quoted;
use super::message::Era;

/// Which server this is, as MCP's `Implementation`.
pub(super) const SERVER_INFO: &str = concat!(
    r#"{"name":"mcp-tcp-proxy-demo","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// 2026-07-28, Overview, "Error Codes".
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// Why a request is not served, as a JSON-RPC error.
pub(super) struct Fault {
    code: i32,
    message: String,
    /// JSON.
    data: Option<String>,
}

impl Fault {
    pub(super) fn parse_error() -> Self {
        Self::new(PARSE_ERROR, "Parse error: the line is not JSON")
    }

    pub(super) fn invalid_request(message: &str) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    pub(super) fn method_not_found(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, &format!("Method not found: {method}"))
    }

    pub(super) fn invalid_params(message: &str) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// `supported` and `requested` are JSON: an array of strings and a string.
    pub(super) fn unsupported_version(supported: &str, requested: &str) -> Self {
        let data = format!(r#"{{"supported":{supported},"requested":{requested}}}"#);
        Self {
            data: Some(data),
            ..Self::new(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version")
        }
    }

    /// The specification has no code of its own for this, and forbids -32002, which many servers use.
    /// The Java SDK answers with this one, the Python SDK with -32602.
    pub(super) fn not_initialized(method: &str) -> Self {
        let message = format!("Server not initialized: send initialize before {method}");
        Self::new(INVALID_REQUEST, &message)
    }

    fn new(code: i32, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
            data: None,
        }
    }
}

/// Appends a result to `out`. `id` is JSON; `members` are pieces which together are the members of the
/// result object (in pieces so that a long text is copied only once).
pub(super) fn result(out: &mut Vec<u8>, id: &str, era: Era, members: &[&str]) {
    append(out, &[r#"{"jsonrpc":"2.0","id":"#, id, r#","result":{"#]);
    if era == Era::Modern {
        // Both on every result: 2026-07-28, Overview, "ResultType" and "Per-response protocol fields".
        let server_info =
            r#""resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":"#;
        append(out, &[server_info, SERVER_INFO, "}"]);
        if !members.is_empty() {
            out.push(b',');
        }
    }
    append(out, members);
    append(out, &["}}"]);
}

/// Appends the result of a tool call. `text` is a JSON string.
pub(super) fn text(out: &mut Vec<u8>, id: &str, era: Era, text: &str) {
    let members = [r#""content":[{"type":"text","text":"#, text, "}]"];
    result(out, id, era, &members);
}

/// Appends the result of a tool call that went wrong. `text` is a JSON string.
pub(super) fn mistake(out: &mut Vec<u8>, id: &str, era: Era, text: &str) {
    let members = [
        r#""content":[{"type":"text","text":"#,
        text,
        r#"}],"isError":true"#,
    ];
    result(out, id, era, &members);
}

/// Appends an error to `out`. `id` is JSON, `null` if the request's could not be read.
pub(super) fn error(out: &mut Vec<u8>, id: &str, fault: &Fault) {
    let code = fault.code.to_string();
    let message = quoted(&fault.message);
    append(out, &[r#"{"jsonrpc":"2.0","id":"#, id]);
    append(out, &[r#","error":{"code":"#, &code]);
    append(out, &[r#","message":"#, &message]);
    if let Some(data) = &fault.data {
        append(out, &[r#","data":"#, data]);
    }
    append(out, &["}}"]);
}

fn append(out: &mut Vec<u8>, pieces: &[&str]) {
    out.reserve(pieces.iter().map(|piece| piece.len()).sum());
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}
