//! The limit of requests that wait for their answers.
//!
//! The tests end by a reset: after an orderly end, the proxy would wait for answers for half a minute.

use std::fmt::Write as _;

use serde_json::json;

use crate::common::{Client, Proxy, servers};
use crate::expect_own_error;

const MAX_IN_FLIGHT: usize = 1_024;

/// Answers nothing by itself. Obeys notifications that hold the word `answer`: writes an answer to the id 0. At one
/// that holds the word `count` it tells how many lines it has seen.
fn silent_server() -> Vec<String> {
    servers::sh(
        r#"seen=0
while IFS= read -r line; do
    seen=$((seen + 1))
    case $line in
    *answer*) printf '{"id":0,"result":{}}\n' ;;
    *count*) printf '{"method":"seen","params":%d}\n' $seen ;;
    esac
done"#,
    )
}

/// Sends so many requests, with the ids from 0 on.
fn send_requests(client: &mut Client, count: usize) {
    let mut lines = String::new();
    for id in 0..count {
        writeln!(lines, r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#).unwrap();
    }
    client.send_raw(lines.as_bytes());
}

#[track_caller]
fn expect_refusal(client: &mut Client, id: usize) {
    let message = expect_own_error(client, &json!(id), 429, "in_flight_limit");
    assert!(message.contains("1024"), "{message}");
}

#[track_caller]
fn expect_seen(client: &mut Client, lines: usize) {
    client.send_line(r#"{"method":"count"}"#);
    assert_eq!(client.recv_json()["params"], lines + 1);
}

#[test]
fn one_request_too_many_is_refused() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    send_requests(&mut client, MAX_IN_FLIGHT + 2);
    expect_refusal(&mut client, MAX_IN_FLIGHT);
    expect_refusal(&mut client, MAX_IN_FLIGHT + 1);
    expect_seen(&mut client, MAX_IN_FLIGHT);
    client.reset();
}

#[test]
fn an_answer_makes_room() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    send_requests(&mut client, MAX_IN_FLIGHT);
    client.send_line(r#"{"method":"answer"}"#);
    assert_eq!(client.recv_line(), r#"{"id":0,"result":{}}"#);
    client.send_line(r#"{"id":5000,"method":"m"}"#);
    client.send_line(r#"{"id":5001,"method":"m"}"#);
    expect_refusal(&mut client, 5001);
    expect_seen(&mut client, MAX_IN_FLIGHT + 2);
    client.reset();
}

#[test]
fn a_request_taken_back_makes_room() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    send_requests(&mut client, MAX_IN_FLIGHT);
    // What was not sent is taken back in another way.
    expect_seen(&mut client, MAX_IN_FLIGHT);
    client.send_line(r#"{"method":"notifications/cancelled","params":{"requestId":3}}"#);
    // The room is there once the notice is on its way.
    expect_seen(&mut client, MAX_IN_FLIGHT + 2);
    client.send_line(r#"{"id":5000,"method":"m"}"#);
    client.send_line(r#"{"id":5001,"method":"m"}"#);
    expect_refusal(&mut client, 5001);
    expect_seen(&mut client, MAX_IN_FLIGHT + 4);
    client.reset();
}

#[test]
fn other_messages_are_not_limited() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    send_requests(&mut client, MAX_IN_FLIGHT);
    // Notifications, also with an id that is null; answers; batches of such.
    client.send_line(r#"{"method":"m"}"#);
    client.send_line(r#"{"id":null,"method":"m"}"#);
    client.send_line(r#"{"id":1,"result":{}}"#);
    client.send_line(r#"[{"method":"m"},{"id":1,"error":{}}]"#);
    expect_seen(&mut client, MAX_IN_FLIGHT + 4);
    client.reset();
}

#[test]
fn a_batch_that_would_pass_the_limit_is_refused_whole() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    send_requests(&mut client, MAX_IN_FLIGHT - 1);
    client.send_line(r#"[{"id":2001,"method":"m"},{"method":"n"},{"id":2002,"method":"m"}]"#);
    // Errors, one for each request of it and none for the notification.
    for id in [2001, 2002] {
        let message = expect_own_error(&mut client, &json!(id), 429, "in_flight_limit");
        assert!(message.contains("1024"), "{message}");
    }
    expect_seen(&mut client, MAX_IN_FLIGHT - 1);
    client.send_line(r#"[{"id":2003,"method":"m"},{"method":"n"}]"#);
    client.send_line(r#"{"id":2004,"method":"m"}"#);
    expect_refusal(&mut client, 2004);
    expect_seen(&mut client, MAX_IN_FLIGHT + 1);
    client.reset();
}

#[test]
fn a_batch_of_more_requests_than_the_limit_is_refused() {
    let proxy = Proxy::start(&[], &silent_server());
    let mut client = proxy.connect();
    let requests: Vec<String> = (0..=MAX_IN_FLIGHT)
        .map(|id| format!(r#"{{"id":{id},"method":"m"}}"#))
        .collect();
    client.send_line(&format!("[{}]", requests.join(",")));
    for id in 0..=MAX_IN_FLIGHT {
        expect_refusal(&mut client, id);
    }
    client.send_line(&format!("[{}]", requests[1..].join(",")));
    expect_seen(&mut client, 1);
    client.reset();
}
