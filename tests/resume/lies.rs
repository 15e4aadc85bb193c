//! What can't be, and attempts that overtake each other.

use serde_json::json;

use super::{Counting, assert_granted, first_line, id, line, resumed};
use crate::common::servers::mirror;
use crate::common::{DEADLINE, NoLine, Proxy, eventually};

#[test]
fn a_number_that_cannot_be_ends_the_session() {
    let proxy = Proxy::start(&[], &mirror());
    for (digit, lines) in [('1', json!(2)), ('2', json!(-1)), ('3', json!("1"))] {
        let mut client = Counting::ask(&proxy, digit);
        client.send(1);
        client.expect(1);
        client
            .client
            .send_json(&json!({"type": "heartbeat", "lines": lines}));
        let bye = client.recv();
        assert_eq!(bye, json!({"type": "bye", "reason": "protocol_error"}));
        let verdict = client.come_back(&proxy, 1);
        let expected = json!({"type": "not_resumed", "reason": "ended", "lines": 1});
        assert_eq!(verdict, expected);
    }
}

#[test]
fn whoever_has_taken_more_than_was_sent_or_less_than_he_said_gets_a_new_session() {
    let proxy = Proxy::start(&[], &mirror());
    for (digit, lies) in [('1', 3), ('2', 1)] {
        let mut client = Counting::ask(&proxy, digit);
        for number in 0..2 {
            client.send(number);
            client.expect(number);
        }
        client.acknowledge();
        client.send(2);
        client.expect(2);
        client.taken = if lies == 3 { 4 } else { 1 };
        let verdict = client.come_back(&proxy, 1);
        assert_eq!(verdict["type"], "not_resumed", "{verdict}");
        assert_eq!(verdict["reason"], "protocol_error", "{verdict}");
        assert_granted(&client.client.recv_json());
    }
}

#[test]
fn an_attempt_that_is_not_above_the_last_one_is_closed_and_changes_nothing() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '4');
    client.send(1);
    client.expect(1);
    assert_eq!(client.come_back(&proxy, 5), resumed(1));
    for attempt in [4, 5] {
        let mut stale = proxy.connect();
        let previous = Some((client.id.as_str(), attempt, 1));
        stale.send_line(&first_line(&id('e'), previous));
        let none = stale.try_recv(DEADLINE);
        assert!(
            matches!(none, Err(NoLine::End { .. } | NoLine::Reset)),
            "{none:?}"
        );
        client.send(attempt);
        client.expect(attempt);
    }
}

#[test]
fn a_live_connection_is_taken_over_but_not_over_and_over() {
    let proxy = Proxy::start(&[], &mirror());
    let mut client = Counting::ask(&proxy, '5');
    client.send(1);
    client.expect(1);
    let mut old = Vec::new();
    let mut verdict = json!(null);
    for attempt in 1..200 {
        let kept = std::mem::replace(&mut client.client, proxy.connect());
        old.push(kept);
        verdict = client.come_back(&proxy, attempt);
        if verdict["type"] != "resumed" {
            break;
        }
        assert_eq!(verdict, resumed(1));
    }
    let expected = json!({"type": "not_resumed", "reason": "contended", "lines": 1});
    assert_eq!(verdict, expected);
    assert!(old.len() > 5);
    eventually("only the new session is there", DEADLINE, || {
        proxy.servers().len() == 1
    });
}

#[test]
fn more_than_the_window_without_an_acknowledgement_is_too_much() {
    // It never reads, so that nothing is acknowledged.
    let proxy = Proxy::start(&[], &crate::common::servers::sh("exec sleep 1000"));
    let client = Counting::ask(&proxy, '6');
    let text = json!({"method": "m", "params": "x".repeat(100_000)}).to_string();
    let mut writer = client.client.writer();
    std::thread::spawn(move || {
        for _ in 0..30 {
            use std::io::Write;
            if writer.write_all(format!("{text}\n").as_bytes()).is_err() {
                return;
            }
        }
    });
    proxy.wait_for_log("protocol_error");
    drop(client);
    let _ = line(1);
}
