//! The limits of one line: how long it may be, and how long its id may be.

use serde_json::{Value, json};

use crate::common::{Client, Proxy, servers};
use crate::{expect_nothing_before_marker, expect_own_error, notification_of};

const DEFAULT_LIMIT: usize = 10_485_760;

/// Sends a line in pieces, so that it is put together by the proxy.
fn send_in_pieces(client: &mut Client, line: &str, piece_bytes: usize) {
    for piece in format!("{line}\n").as_bytes().chunks(piece_bytes) {
        client.send_raw(piece);
    }
}

/// A number as it is shown.
fn grouped(number: usize) -> String {
    mcp_tcp_proxy::util::plural::Grouped(number as u64).to_string()
}

#[track_caller]
fn expect_too_large(client: &mut Client, id: &Value, limit: usize) {
    let message = expect_own_error(client, id, -32600, "too_large");
    let limit = grouped(limit);
    let named = format!(" bytes, the limit is {limit} (--max-message-bytes)");
    assert!(message.contains(&named), "{message}");
    assert!(
        message.starts_with("the client's message is too long: "),
        "{message}"
    );
}

#[track_caller]
fn expect_id_too_large(client: &mut Client, id: &Value) {
    let message = expect_own_error(client, id, -32600, "too_large");
    assert!(message.contains("the limit is 1024 bytes"), "{message}");
}

#[test]
fn the_limit_is_10_mib_by_default() {
    let proxy = Proxy::start(&[], &servers::sh("cat >/dev/null; :"));
    let mut client = proxy.connect();
    let request = |bytes: usize, id: u32| {
        let rest = format!(r#"{{"id":{id},"method":"m","params":""}}"#).len();
        let text = "x".repeat(bytes - rest);
        format!(r#"{{"id":{id},"method":"m","params":"{text}"}}"#)
    };
    client.send_line(&request(DEFAULT_LIMIT, 1));
    client.send_line(&request(DEFAULT_LIMIT + 1, 2));
    expect_too_large(&mut client, &json!(2), DEFAULT_LIMIT);
    client.send_line("junk");
    expect_own_error(&mut client, &Value::Null, -32700, "parse_error");
    client.reset();
}

#[test]
fn a_line_at_the_limit_passes_and_a_byte_more_does_not() {
    const LIMIT: usize = 1_000;
    let proxy = Proxy::start(&["--max-message-bytes", "1000"], &servers::mirror());
    let mut client = proxy.connect();
    let at_the_limit = notification_of(LIMIT);
    let over_it = notification_of(LIMIT + 1);
    for piece_bytes in [1, 7, LIMIT, LIMIT + 1, LIMIT + 3] {
        // Line ends do not count.
        for end in ["", "\r"] {
            send_in_pieces(&mut client, &format!("{at_the_limit}{end}"), piece_bytes);
            assert_eq!(client.recv_line(), at_the_limit);
            send_in_pieces(&mut client, &format!("{over_it}{end}"), piece_bytes);
            expect_too_large(&mut client, &Value::Null, LIMIT);
            expect_nothing_before_marker(&mut client);
        }
    }
}

/// Lines that are longer than this limit, with the ids of their answers.
fn over_long_lines(limit: usize) -> Vec<(String, &'static str)> {
    let filler = "x".repeat(limit);
    vec![
        (
            format!(r#"{{"id":7,"method":"m","params":"{filler}"}}"#),
            "7",
        ),
        (
            format!(r#"{{"method":"m","params":"{filler}","id":7}}"#),
            "7",
        ),
        (
            format!(r#"{{"params":{{"id":1,"x":[{{"id":2}},"{filler}"]}},"id" : "last" }}"#),
            r#""last""#,
        ),
        (
            format!(r#"{{"a":"{filler}","i\u0064":"escaped key","b":"{filler}"}}"#),
            r#""escaped key""#,
        ),
        (
            format!(r#"{{"id":"q\"}},{{\\","a":"{filler}"}}"#),
            r#""q\"},{\\""#,
        ),
        (format!(r#"{{"id":1.50,"method":"{filler}"}}"#), "1.50"),
        (format!(r#"{{"id":-1e2,"method":"{filler}"}}"#), "-1e2"),
        (
            format!(r#"{{"id":"é\u00e9🦀","method":"{filler}"}}"#),
            r#""é\u00e9🦀""#,
        ),
        (format!(r#"{{"a":"\\\"id\\\":3 {filler}","id":4}}"#), "4"),
        (format!(r#"{{"id":1,"a":"{filler}","id":2}}"#), "2"),
        (format!(r#"{{"id":1,"a":"{filler}","id":null}}"#), "null"),
        (format!(r#"{{"method":"m","params":"{filler}"}}"#), "null"),
        (
            format!(r#"{{"method":"m","params":{{"id":3,"a":"{filler}"}}}}"#),
            "null",
        ),
        (format!(r#"[{{"id":3,"method":"m"}},"{filler}"]"#), "null"),
        (format!(r#"{{"type":"heartbeat","a":"{filler}"}}"#), "null"),
        (format!("no JSON {filler}"), "null"),
        (format!("\"{filler}\""), "null"),
        (" ".repeat(limit + 1), "null"),
        ("[".repeat(100_000), "null"),
    ]
}

#[test]
fn an_over_long_line_is_answered_with_its_id_wherever_it_stands() {
    const LIMIT: usize = 200;
    let proxy = Proxy::start(&["--max-message-bytes=200"], &servers::mirror());
    let mut client = proxy.connect();
    for (line, id) in &over_long_lines(LIMIT) {
        for piece_bytes in [1 << 20, 13] {
            send_in_pieces(&mut client, line, piece_bytes.max(line.len() / 1_000));
            let answer = client.recv_line();
            let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"#);
            assert!(answer.starts_with(&start), "{line} gives {answer}");
            crate::assert_own_error(
                &serde_json::from_str(&answer).unwrap(),
                &serde_json::from_str(id).unwrap(),
                -32600,
                "too_large",
            );
            assert!(answer.contains("200"), "{answer}");
        }
    }
    expect_nothing_before_marker(&mut client);
}

#[test]
fn an_over_long_last_line_without_its_end_is_answered() {
    let proxy = Proxy::start(&["--max-message-bytes", "100"], &servers::mirror());
    let mut client = proxy.connect();
    client.send_raw(format!(r#"{{"id":5,"a":"{}""#, "x".repeat(200)).as_bytes());
    client.shutdown_write();
    expect_too_large(&mut client, &json!(5), 100);
    assert!(client.read_to_end().is_empty());
}

#[test]
fn an_id_of_1_kib_passes_and_a_longer_one_does_not() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    // With its quotes.
    let id = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let request = |bytes: usize| format!(r#"{{"jsonrpc":"2.0","id":{},"method":"m"}}"#, id(bytes));
    let answer = |bytes: usize| format!(r#"{{"jsonrpc":"2.0","result":[],"id":{}}}"#, id(bytes));
    for line in [
        request(1024),
        answer(1024),
        format!("[{},{}]", request(1024), request(1000)),
    ] {
        client.send_line(&line);
        assert_eq!(client.recv_line(), line);
    }
    for line in [request(1025), answer(1025), request(1_000_000)] {
        client.send_line(&line);
        expect_id_too_large(&mut client, &Value::Null);
        expect_nothing_before_marker(&mut client);
    }
    // A batch is refused as a whole; whoever waits for an answer that can be given gets it.
    client.send_line(&format!("[{},{}]", request(5), request(1025)));
    expect_id_too_large(&mut client, &"xxx".into());
    expect_id_too_large(&mut client, &Value::Null);
    expect_nothing_before_marker(&mut client);
    client.reset();
}

#[test]
fn an_over_long_answer_is_reported_to_the_one_who_asked() {
    // Answers the first line by an over-long one, under the id as another might write it; then sends back.
    let script = r#"read line
printf '{"jsonrpc":"2.0","result":"%s","id":1.5}\n' "$(head -c 2000 /dev/zero | tr '\0' x)"
exec cat"#;
    let proxy = Proxy::start(&["--max-message-bytes", "1000"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":1.50,"method":"m"}"#);
    let answer = client.recv_line();
    assert!(
        answer.starts_with(r#"{"jsonrpc":"2.0","id":1.50,"error":{"code":502,"#),
        "{answer}"
    );
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    let data = answer["error"]["data"].as_object_mut().unwrap();
    assert_eq!(data.remove("delivered"), Some(json!(true)));
    let message = crate::assert_own_error(&answer, &json!(1.5), 502, "response_too_large");
    let expected =
        "the server's response is too long: 2,038 bytes, the limit is 1,000 (--max-message-bytes)";
    assert_eq!(message, expected);
    expect_nothing_before_marker(&mut client);
    let line = proxy.wait_for_log("the limit is 1,000 ");
    assert!(
        line.contains("WARN") && line.contains("[session 1 ") && line.contains("pid "),
        "{line}"
    );
}

#[test]
fn over_long_lines_that_answer_nothing_are_logged_only() {
    // A notification, an answer to nobody, a request with the id of the client's: none of them ends the client's.
    let script = r#"filler=$(head -c 2000 /dev/zero | tr '\0' x)
read line
printf '{"method":"m","params":"%s"}\n' "$filler"
printf '{"id":99,"result":"%s"}\n' "$filler"
printf '{"id":1,"method":"m","params":"%s"}\n' "$filler"
printf 'no JSON %s\n' "$filler"
printf '{"id":1,"result":"short"}\n'
exec cat"#;
    let proxy = Proxy::start(&["--max-message-bytes", "1000"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
    assert_eq!(client.recv_line(), r#"{"id":1,"result":"short"}"#);
    expect_nothing_before_marker(&mut client);
    assert_eq!(proxy.wait_for_logs("the limit is 1,000 ", 4).len(), 4);
}

#[test]
fn the_limit_holds_for_the_server_to_the_byte() {
    let script = r#"fill() { head -c "$1" /dev/zero | tr '\0' x; }
printf '{"at":"%s"}\n' "$(fill 991)"
printf '{"at":"%s"}\r\n' "$(fill 991)"
printf '{"over":"%s"}\n' "$(fill 990)"
exec cat"#;
    let proxy = Proxy::start(&["--max-message-bytes", "1000"], &servers::sh(script));
    let mut client = proxy.connect();
    let expected = format!(r#"{{"at":"{}"}}"#, "x".repeat(991));
    assert_eq!(expected.len(), 1_000);
    assert_eq!(client.recv_line(), expected);
    assert_eq!(client.recv_line().trim_end_matches('\r'), expected);
    expect_nothing_before_marker(&mut client);
    proxy.wait_for_log("the limit is 1,000 ");
}
