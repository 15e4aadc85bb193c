//! `connect` and the proxy, with something between them or to one of them.

use std::{iter, thread};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::connect::{FakeServer, IN_HASTE, write_all};
use crate::common::processes::{rss_kib, send_signal, wait_until_quiet, wait_until_stopped};
use crate::common::servers::{demo, mirror, sh};
use crate::common::{Client, Connect, DEADLINE, Proxy, eventually};

#[test]
fn a_connect_that_is_stopped_for_longer_than_its_heartbeats_has_lost_nothing() {
    let proxy = Proxy::start(&[], &demo());
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.5"]].concat();
    let mut connect = Connect::start(&options, proxy.address());
    connect.initialize();
    connect.request(1, "ping", &json!({}));
    let server = proxy.only_server();
    send_signal(connect.pid(), Signal::SIGSTOP);
    wait_until_stopped(connect.pid());
    connect.send_request(2, "ping", &json!({}));
    proxy.wait_for_log("no sign of life");
    connect.signal(Signal::SIGCONT);
    assert_eq!(connect.recv_json()["id"], 2);
    connect.request(3, "ping", &json!({}));
    assert_eq!(proxy.only_server(), server);
    connect.end_input();
    connect.wait_exit(0);
    proxy.wait_until_childless();
}

#[test]
fn without_resuming_a_lost_connection_is_a_lost_session() {
    let proxy = Proxy::start(&["--debug"], &mirror());
    let options = [&IN_HASTE[..], &["--no-resume"]].concat();
    let mut connect = Connect::start(&options, proxy.address());
    connect.send_line(r#"{"method":"m"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"m"}"#);
    assert!(
        !proxy
            .log()
            .iter()
            .any(|line| line.contains("with a secret"))
    );
    connect.end_input();
    connect.wait_exit(0);
}

#[test]
fn a_host_must_not_write_what_is_said_about_the_connection() {
    let proxy = Proxy::start(&[], &mirror());
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    for kind in ["heartbeat", "handshake"] {
        connect.send_line(&format!(r#"{{"type":"{kind}","id":7}}"#));
        assert_eq!(connect.recv_error(-32600, "invalid_request").0, 7);
    }
    connect.send_line(r#"{"type":"other","lines":3}"#);
    assert_eq!(connect.recv_line(), r#"{"type":"other","lines":3}"#);
}

#[test]
fn a_proxy_that_is_started_anew_gives_a_session_anew_at_once() {
    let reserved = crate::common::connect::Reserved::new();
    let port = reserved.address().port().to_string();
    let start = || Proxy::start(&["--port", &port], &mirror());
    let mut first = start();
    let mut connect = Connect::start(&IN_HASTE, reserved.address());
    connect.send_line(r#"{"method":"m","params":1}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"m","params":1}"#);
    send_signal(first.pid(), Signal::SIGKILL);
    first.wait_exit(crate::common::DEADLINE);
    let second = start();
    connect.wait_for_log("could not be resumed (unknown)");
    connect.send_line(r#"{"method":"m","params":2}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"m","params":2}"#);
    connect.end_input();
    let log = connect.wait_exit(0).join("\n");
    // There is a connection for it already.
    assert!(!log.contains("next attempt in"), "{log}");
    assert_eq!(log.matches("lost the connection").count(), 1, "{log}");
    second.wait_until_childless();
}

/// The first line of a connection of `connect`, with which it asks for a session.
fn asked(line: &str) -> Value {
    let line: Value = serde_json::from_str(line).unwrap();
    line["resume"].clone()
}

const RESUMABLE: &str = r#"{"type":"resumable","version":1,"timeout":120,"window":1048576}"#;

/// Keeps the session that `connect` asks for, and sends it a line.
fn grant(connect: &mut Connect, first: &mut Client) {
    asked(&first.recv_line());
    first.send_line(RESUMABLE);
    first.send_line(r#"{"method":"one"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"one"}"#);
}

#[test]
fn a_proxy_that_has_no_place_for_whoever_comes_back_has_said_nothing_that_counts() {
    let proxy = FakeServer::start();
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    let mut first = proxy.accept();
    grant(&mut connect, &mut first);
    first.close();
    let full = json!({"jsonrpc": "2.0", "id": null, "error": {"code": 503, "message": "full",
        "data": {"source": "mcp-tcp-proxy", "reason": "session_limit"}}});
    for attempt in 1..3 {
        let mut again = proxy.accept();
        let ask = asked(&again.recv_line());
        assert_eq!(ask["previous"]["attempt"], attempt, "{ask}");
        assert_eq!(ask["previous"]["lines"], 1, "{ask}");
        again.send_json(&full);
        again.close();
    }
    let mut last = proxy.accept();
    assert_eq!(asked(&last.recv_line())["previous"]["lines"], 1);
    last.send_line(r#"{"type":"resumed","lines":0}"#);
    last.send_line(r#"{"method":"two"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"two"}"#);
}

#[test]
fn the_first_line_of_a_proxy_may_come_in_pieces() {
    let proxy = FakeServer::start();
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    let mut first = proxy.accept();
    asked(&first.recv_line());
    let (beginning, rest) = RESUMABLE.split_at(10);
    first.send_raw(beginning.as_bytes());
    // It is read before this is.
    connect.send_line(r#"{"method":"zero"}"#);
    assert_eq!(first.recv_line(), r#"{"method":"zero"}"#);
    first.send_line(rest);
    first.send_line(r#"{"method":"one"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"one"}"#);
    first.close();
    let mut again = proxy.accept();
    assert_eq!(asked(&again.recv_line())["previous"]["lines"], 1);
}

#[test]
fn what_was_said_last_gets_there_although_the_connection_was_lost_meanwhile() {
    let proxy = FakeServer::start();
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    let mut first = proxy.accept();
    grant(&mut connect, &mut first);
    // It is taken by nobody.
    connect.send_line(r#"{"method":"last"}"#);
    assert_eq!(first.recv_line(), r#"{"method":"last"}"#);
    connect.end_input();
    first.close();
    let mut again = proxy.accept();
    assert_eq!(asked(&again.recv_line())["previous"]["lines"], 1);
    again.send_line(r#"{"type":"resumed","lines":0}"#);
    assert_eq!(again.recv_line(), r#"{"method":"last"}"#);
    assert_eq!(again.recv_line(), r#"{"type":"heartbeat","bye":true}"#);
    again.send_line(r#"{"type":"bye","reason":"client_closed"}"#);
    again.close();
    connect.wait_exit(0);
}

#[test]
fn the_end_follows_all_that_was_said_however_long_that_takes() {
    let proxy = FakeServer::start();
    let options = [&IN_HASTE[..], &["--max-message-bytes", "100000000"]].concat();
    let mut connect = Connect::start(&options, proxy.address());
    let mut peer = proxy.accept();
    grant(&mut connect, &mut peer);
    // More than all buffers on the way hold.
    let line = format!(r#"{{"method":"{}"}}"#, "x".repeat(48 << 20));
    let input = connect.take_input();
    thread::scope(|scope| {
        scope.spawn(|| write_all(input, format!("{line}\n").as_bytes()));
        // The host is done, and connect is not.
        wait_until_quiet(&[connect.pid()]);
        // What was granted is acknowledged meanwhile.
        let acknowledgement = r#"{"type":"heartbeat","#;
        let said =
            iter::repeat_with(|| peer.recv_line()).find(|said| !said.starts_with(acknowledgement));
        assert!(said.as_ref() == Some(&line), "the line was changed");
    });
    assert_eq!(peer.recv_line(), r#"{"type":"heartbeat","bye":true}"#);
    assert!(peer.read_to_end().is_empty());
    peer.send_line(r#"{"type":"bye","reason":"client_closed"}"#);
    peer.close();
    connect.wait_exit(0);
}

/// Nothing is acknowledged any more then, so the proxy sends all that there is.
#[test]
fn at_the_end_no_more_is_held_for_a_host_that_does_not_read_than_before() {
    const LINES: usize = 4000;
    let flood = format!(
        r#"awk 'BEGIN {{ s = "x"; while (length(s) < 16000) s = s s; for (i = 0; i < {LINES}; i++) print "{{\"method\":\"" s "\"}}" }}'"#
    );
    let server = format!(
        r#"read -r line; echo '{{"id":1,"result":{{}}}}'; while read -r line; do :; done; {flood}"#
    );
    let proxy = Proxy::start(&[], &sh(&server));
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    assert_eq!(connect.request(1, "m", &json!({}))["result"], json!({}));
    let before = rss_kib(connect.pid());
    connect.end_input();
    eventually("the flood", DEADLINE, || connect.has_output());
    wait_until_quiet(&[connect.pid(), proxy.pid()]);
    let grown = rss_kib(connect.pid()).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    // How many there are is up to how long the server is waited for at its end.
    assert!(!connect.read_to_end().is_empty());
}
