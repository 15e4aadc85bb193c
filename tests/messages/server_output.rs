//! What the server writes to its stdout.

use serde_json::json;

use crate::common::{Proxy, servers};
use crate::expect_nothing_before_marker;

#[test]
fn messages_arrive_as_the_server_wrote_them() {
    let script = r#"cat <<'END'
 { "b" : 1.50, "a":"\u00e9\/" }	
{"method":"m","method":"n","x":[NaN,-Infinity,1e400]}
[]
[1,{"id":7,"result":"\ud800"}]
{"type":"heartbeat"}
{"type":"heartbeat_response","timestamp":0,"mcp_alive":false}
END
exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    let expected = script.lines().skip(1).take_while(|line| *line != "END");
    for line in expected {
        assert_eq!(client.recv_line(), line);
    }
    expect_nothing_before_marker(&mut client);
}

#[test]
fn what_is_no_message_is_logged_and_not_forwarded() {
    // Each with a word that does not stand in the command, which is logged, too.
    let script = r#"n=40
printf 'plain text %d\n' $((n + 1))
printf '{"cut %d\n' $((n + 2))
printf '"scalar %d"\n' $((n + 3))
printf '\377\376 not UTF-8 %d\n' $((n + 4))
printf '\033[2J control %d\n' $((n + 5))
printf '\357\273\277{"bom":%d}\n' $((n + 6))
printf '%d\n' $((n + 10007))
printf '{"a":"\377%d"}\n' $((n + 8))
exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    expect_nothing_before_marker(&mut client);
    let server = proxy.only_server();
    for (text, shown) in [
        ("plain text 41", "plain text 41"),
        ("{\"cut 42", "{\"cut 42"),
        ("scalar 43", "\"scalar 43\""),
        ("not UTF-8 44", "\u{fffd}\u{fffd} not UTF-8 44"),
        ("control 45", r"\u{1b}[2J control 45"),
        ("{\"bom\":46}", r#"\u{feff}{"bom":46}"#),
        ("10047", "10047"),
        ("\u{fffd}48", "{\"a\":\"\u{fffd}48\"}"),
    ] {
        let line = proxy.wait_for_log(text);
        let tagged = line.contains("WARN")
            && line.contains("[session 1 127.0.0.1:")
            && line.contains(&format!("pid {server}]"));
        assert!(tagged && line.contains(shown), "{line}");
    }
}

#[test]
fn a_byte_order_mark_at_the_beginning_is_dropped() {
    let script = r#"printf '\357\273\277{"method":"m"}\n'; exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    assert_eq!(client.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn a_line_that_comes_in_pieces_is_one_line() {
    // Each piece is written by a process of its own, so no buffer joins them.
    let script = r#"printf '{"method":'; printf '"in pieces"'; printf '}'; printf '\n'; exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    assert_eq!(client.recv_line(), r#"{"method":"in pieces"}"#);
}

#[test]
fn a_carriage_return_before_the_line_feed_comes_as_it_was() {
    let script = r#"printf '{"method":"m"}\r\n'; exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    assert_eq!(proxy.connect().recv_line(), "{\"method\":\"m\"}\r");
}

#[test]
fn an_unterminated_last_message_is_delivered() {
    let script = r#"read line; printf '{"id":1,"result":"the last"}'"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1,"method":"m"}"#);
    assert_eq!(
        client.read_to_end(),
        [r#"{"id":1,"result":"the last"}"#.to_owned()]
    );
}

#[test]
fn an_unterminated_last_line_that_is_no_message_is_logged() {
    let script = r"read line; printf 'the last %d' $((40 + 2))";
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1,"method":"m"}"#);
    let lines = client.read_to_end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("502"), "{lines:?}");
    assert!(proxy.wait_for_log("the last 42").contains("WARN"));
}

#[test]
fn a_message_cut_by_the_server_s_end_is_not_forwarded() {
    let script = r#"read line; printf '{"id":1,"result":"cut'; exit 3"#;
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1,"method":"m"}"#);
    let lines = client.read_to_end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let error: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        error["error"]["data"],
        json!({
            "source": "mcp-tcp-proxy",
            "reason": "process_terminated",
            "status": "exit code 3",
            "delivered": true
        })
    );
}

#[test]
fn a_flood_of_what_is_no_message_harms_nothing() {
    let script = r#"awk 'BEGIN { for (i = 0; i < 100000; i++) print "no message", i }'; exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    expect_nothing_before_marker(&mut proxy.connect());
}
