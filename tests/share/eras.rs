//! Who is served by a shared process, and who by one of its own.

use serde_json::json;

use crate::common::client::{assert_own_error, modern_meta};
use crate::common::{Proxy, Scratch, servers, skip_on_reference};
use crate::{call, echo, wait_for_servers};

#[test]
fn legacy_clients_get_a_server_of_their_own() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut modern = proxy.connect();
    echo(&mut modern, "shared");
    let mut legacy = proxy.connect();
    legacy.initialize();
    let mut other = proxy.connect();
    other.initialize();
    wait_for_servers(&proxy, 3);
    echo(&mut modern, "still");
}

#[test]
fn a_client_of_both_eras_may_ask_first_and_be_legacy_all_the_same() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo", "--no-auto-restart"], &[]);
    let mut client = proxy.connect();
    let discovered = client.request("server/discover", &json!({"_meta": modern_meta()}));
    assert!(
        discovered["result"]["supportedVersions"].is_array(),
        "{discovered}"
    );
    client.initialize();
    let answer = client.request(
        "tools/call",
        &json!({"name": "echo", "arguments": {"text": "own"}}),
    );
    assert_eq!(answer["result"]["content"][0]["text"], "own");
    wait_for_servers(&proxy, 2);
}

#[test]
fn nothing_of_the_other_era_reaches_a_shared_server() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut client = proxy.connect();
    echo(&mut client, "modern");
    let answer = client.request("initialize", &json!({}));
    assert_own_error(&answer, -32022, "wrong_era");
    assert_eq!(answer["error"]["data"]["supported"], json!(["2026-07-28"]));
    let answer = client.request("tools/list", &json!({}));
    assert_own_error(&answer, -32602, "wrong_era");
    client.send_line(r#"[{"jsonrpc":"2.0","id":"b","method":"tools/list"}]"#);
    let (id, _) = client.recv_error(-32600, "invalid_request");
    assert_eq!(id, "b");
    client.send_line(r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"x":NaN}}"#);
    let (id, _) = client.recv_error(-32700, "parse_error");
    assert_eq!(id, 7);
    echo(&mut client, "on it goes");
}

#[test]
fn a_legacy_server_is_asked_once_by_the_proxy_and_never_by_a_client() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--share", "2"], &servers::legacy(&scratch));
    let mut clients = [proxy.connect(), proxy.connect()];
    for client in &mut clients {
        let answer = client.request("server/discover", &json!({"_meta": modern_meta()}));
        assert_own_error(&answer, -32601, "method_not_found");
        client.initialize();
    }
    assert_ne!(clients[0].pid_of_server(), clients[1].pid_of_server());
    let asked = scratch.servers().len();
    assert_eq!(asked, 3, "the one that was asked, and one for each");
    let mut third = proxy.connect();
    let answer = third.request("tools/call", &call("echo", &json!({"text": "modern"})));
    assert!(answer["error"].is_object(), "{answer}");
}
