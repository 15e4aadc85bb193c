//! What passes between the proxy and a client that asks for its session to be kept.

use std::time::Duration;

use serde_json::json;

use super::{Counting, assert_granted, first_line, id, line, resumed};
use crate::common::servers::{mirror, sh};
use crate::common::{DEADLINE, Proxy, eventually};

#[test]
fn a_session_goes_on_over_another_connection_with_the_same_server() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '1');
    for number in 0..3 {
        client.send(number);
        client.expect(number);
    }
    let server = proxy.only_server();
    // Two of them are not taken.
    client.taken = 1;
    assert_eq!(client.come_back(&proxy, 1), resumed(3));
    for number in 1..3 {
        client.expect(number);
    }
    client.send(7);
    client.expect(7);
    assert_eq!(proxy.only_server(), server);
    // Where the machine stalls, the first line is late, and a session begins for it that is not needed.
    eventually("it is the only session", DEADLINE, || {
        let log = proxy.log();
        let count = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        count("opened") == 1 + count("goes on as another session")
    });
}

#[test]
fn lines_that_follow_the_first_at_once_are_taken() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = proxy.connect();
    let lines = format!("{}\n{}\n{}\n", first_line(&id('1'), None), line(1), line(2));
    client.send_raw(lines.as_bytes());
    assert_granted(&client.recv_json());
    for number in 1..3 {
        assert_eq!(client.recv_json(), line(number));
    }
    let ack = client.recv_json();
    assert_eq!(ack, json!({"type": "ack", "lines": 2}));
}

#[test]
fn a_client_that_does_not_ask_or_asks_for_something_else_sees_nothing_of_it() {
    let proxy = Proxy::start(&["--heartbeat-interval", "3600"], &mirror());
    for first in [
        r#"{"type":"handshake"}"#.to_owned(),
        r#"{"type":"handshake","resume":{"version":2,"session":"1","heartbeat":1}}"#.to_owned(),
        r#"{"type":"handshake","resume":true}"#.to_owned(),
        format!("{}\n{}", line(8), first_line(&id('1'), None)),
    ] {
        let mut client = proxy.connect();
        client.send_line(&first);
        client.send_json(&line(9));
        let mut next = client.recv_json();
        if next == line(8) {
            next = client.recv_json();
        }
        assert_eq!(next, line(9), "{first}");
    }
}

#[test]
fn nothing_is_kept_if_it_is_turned_off() {
    let proxy = Proxy::start(&["--resume-timeout", "0"], &mirror());
    let mut client = proxy.connect();
    client.send_line(&first_line(&id('1'), None));
    client.send_json(&line(1));
    assert_eq!(client.recv_json(), line(1));
}

#[test]
fn who_comes_back_to_nothing_gets_a_new_session() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = Counting {
        client: proxy.connect(),
        id: id('2'),
        taken: 5,
    };
    let verdict = client.come_back(&proxy, 1);
    let expected = json!({"type": "not_resumed", "reason": "unknown"});
    assert_eq!(verdict, expected);
    assert_granted(&client.client.recv_json());
    client.send(1);
    client.expect(1);
}

#[test]
fn a_half_line_is_no_line_and_is_sent_again() {
    let proxy = Proxy::start(&[], &mirror());
    for long in [0, 100_000] {
        let mut client = Counting::ask(&proxy, if long == 0 { '3' } else { '4' });
        client.send(1);
        client.expect(1);
        let whole = json!({"jsonrpc": "2.0", "method": "m", "params": "x".repeat(long)});
        let text = whole.to_string();
        client.client.send_raw(&text.as_bytes()[..text.len() - 1]);
        assert_eq!(client.come_back(&proxy, 1), resumed(1));
        client.client.send_json(&whole);
        assert_eq!(client.recv(), whole);
        client.send(2);
        client.expect(2);
    }
}

#[test]
fn a_first_line_that_comes_late_is_one_all_the_same() {
    let proxy = Proxy::start(&[], &mirror());
    let mut late = proxy.connect();
    proxy.wait_for_logs("opened", 1);
    late.send_line(&first_line(&id('5'), None));
    assert_granted(&late.recv_json());
    late.send_json(&line(1));
    assert_eq!(late.recv_json(), line(1));
    let server = proxy.only_server();
    let mut other = proxy.connect();
    proxy.wait_for_logs("opened", 2);
    other.send_line(&first_line(&id('6'), Some((&id('5'), 1, 1))));
    assert_eq!(other.recv_json(), resumed(1));
    other.send_json(&line(2));
    assert_eq!(other.recv_json(), line(2));
    eventually("the other server is stopped", DEADLINE, || {
        proxy.servers() == [server]
    });
}

#[test]
fn heartbeats_go_beside_lines_that_have_to_wait() {
    let flood = sh(
        "while read -r line; do i=0; while [ $i -lt 40 ]; do head -c 65536 /dev/zero | tr '\\0' x | sed 's/.*/{\"x\":\"&\"}/'; echo; i=$((i+1)); done; done",
    );
    let proxy = Proxy::start(&["--heartbeat-interval", "0.2"], &flood);
    let mut client = Counting::ask(&proxy, '7');
    client.send(1);
    let mut bytes = 0;
    let mut beats = 0;
    // Nothing is acknowledged.
    while beats < 3 {
        let line = client.client.recv_line();
        if line.contains("heartbeat_response") {
            beats += usize::from(bytes > 900_000);
        } else if !line.contains(r#""ack""#) {
            bytes += line.len() + 1;
        }
        assert!(bytes <= 1 << 20, "{bytes}");
    }
    client.taken = (bytes / 65_545) as u64;
    client.acknowledge();
    let more = loop {
        let line = client.client.recv_line();
        if !line.contains(r#""type""#) {
            break line;
        }
    };
    assert!(more.starts_with(r#"{"x":"#));
}

#[test]
fn a_server_cannot_speak_for_the_proxy() {
    let server = sh(
        r#"read -r line; for type in heartbeat_response resumable resumed not_resumed ack bye; do echo "{\"type\":\"$type\",\"lines\":0}"; done; exec cat"#,
    );
    let proxy = Proxy::start(&["--heartbeat-interval", "3600"], &server);
    let mut client = Counting::ask(&proxy, '8');
    client.send(1);
    client.send(2);
    client.expect(2);
    proxy.wait_for_logs("only the proxy may write", 6);
}

#[test]
fn a_client_that_says_nothing_for_long_is_taken_for_lost_and_may_come_back() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = proxy.connect();
    client.send_line(&super::first_line_with(&id('9'), 0.01, None));
    assert_granted(&client.recv_json());
    client.send_json(&line(1));
    assert_eq!(client.recv_json(), line(1));
    proxy.wait_for_log("no sign of life");
    client.try_recv(Duration::from_secs(20)).unwrap();
    let mut back = proxy.connect();
    back.send_line(&first_line(&id('a'), Some((&id('9'), 1, 1))));
    assert_eq!(back.recv_json(), resumed(1));
}
