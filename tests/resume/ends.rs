//! How sessions end that may come back.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::{Counting, id, line, resumed, with_id};
use crate::common::client::modern_meta;
use crate::common::servers::{demo, mirror, sh};
use crate::common::{DEADLINE, Proxy, Scratch, eventually};

#[test]
fn a_client_that_says_bye_is_gone_when_it_is() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '1');
    client.send(1);
    client.expect(1);
    client
        .client
        .send_line(r#"{"type":"heartbeat","bye":true}"#);
    client.client.shutdown_write();
    let rest = client.client.read_to_end();
    let last = rest.last().unwrap();
    assert!(last.contains(r#""type":"bye""#), "{rest:?}");
    proxy.wait_until_childless();
    assert!(!proxy.log().iter().any(|line| line.contains("it is kept")));
}

#[test]
fn what_was_asked_before_a_bye_is_answered_however_long_the_answers_are() {
    let proxy = Proxy::start(
        &[],
        &sh(
            "while read -r line; do head -c 3000000 /dev/zero | tr '\\0' x | sed 's/.*/{\"id\":1,\"result\":\"&\"}/'; echo; done",
        ),
    );
    let mut client = Counting::ask(&proxy, '2');
    for _ in 0..2 {
        client.client.send_json(&with_id(1));
    }
    client
        .client
        .send_line(r#"{"type":"heartbeat","bye":true}"#);
    client.client.shutdown_write();
    let rest = client.client.read_to_end();
    let answers = rest.iter().filter(|line| line.contains("result"));
    assert!(answers.map(String::len).sum::<usize>() > 6_000_000);
}

#[test]
fn a_client_that_does_not_come_back_in_time_is_gone() {
    let proxy = Proxy::start(&["--resume-timeout", "0.2"], &mirror());
    let mut client = Counting::ask(&proxy, '3');
    client.send(1);
    client.expect(1);
    client.client = proxy.connect();
    proxy.wait_for_log("did not come back within 0.2 s");
    let verdict = client.come_back(&proxy, 1);
    let expected = json!({"type": "not_resumed", "reason": "ended", "lines": 1});
    assert_eq!(verdict, expected);
}

#[test]
fn a_session_over_which_nothing_has_passed_is_not_kept() {
    let proxy = Proxy::start(&[], &mirror());
    let client = Counting::ask(&proxy, '4');
    drop(client);
    proxy.wait_until_childless();
    proxy.wait_for_log("closed:");
}

/// The client may have acted on what it was told.
#[test]
fn a_session_that_was_only_spoken_to_is_kept_whether_the_line_was_acknowledged_or_not() {
    let hello = line(1);
    let server = sh(&format!("echo '{hello}'; exec cat"));
    let proxy = Proxy::start(&[], &server);
    for (digit, is_acknowledged) in [('a', true), ('b', false)] {
        let mut client = Counting::ask(&proxy, digit);
        client.expect(1);
        if is_acknowledged {
            client.acknowledge();
        }
        let server = proxy.only_server();
        assert_eq!(client.come_back(&proxy, 1), resumed(0));
        client.send(2);
        client.expect(2);
        assert_eq!(proxy.only_server(), server);
        client
            .client
            .send_line(r#"{"type":"heartbeat","bye":true}"#);
        client.client.close();
        proxy.wait_until_childless();
    }
}

#[test]
fn what_the_proxy_said_at_the_end_is_there_for_whoever_comes_back_and_takes_no_place() {
    let options = ["--no-auto-restart", "--max-sessions", "1"];
    let server = sh("read -r line; echo \"$line\"; read -r line; echo \"$line\"");
    let proxy = Proxy::start(&options, &server);
    let mut client = Counting::ask(&proxy, '5');
    client.send(1);
    client.expect(1);
    client.send(2);
    client.client.recv_line();
    let bye = json!({"type": "bye", "reason": "restart_limit"});
    // The second line is not taken, and neither is the bye.
    eventually("the server has ended", DEADLINE, || {
        proxy.log().iter().any(|line| line.contains("exit code 0"))
    });
    proxy.wait_until_childless();
    client.client = {
        let mut other = proxy.connect();
        other.send_json(&with_id(8));
        other.recv_line();
        other
    };
    assert_eq!(client.come_back(&proxy, 1), resumed(2));
    client.expect(2);
    assert_eq!(client.recv(), bye);
    assert_eq!(client.client.read_to_end(), [""; 0]);
}

#[test]
fn what_a_server_said_last_is_there_for_a_client_that_was_away_then() {
    let scratch = Scratch::new();
    let last = scratch.file("last");
    mkfifo(&last, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let server = format!(
        "read -r line; echo \"$line\"; exec cat '{}'",
        last.display()
    );
    let proxy = Proxy::start(&["--no-auto-restart"], &sh(&server));
    let mut client = Counting::ask(&proxy, '6');
    client.send(1);
    client.expect(1);
    client.client.shutdown_write();
    proxy.wait_for_log("it is kept");
    std::fs::write(&last, format!("{}\n", line(2))).unwrap();
    proxy.wait_until_childless();
    assert_eq!(client.come_back(&proxy, 1), resumed(1));
    client.expect(2);
    assert_eq!(client.recv()["type"], "bye");
    assert_eq!(client.client.read_to_end(), [""; 0]);
}

#[test]
fn a_stop_does_not_wait_for_whoever_is_away() {
    let mut proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '6');
    client.send(1);
    client.expect(1);
    drop(client);
    proxy.wait_for_log("it is kept");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(Duration::from_secs(25)).code(), Some(0));
}

#[test]
fn a_stop_says_bye() {
    let mut proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '7');
    client.send(1);
    client.expect(1);
    proxy.signal(Signal::SIGTERM);
    let bye = client.recv();
    assert_eq!(bye, json!({"type": "bye", "reason": "shutdown"}));
    drop(client);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_server_that_dies_while_its_client_is_away_is_started_when_it_is_back() {
    let proxy = Proxy::start(&[], &demo());
    let mut client = Counting::ask(&proxy, '8');
    client
        .client
        .send_json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": modern_meta()}}));
    client.recv();
    client
        .client
        .send_json(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": 1000}, "_meta": modern_meta()}}));
    eventually("the call is at the server", DEADLINE, || {
        let line = client.client.recv_json();
        line == json!({"type": "ack", "lines": 2})
    });
    let old = proxy.only_server();
    client.client = proxy.connect();
    proxy.wait_for_log("it is kept");
    crate::common::processes::kill_and_wait(old);
    assert_eq!(client.come_back(&proxy, 1), resumed(2));
    let lost = client.recv();
    assert_eq!(
        (&lost["id"], &lost["error"]["code"]),
        (&json!(2), &json!(502))
    );
    client
        .client
        .send_json(&json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {"_meta": modern_meta()}}));
    let answer = loop {
        let line = client.recv();
        if line["id"] == 3 {
            break line;
        }
    };
    assert!(answer["result"].is_object(), "{answer}");
    let _ = (id('0'), line(0));
}
