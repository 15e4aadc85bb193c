//! What passes through: every row of the two tables of that name, on the running proxy, byte for byte.
//!
//! None of this is for the reference, which parses messages and writes them anew, and drops what it can't parse.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod control;
mod flow;
mod ids;
mod in_flight;
mod limits;
mod logged;
mod no_memory;
mod other_protocols;
mod server_output;
mod stderr;
mod verbatim;

use common::Client;
use serde_json::{Value, json};

/// Asserts that a line is an error of the proxy's own, with this id, code and reason, and returns its message.
#[track_caller]
fn assert_own_error(error: &Value, id: &Value, code: i32, reason: &str) -> String {
    let message = error["error"]["message"].clone();
    let expected = json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": {
            "code": code,
            "message": message,
            "data": {"source": "mcp-tcp-proxy", "reason": reason},
        },
    });
    assert_eq!(error, &expected);
    message.as_str().unwrap().to_owned()
}

/// Asserts that the client's next line is an error of the proxy's own.
#[track_caller]
fn expect_own_error(client: &mut Client, id: &Value, code: i32, reason: &str) -> String {
    assert_own_error(&client.recv_json(), id, code, reason)
}

/// Asserts that nothing came between what was sent before and now: a marker is the next line that comes back.
///
/// For servers that send back what they get.
#[track_caller]
fn expect_nothing_before_marker(client: &mut Client) {
    const MARKER: &str = r#"{"jsonrpc":"2.0","method":"marker"}"#;
    client.send_line(MARKER);
    assert_eq!(client.recv_line(), MARKER);
}

/// A notification that is exactly so many bytes long.
fn notification_of(bytes: usize) -> String {
    let (head, tail) = (r#"{"jsonrpc":"2.0","method":"m","params":[""#, r#""]}"#);
    let text = "x".repeat(bytes - head.len() - tail.len());
    format!("{head}{text}{tail}")
}
