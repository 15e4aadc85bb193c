//! `--tidy`: applications that end the session at what they did not ask for are spared it.

use serde_json::json;

use crate::common::connect::{IN_HASTE, request};
use crate::common::{Connect, FakeServer};

#[test]
fn what_was_not_asked_for_is_dropped_and_logged() {
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--tidy"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    let params = json!({"_meta": {"progressToken": "t"}});
    connect.send_line(&request(1, "tools/call", &params));
    peer.recv_line();
    let progress = |token: &str| {
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token}})
            .to_string()
    };
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    peer.send_line(&progress("other"));
    peer.send_line(&progress("t"));
    peer.send_line(response);
    peer.send_line(response);
    peer.send_line(r#"{"method":"last"}"#);
    let expected = [
        progress("t"),
        response.to_owned(),
        r#"{"method":"last"}"#.to_owned(),
    ];
    for line in expected {
        assert_eq!(connect.recv_line(), line);
    }
    let log = connect.wait_for_logs("dropped ", 2);
    assert!(log[0].contains("progress of no request") && log[1].contains("2 lines so far"));
}
