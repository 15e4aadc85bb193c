//! The messages that the benchmarks send.

use std::io;

/// The first id; all ids have the same number of digits.
pub(crate) const FIRST_ID: usize = 1_000_000;

/// A `tools/call` of exactly this many bytes, line end included.
pub(crate) fn call(id: usize, bytes: usize) -> Vec<u8> {
    let head = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{"text":""#
    );
    let tail = "\"}}}\n";
    let text = "lorem ipsum ".repeat(bytes / 12 + 1);
    let text = &text[..bytes - head.len() - tail.len()];
    format!("{head}{text}{tail}").into_bytes()
}

/// The first message of a session.
pub(crate) const INITIALIZE: &[u8] = concat!(
    r#"{"jsonrpc":"2.0","id":1000000,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
    r#""capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#,
    "\n"
)
.as_bytes();

/// What the client sends after the response to it.
pub(crate) const INITIALIZED: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";

/// Checks that this is a result with the first id, whatever its spacing.
pub(crate) fn check_answer(line: &[u8]) -> io::Result<()> {
    let answer: serde_json::Value = serde_json::from_slice(line)?;
    if answer["id"] == FIRST_ID && answer["result"].is_object() {
        return Ok(());
    }
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
    Err(io::Error::other(format!("unexpected response: {line}")))
}
