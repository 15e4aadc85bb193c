//! A connection that is lost: what is answered, what waits, what is said to the next server, and when it is enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::client::{Client, LEGACY_VERSION, assert_own_error};
use crate::common::connect::{
    HEARTBEAT_RESPONSE, IN_HASTE, INITIALIZED, Reserved, answer_initialize, assert_handshake,
    connected, initialize_line, request,
};
use crate::common::{Connect, FakeServer, NoLine, Proxy, servers};

/// Answers a request that was read from the peer.
fn answer(peer: &mut Client, line: &str) -> String {
    let message: Value = serde_json::from_str(line).unwrap();
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#,
        message["id"]
    );
    peer.send_line(&answer);
    answer
}

/// Starts `connect` to a server that it has the handshake of legacy MCP with.
fn initialized(options: &[&str], server: &FakeServer) -> (Connect, Client) {
    let mut connect = Connect::start(options, server.address());
    let mut peer = server.greeted();
    connect.send_line(&initialize_line(0));
    answer_initialize(&mut peer);
    assert_eq!(connect.recv_json()["id"], 0);
    connect.send_line(INITIALIZED);
    assert_eq!(peer.recv_line(), INITIALIZED);
    (connect, peer)
}

/// Closes that connection, and waits until this is noticed: what is sent before may get on it, and be lost with it.
#[track_caller]
fn lose(connect: &Connect, peer: Client) {
    peer.close();
    connect.wait_for_log("lost the connection");
}

/// The next line that is no heartbeat.
#[track_caller]
fn next_but_heartbeats(peer: &mut Client) -> String {
    loop {
        let line = peer.recv_line();
        if !line.contains(r#""type":"heartbeat""#) {
            return line;
        }
    }
}

/// Takes the replayed handshake from a new peer and agrees to it.
#[track_caller]
fn agree_to_replay(peer: &mut Client) {
    answer_initialize(peer);
    assert_eq!(peer.recv_line(), INITIALIZED);
}

#[test]
fn requests_in_flight_are_answered_in_order_and_others_wait() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    for id in [11, 3, 8, 5] {
        connect.send_request(id, "tools/call", &json!({}));
        peer.recv_line();
    }
    peer.send_line(r#"{"id":3,"result":"in time"}"#);
    peer.close();
    assert_eq!(connect.recv_line(), r#"{"id":3,"result":"in time"}"#);
    for id in [11, 8, 5] {
        let (answered, data) = connect.recv_error(502, "connection_lost");
        assert_eq!(answered, id);
        assert_eq!(data["status"], "closed by the other side");
    }
    let mut peer = server.greeted();
    let next = request(3, "tools/call", &json!({}));
    connect.send_line(&next);
    // Nothing of what was in flight comes again.
    assert_eq!(peer.recv_line(), next);
    assert_eq!(answer(&mut peer, &next), connect.recv_line());
    assert_eq!(connect.count_logs("lost the connection"), 1);
}

#[test]
fn a_reset_is_a_loss_too() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    connect.send_request(1, "tools/call", &json!({}));
    peer.recv_line();
    peer.reset();
    let (id, data) = connect.recv_error(502, "connection_lost");
    assert_eq!(id, 1);
    assert_eq!(data["status"], "connection reset");
    server.greeted();
}

#[test]
fn what_comes_while_there_is_no_connection_is_delivered_once() {
    // Nobody else gets the address in between.
    let reserved = Reserved::new();
    let address = reserved.address();
    let server = FakeServer::on(address);
    let mut connect = Connect::start(&IN_HASTE, address);
    let peer = server.greeted();
    drop(server);
    peer.close();
    connect.wait_for_log("lost the connection");
    let lines: Vec<String> = (1..=5)
        .map(|id| request(id, "tools/call", &json!({})))
        .collect();
    for line in &lines {
        connect.send_line(line);
    }
    connect.wait_for_log("no connection to");
    let server = FakeServer::on(address);
    let mut peer = server.greeted();
    for line in &lines {
        assert_eq!(&peer.recv_line(), line);
        assert_eq!(answer(&mut peer, line), connect.recv_line());
    }
    connect.end_input();
    assert_eq!(peer.read_to_end(), [""; 0]);
}

#[test]
fn the_handshake_is_replayed_before_anything_else() {
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.1"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    let params =
        format!(r#"{{ "protocolVersion":"{LEGACY_VERSION}", "capabilities":{{}} , "x":NaN}}"#);
    connect.send_line(&format!(
        r#"{{"method":"initialize",  "id" : "mine", "params":{params}}}"#
    ));
    next_but_heartbeats(&mut peer);
    let result = json!({"protocolVersion": LEGACY_VERSION, "capabilities": {"tools": {}}});
    peer.send_line(&format!(r#"{{"id":"mine","result":{result}}}"#));
    assert_eq!(connect.recv_json()["id"], "mine");
    connect.send_line(INITIALIZED);
    assert_eq!(next_but_heartbeats(&mut peer), INITIALIZED);
    lose(&connect, peer);

    let call = request(1, "tools/call", &json!({}));
    connect.send_line(&call);
    let mut peer = server.greeted();
    let replay = next_but_heartbeats(&mut peer);
    let id = replay
        .strip_prefix(r#"{"method":"initialize",  "id" : "#)
        .and_then(|rest| rest.strip_suffix(&format!(r#", "params":{params}}}"#)))
        .unwrap_or_else(|| panic!("{replay}"))
        .to_owned();
    assert_ne!(id, r#""mine""#);
    // As long as it is not answered nothing else is said.
    for _ in 0..3 {
        let beat = peer.recv_json();
        assert_eq!(beat["type"], "heartbeat", "{beat}");
    }
    // What the server itself says passes meanwhile.
    peer.send_line(r#"{"method":"notifications/hello"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"notifications/hello"}"#);
    let result = json!({"serverInfo": {"name": "other"}, "capabilities": {"tools": {}}, "protocolVersion": LEGACY_VERSION});
    peer.send_line(&format!(r#"{{"id":{id},"result":{result}}}"#));
    let said = [(); 2].map(|()| next_but_heartbeats(&mut peer));
    assert_eq!(said, [INITIALIZED, &call]);
    // The answer to the replay was not for the host.
    assert_eq!(answer(&mut peer, &call), connect.recv_line());
}

#[test]
fn a_server_that_answers_the_handshake_otherwise_is_the_end() {
    for reply in [
        r#""result":{"protocolVersion":"2025-06-18","capabilities":{"prompts":{}}}"#,
        r#""result":{"protocolVersion":"2024-11-05","capabilities":{"tools":{}}}"#,
        r#""error":{"code":-32603,"message":"no"}"#,
    ] {
        let server = FakeServer::start();
        let (mut connect, peer) = initialized(&IN_HASTE, &server);
        lose(&connect, peer);
        connect.send_request(1, "tools/call", &json!({}));
        let mut peer = server.greeted();
        let id = peer.recv_json()["id"].take();
        peer.send_line(&format!(r#"{{"id":{id},{reply}}}"#));
        assert_eq!(connect.recv_error(503, "server_changed").0, 1);
        assert_eq!(connect.read_to_end(), [""; 0]);
        let log = connect.wait_exit(1);
        assert!(
            log.last().unwrap().contains("replayed handshake"),
            "{log:?}"
        );
    }
}

#[test]
fn a_server_that_does_not_answer_the_handshake_is_a_failed_attempt() {
    let server = FakeServer::start();
    let attempts = ["--replay-timeout", "0.2", "--max-reconnect-attempts", "2"];
    let options = [&IN_HASTE[..], &attempts].concat();
    let (mut connect, peer) = initialized(&options, &server);
    lose(&connect, peer);
    connect.send_request(1, "tools/call", &json!({}));
    for _ in 0..2 {
        let mut peer = server.greeted();
        assert_eq!(peer.recv_json()["method"], "initialize");
        assert_eq!(peer.read_to_end(), [""; 0]);
    }
    let (id, data) = connect.recv_error(503, "reconnect_limit");
    assert_eq!((id, &data["delivered"]), (json!(1), &json!(false)));
    connect.wait_exit(1);
}

#[test]
fn a_connection_that_is_lost_during_the_replay_is_made_again() {
    let server = FakeServer::start();
    let (mut connect, peer) = initialized(&IN_HASTE, &server);
    lose(&connect, peer);
    let call = request(1, "tools/call", &json!({}));
    connect.send_line(&call);
    for _ in 0..3 {
        let mut peer = server.greeted();
        assert_eq!(peer.recv_json()["method"], "initialize");
        peer.close();
    }
    let mut peer = server.greeted();
    agree_to_replay(&mut peer);
    assert_eq!(peer.recv_line(), call);
    assert_eq!(answer(&mut peer, &call), connect.recv_line());
}

#[test]
fn questions_who_is_there_are_asked_again() {
    for first in [
        initialize_line(0),
        request(0, "server/discover", &json!({"_meta": {}})),
    ] {
        let server = FakeServer::start();
        let mut connect = Connect::start(&IN_HASTE, server.address());
        connect.send_line(&first);
        for _ in 0..3 {
            let mut peer = server.greeted();
            assert_eq!(peer.recv_line(), first);
            peer.close();
        }
        let mut peer = server.greeted();
        assert_eq!(peer.recv_line(), first);
        let once = answer(&mut peer, &first);
        connect.end_input();
        assert_eq!(peer.read_to_end(), [""; 0]);
        peer.close();
        assert_eq!(connect.read_to_end(), [once]);
        connect.wait_exit(0);
    }
}

/// What the server asked on the lost connection, nobody waits for any more.
#[test]
fn an_answer_to_a_question_of_the_lost_server_is_dropped() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    peer.send_line(r#"{"id":"q","method":"roots/list"}"#);
    connect.recv_line();
    peer.close();
    connect.wait_for_log("lost the connection");
    connect.send_line(r#"{"id":"q","result":{}}"#);
    let call = request(1, "tools/call", &json!({}));
    connect.send_line(&call);
    assert_eq!(server.greeted().recv_line(), call);
}

#[test]
fn a_proxy_that_was_started_again_is_used_as_before() {
    crate::common::skip_on_reference!("waits for ever for its servers when it is stopped");
    let reserved = Reserved::new();
    let port = reserved.address().port().to_string();
    let proxy = Proxy::start(&["--port", &port], &servers::demo());
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    connect.initialize();
    let echo = |text: &str| json!({"name": "echo", "arguments": {"text": text}});
    for id in 1..=3 {
        let answer = connect.request(id, "tools/call", &echo("before"));
        assert_eq!(answer["result"]["content"][0]["text"], "before");
    }
    drop(proxy);
    connect.wait_for_log("no connection to");
    connect.send_request(4, "tools/call", &echo("meanwhile"));
    let _proxy = Proxy::start(&["--port", &port], &servers::demo());
    let answer = connect.recv_json();
    assert_eq!(answer["id"], 4, "{answer}");
    assert_eq!(answer["result"]["content"][0]["text"], "meanwhile");
}

// When it is enough.

#[test]
fn accept_and_close_does_not_go_on_for_ever() {
    let server = FakeServer::start();
    let options = ["--reconnect-delay", "0.02", "--max-reconnect-attempts", "5"];
    let mut connect = Connect::start(&options, server.address());
    connect.send_line(&initialize_line(0));
    connect.send_request(1, "tools/call", &json!({}));
    let connections = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let log = thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                if let Some(mut peer) = server.try_accept() {
                    connections.fetch_add(1, Ordering::Relaxed);
                    assert_handshake(&peer.recv_line());
                    assert_eq!(peer.recv_line(), initialize_line(0));
                    // A sign of life of the proxy is none of the server.
                    peer.send_line(HEARTBEAT_RESPONSE);
                    peer.close();
                }
                thread::yield_now();
            }
        });
        let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The call is lost with the first connection that it gets on, or waits to the end.
            let mut answers = [connect.recv_json(), connect.recv_json()];
            answers.sort_by_key(|answer| answer["id"].as_u64());
            assert_own_error(&answers[0], 503, "reconnect_limit");
            assert_eq!(answers[1]["id"], 1);
            assert!(answers[1]["error"]["code"].is_u64(), "{}", answers[1]);
            assert_eq!(connect.read_to_end(), [""; 0]);
            connect.wait_exit(1)
        }));
        done.store(1, Ordering::Relaxed);
        ends.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(connections.into_inner(), 6, "the first one and five more");
    assert!(
        log.last().unwrap().contains("--max-reconnect-attempts"),
        "{log:?}"
    );
}

#[test]
fn without_a_server_all_that_waits_is_told_and_the_reason_is_said() {
    let reserved = Reserved::new();
    let options = ["--reconnect-delay", "0.02", "--max-reconnect-attempts", "4"];
    let mut connect = Connect::start_configured(&options, reserved.address(), |_| {});
    connect.send_line(&initialize_line(0));
    connect.send_request(1, "tools/call", &json!({}));
    for id in [0, 1] {
        assert_eq!(connect.recv_error(503, "reconnect_limit").0, id);
    }
    assert_eq!(connect.read_to_end(), [""; 0]);
    let log = connect.wait_exit(1);
    assert_eq!(
        log.iter()
            .filter(|line| line.contains("no connection to"))
            .count(),
        5,
        "{log:#?}"
    );
    let last = log.last().unwrap();
    assert!(
        last.contains("--max-reconnect-attempts") && last.contains("refused"),
        "{log:?}"
    );
}

#[test]
fn the_count_begins_anew_when_the_server_answers() {
    let server = FakeServer::start();
    let options = ["--reconnect-delay", "0.02", "--max-reconnect-attempts", "2"];
    let mut connect = Connect::start(&options, server.address());
    for id in 0..6 {
        // One attempt is spent on nothing each time.
        server.greeted().close();
        let mut peer = server.greeted();
        let line = request(id, "tools/call", &json!({}));
        connect.send_line(&line);
        assert_eq!(peer.recv_line(), line);
        assert_eq!(answer(&mut peer, &line), connect.recv_line());
    }
}

#[test]
fn attempts_are_without_end_unless_there_is_a_limit() {
    for limit in [&[][..], &["--max-reconnect-attempts", "0"]] {
        let reserved = Reserved::new();
        let options = [&["--reconnect-delay", "0.01"], limit].concat();
        let mut connect = Connect::start(&options, reserved.address());
        connect.wait_for_logs("no connection to", 60);
        connect.assert_runs();
        reserved.listen(8).greeted();
    }
}

#[test]
fn without_reconnect_the_first_loss_is_the_end() {
    let (server, mut connect, mut peer) = connected(&["--no-reconnect"]);
    connect.send_request(1, "tools/call", &json!({}));
    peer.recv_line();
    peer.close();
    let (id, data) = connect.recv_error(502, "connection_lost");
    assert_eq!(
        (id, &data["status"]),
        (json!(1), &json!("closed by the other side"))
    );
    assert_eq!(connect.read_to_end(), [""; 0]);
    let log = connect.wait_exit(1);
    assert!(log.last().unwrap().contains("is not made again"), "{log:?}");
    assert!(server.try_accept().is_none(), "it connected again");
}

#[test]
fn without_reconnect_a_server_that_is_not_there_is_the_end() {
    let reserved = Reserved::new();
    let mut connect = Connect::start(&["--no-reconnect"], reserved.address());
    // It may have ended before the line is written, which then nobody reads.
    connect.wait_exit(1);
    let reserved_again = Reserved::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(
        &mut writer,
        format!("{}\n", request(1, "m", &json!({}))).as_bytes(),
    )
    .unwrap();
    let mut connect =
        Connect::start_configured(&["--no-reconnect"], reserved_again.address(), |command| {
            command.stdin(reader);
        });
    assert_eq!(connect.recv_error(503, "reconnect_limit").0, 1);
    assert_eq!(connect.read_to_end(), [""; 0]);
    let log = connect.wait_exit(1);
    assert!(log.last().unwrap().contains("refused"), "{log:?}");
}

#[test]
fn a_half_written_line_counts_as_sent() {
    let (server, mut connect, peer) = connected(&IN_HASTE);
    // More than fits on the way, so that the rest of it can't have been sent.
    let input = connect.take_input();
    let long = request(1, "tools/call", &json!("x".repeat(9 << 20)));
    let next = request(2, "tools/call", &json!({}));
    let both = format!("{long}\n{next}\n");
    thread::scope(|scope| {
        scope.spawn(|| crate::common::connect::write_all(input, both.as_bytes()));
        // The first bytes of it have arrived.
        let stream = peer.writer();
        stream
            .set_read_timeout(Some(crate::common::DEADLINE))
            .unwrap();
        assert!(stream.peek(&mut [0; 1]).unwrap() > 0);
        drop(stream);
        peer.reset();
        assert_eq!(connect.recv_error(502, "connection_lost").0, 1);
        let mut peer = server.greeted();
        assert_eq!(peer.recv_line(), next);
        assert_eq!(
            peer.try_recv(std::time::Duration::ZERO),
            Err(NoLine::Deadline)
        );
    });
}

#[test]
fn what_a_stopping_proxy_refuses_is_served_by_the_next_one() {
    let server = FakeServer::start();
    let (mut connect, mut peer) = initialized(&IN_HASTE, &server);
    for id in [1, 2] {
        connect.send_request(id, "tools/call", &json!({}));
        peer.recv_line();
    }
    peer.send_line(
        r#"{"jsonrpc":"2.0","id":2,"error":{"code":503,"message":"x","data":{"source":"mcp-tcp-proxy","reason":"shutdown","delivered":false}}}"#,
    );
    let note = r#"{"method":"note"}"#;
    peer.send_line(note);
    assert_eq!(connect.recv_line(), note, "the refusal is not passed on");
    // Nothing new goes there any more, and what is in flight gets its answer.
    connect.send_request(3, "tools/call", &json!({}));
    peer.send_line(r#"{"id":1,"result":{}}"#);
    assert_eq!(connect.recv_json()["id"], 1);
    assert_eq!(peer.read_to_end(), [""; 0]);
    let mut peer = server.greeted();
    agree_to_replay(&mut peer);
    for id in [2, 3] {
        let line = peer.recv_line();
        assert_eq!(line, request(id, "tools/call", &json!({})));
        assert_eq!(answer(&mut peer, &line), connect.recv_line());
    }
}

#[test]
fn what_is_taken_back_while_there_is_no_connection_is_never_sent() {
    let (server, mut connect, peer) = connected(&IN_HASTE);
    lose(&connect, peer);
    let [given_up, call] = [1, 2].map(|id| request(id, "tools/call", &json!({})));
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    connect.send_raw(format!("{given_up}\n{cancelled}\n{call}\n").as_bytes());
    let mut peer = server.greeted();
    assert_eq!(peer.recv_line(), call);
    assert_eq!(answer(&mut peer, &call), connect.recv_line());
}
