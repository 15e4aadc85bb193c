//! Lines for which no buffer memory is left: they are refused either way, and the log says so.

use serde_json::json;

use crate::common::{Proxy, servers, skip_on_reference};
use crate::expect_own_error;

/// More than a session has for itself.
const LONG_BYTES: usize = 200_000;

#[test]
fn a_line_without_buffer_memory_is_refused_with_a_warning() {
    skip_on_reference!("has no limit of what it keeps");
    let proxy = Proxy::start(&["--max-buffer-bytes", "1"], &servers::mirror());
    let mut client = proxy.connect();
    let padding = "x".repeat(LONG_BYTES);
    client.send_json(&json!({"jsonrpc": "2.0", "id": 7, "method": "m", "params": padding}));
    let message = expect_own_error(&mut client, &json!(7), -32600, "too_large");
    let expected = "no buffer memory left for the client's message of 200,";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.ends_with("the limit is 1 bytes for all sessions"));
    let line = proxy.wait_for_log("refused a message of the client: no buffer memory left");
    assert!(line.contains("WARN") && line.contains(&message), "{line}");
    // The next one is served.
    client.send_json(&json!({"jsonrpc": "2.0", "method": "m"}));
    assert_eq!(client.recv_json()["method"], "m");
}

#[test]
fn a_response_without_buffer_memory_is_refused_with_a_warning() {
    skip_on_reference!("has no limit of what it keeps");
    let proxy = Proxy::start(
        &["--max-buffer-bytes", "1"],
        &[
            "perl",
            "-e",
            r#"$| = 1; <STDIN>; print qq({"jsonrpc":"2.0","id":7,"result":"), "x" x 200000, qq("}\n); <STDIN>"#,
        ]
        .map(str::to_owned),
    );
    let mut client = proxy.connect();
    client.send_json(&json!({"jsonrpc": "2.0", "id": 7, "method": "m"}));
    let error = client.recv_json();
    assert_eq!(error["error"]["data"]["reason"], "response_too_large");
    assert_eq!(error["id"], 7);
    let message = error["error"]["message"].as_str().unwrap().to_owned();
    let expected = "no buffer memory left for the server's response of 200,";
    assert!(message.starts_with(expected), "{message}");
    let line = proxy.wait_for_log("a line was dropped: no buffer memory left");
    assert!(line.contains("WARN") && line.contains(&message), "{line}");
}
