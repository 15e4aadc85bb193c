//! Whose answer it is: ids are compared by value, and echoed as the client wrote them.

use crate::common::{Proxy, servers};
use crate::expect_nothing_before_marker;

/// Sends a request with the id `asked`, has the server answer under the id `answered` and then end, and returns the
/// lines that the client gets after the answer.
fn left_open(asked: &str, answered: &str) -> Vec<String> {
    let script = format!(
        "read line\ncat <<'END'\n{{\"id\":{answered},\"result\":1}}\nEND\nread line\nexit 3"
    );
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(&script));
    let mut client = proxy.connect();
    client.send_line(&format!(r#"{{"jsonrpc":"2.0","id":{asked},"method":"m"}}"#));
    assert_eq!(
        client.recv_line(),
        format!(r#"{{"id":{answered},"result":1}}"#)
    );
    client.send_line(r#"{"jsonrpc":"2.0","method":"go"}"#);
    client.read_to_end()
}

#[test]
fn an_answer_may_spell_the_id_otherwise() {
    for (asked, answered) in [
        ("1", "1"),
        ("1.50", "1.5"),
        ("1.0", "1"),
        ("1", "1.0"),
        ("1e2", "100"),
        ("-0", "0"),
        (r#""é""#, r#""\u00e9""#),
        (r#""\u00e9""#, r#""é""#),
        (r#""a\/b""#, r#""a/b""#),
        (r#""🦀""#, r#""\ud83e\udd80""#),
        (r#""\ud800""#, r#""\uD800""#),
        ("[1, 2]", "[1,2]"),
    ] {
        let left = left_open(asked, answered);
        assert!(left.is_empty(), "{asked}, answered as {answered}: {left:?}");
    }
}

#[test]
fn an_answer_to_another_id_is_none() {
    for (asked, answered) in [
        ("1", r#""2""#),
        ("1", r#""1.0""#),
        (r#""01""#, "1"),
        ("1", "2"),
        ("1.5", "1"),
        (r#""a""#, r#""A""#),
        ("9007199254740993", "9007199254740992"),
        ("1", "null"),
    ] {
        let left = left_open(asked, answered);
        let start = format!(r#"{{"jsonrpc":"2.0","id":{asked},"error":{{"code":502,"#);
        assert!(
            left.len() == 1 && left[0].starts_with(&start),
            "{asked}, answered as {answered}: {left:?}"
        );
    }
}

#[test]
fn a_response_may_have_its_id_as_another_type() {
    for (asked, answered) in [("1", r#""1""#), (r#""1""#, "1"), (r#""1""#, "1.0")] {
        let left = left_open(asked, answered);
        assert!(left.is_empty(), "{asked}, answered as {answered}: {left:?}");
    }
}

#[test]
fn ids_of_another_type_are_logged_once() {
    let script = r#"for id in 1 2; do
    read line
    printf '{"id":"%d","result":1}\n' $id
done
exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    for id in 1..=2 {
        client.send_line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
        assert_eq!(client.recv_line(), format!(r#"{{"id":"{id}","result":1}}"#));
    }
    expect_nothing_before_marker(&mut client);
    let logged = proxy.wait_for_log("another type");
    assert!(
        logged.contains("INFO") && logged.contains("session 1"),
        "{logged}"
    );
    assert_eq!(proxy.wait_for_logs("another type", 1).len(), 1);
}

#[test]
fn when_a_string_and_a_number_are_asked_each_response_is_for_its_own() {
    let script = r#"read a; read b
printf '{"id":7,"result":"number"}\n'
read go
exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":"7","method":"m"}"#);
    client.send_line(r#"{"jsonrpc":"2.0","id":7,"method":"m"}"#);
    assert_eq!(client.recv_line(), r#"{"id":7,"result":"number"}"#);
    client.send_line(r#"{"jsonrpc":"2.0","method":"go"}"#);
    let left = client.read_to_end();
    let start = r#"{"jsonrpc":"2.0","id":"7","error":{"code":502,"#;
    assert!(left.len() == 1 && left[0].starts_with(start), "{left:?}");
}

#[test]
fn errors_echo_ids_as_they_were_written() {
    let ids = [
        "1.50",
        "1e2",
        "-0",
        "12345678901234567890123",
        r#""\u00e9\/""#,
        r#""é""#,
        "[1, {\"a\":  2}]",
        "true",
        "NaN",
    ];
    let proxy = Proxy::start(
        &["--no-auto-restart"],
        // Ends when all requests are there.
        &servers::sh("for i in 1 2 3 4 5 6 7 8 9; do read line; done; exit 3"),
    );
    let mut client = proxy.connect();
    for id in ids {
        client.send_line(&format!(r#"{{"id": {id} ,"method":"m"}}"#));
    }
    let errors = client.read_to_end();
    assert_eq!(errors.len(), ids.len(), "{errors:?}");
    for (error, id) in errors.iter().zip(ids) {
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":502,"#);
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn an_answer_in_a_batch_ends_its_request() {
    let script = r#"read line
printf '[{"id":2.0,"result":1},{"method":"m"},{"id":1,"error":{}}]\n'
read line
exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"[{"id":1,"method":"m"},{"id":2,"method":"m"},{"id":3,"method":"m"}]"#);
    client.recv_line();
    client.send_line(r#"{"method":"go"}"#);
    let left = client.read_to_end();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains(r#""id":3,"#), "{left:?}");
}

#[test]
fn a_request_of_the_server_with_the_same_id_ends_nothing() {
    let script = r#"read line; printf '{"id":1,"method":"ping"}\n'; read line; exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1,"method":"m"}"#);
    assert_eq!(client.recv_json()["method"], "ping");
    client.send_line(r#"{"id":1,"result":{}}"#);
    let left = client.read_to_end();
    assert!(left.len() == 1 && left[0].contains("502"), "{left:?}");
}

#[test]
fn a_request_that_is_taken_back_by_the_client_is_not_answered() {
    let script = r#"read a; read b; echo '{"method":"read"}'; read c; exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1.50,"method":"m"}"#);
    client.send_line(r#"{"id":"kept","method":"m"}"#);
    assert_eq!(client.recv_json()["method"], "read");
    client.send_line(r#"{"method":"notifications/cancelled","params":{"requestId":1.5}}"#);
    let left = client.read_to_end();
    assert!(
        left.len() == 1 && left[0].contains(r#""id":"kept""#),
        "{left:?}"
    );
}

#[test]
fn a_request_that_the_server_takes_back_is_not_its_own_and_is_answered() {
    let script = r#"read a; read b
printf '{"method":"notifications/cancelled","params":{"requestId":"\\u0061"}}\n'; exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":"a","method":"m"}"#);
    client.send_line(r#"{"id":"kept","method":"m"}"#);
    let left = client.read_to_end();
    assert!(
        left.len() == 3 && left[1].contains(r#""id":"a""#) && left[2].contains(r#""id":"kept""#),
        "{left:?}"
    );
}
