//! What is said on a connection, what passes, and how much is kept when one side takes nothing.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::connect::{
    HEARTBEAT_RESPONSE, IN_HASTE, Reserved, assert_handshake, connected, request, write_all,
};
use crate::common::{Connect, DEADLINE, FakeServer, Proxy, eventually, processes, servers};

/// Lines that a rewrite would change.
const ODD_LINES: [&str; 7] = [
    r#"{ "jsonrpc" :"2.0",  "method":"notifications/odd" , "params" : { "a" : 1.50 } }"#,
    r#"{"method":"notifications/nan","params":[NaN,Infinity,-Infinity]}"#,
    r#"{"method":"notifications/ü","params":{"é":"\u00e9","emoji":"🦀","escaped":"\ud83e\udd80"}}"#,
    r#"{"b":1,"a":2,"b":3,"method":"notifications/duplicate"}"#,
    r#"{"method":"notifications/large","params":[1e400,123456789012345678901234567890]}"#,
    r#"[{"method":"notifications/batch"},{"method":"notifications/batch"}]"#,
    "\t{\"method\":\"notifications/blank\"}  ",
];

#[test]
fn the_handshake_comes_first_and_then_a_heartbeat_every_interval() {
    let server = FakeServer::start();
    let start = Instant::now();
    let _connect = Connect::start(&["--heartbeat-interval", "0.1"], server.address());
    let mut peer = server.accept();
    assert_handshake(&peer.recv_line());
    for count in 1..=3 {
        let beat = peer.recv_json();
        assert_eq!(beat["type"], "heartbeat", "{beat}");
        assert!(beat["timestamp"].as_f64().unwrap() > 1e9, "{beat}");
        assert_eq!(beat.as_object().unwrap().len(), 2, "{beat}");
        assert!(start.elapsed() >= Duration::from_millis(100) * count);
    }
}

#[test]
fn lines_about_the_connection_never_reach_stdout() {
    let (_server, mut connect, mut peer) = connected(&["--debug"]);
    peer.send_line(HEARTBEAT_RESPONSE);
    peer.send_line(r#"{"mcp_alive":false,"timestamp":2, "type" : "heartbeat_response"}"#);
    peer.send_line(r#"{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","params":{"timestamp":1,"reason":"process_terminated"}}"#);
    peer.send_line(r#"{"method":"notifications/last"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"notifications/last"}"#);
    connect.wait_for_log("the server was restarted");
}

#[test]
fn everything_else_passes_as_it_is() {
    let (_server, mut connect, mut peer) = connected(&[]);
    for line in ODD_LINES {
        connect.send_line(line);
        assert_eq!(peer.recv_line(), line);
        peer.send_line(line);
        assert_eq!(connect.recv_line(), line);
    }
    // What a Windows program ends a line with is not a part of the line; empty lines are nothing.
    connect.send_raw(b"\r\n\n{\"method\":\"m\"}\r\n");
    assert_eq!(peer.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn a_line_in_small_pieces_is_one_line() {
    let (_server, mut connect, mut peer) = connected(&[]);
    let line = request(1, "tools/call", &json!({"text": "äöü"}));
    for byte in format!("{line}\n").bytes() {
        connect.send_raw(&[byte]);
    }
    assert_eq!(peer.recv_line(), line);
}

#[test]
fn what_is_no_message_is_refused_and_goes_nowhere() {
    let (_server, mut connect, mut peer) = connected(&["--max-message-bytes", "100"]);
    connect.send_line("nonsense");
    connect.recv_error(-32700, "parse_error");
    connect.send_line(&request(7, "m", &json!("x".repeat(100))));
    assert_eq!(connect.recv_error(-32600, "too_large").0, 7);
    connect.send_line(r#"{"method":"m"}"#);
    assert_eq!(peer.recv_line(), r#"{"method":"m"}"#);
    peer.send_line("nonsense");
    peer.send_line(r#"{"method":"n"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"n"}"#);
    connect.wait_for_log("nonsense");
}

#[test]
fn long_lines_pass_both_ways() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut connect = Connect::start(&[], proxy.address());
    let line = format!(
        r#"{{"method":"notifications/long","params":"{}"}}"#,
        "ä5".repeat(5 << 20).split_at(5 << 20).0
    );
    let input = connect.take_input();
    thread::scope(|scope| {
        scope.spawn(|| write_all(input, format!("{line}\n{line}\n").as_bytes()));
        for _ in 0..2 {
            assert!(
                connect.recv_line_within(3 * DEADLINE) == line,
                "the line was changed"
            );
        }
    });
}

#[test]
fn a_server_that_starts_late_is_waited_for() {
    let reserved = Reserved::new();
    let options = ["--debug", "--reconnect-delay", "0.3"];
    let mut connect = Connect::start(&options, reserved.address());
    let first = request(1, "first", &json!({}));
    connect.send_line(&first);
    let delays = connect.wait_for_logs("next attempt in", 4);
    for (line, delay) in delays
        .iter()
        .zip(["0.100 s", "0.200 s", "0.300 s", "0.300 s"])
    {
        assert!(line.contains(delay), "{delays:#?}");
    }
    let server = reserved.listen(8);
    let mut peer = server.greeted();
    assert_eq!(peer.recv_line(), first);
    peer.send_line(r#"{"id":1,"result":{}}"#);
    assert_eq!(connect.recv_line(), r#"{"id":1,"result":{}}"#);
}

#[test]
fn a_real_proxy_and_server_are_used_as_if_local() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    assert!(connect.initialize()["result"]["serverInfo"]["name"].is_string());
    let answer = connect.request(
        1,
        "tools/call",
        &json!({"name": "add", "arguments": {"a": 2, "b": 40}}),
    );
    assert_eq!(answer["result"]["content"][0]["text"], "42");
    connect.end_input();
    assert_eq!(connect.read_to_end(), [""; 0]);
    assert_eq!(connect.wait_exit(0), [""; 0], "nothing to warn of");
    proxy.wait_until_childless();
}

/// A crash behind the proxy is the proxy's to mend, and no loss of the connection.
#[test]
fn a_server_that_crashes_behind_the_proxy_is_not_noticed() {
    crate::common::skip_on_reference!("closes the session instead of restarting the server");
    let proxy = Proxy::start(&[], &servers::demo());
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    connect.initialize();
    connect.send_request(1, "tools/call", &json!({"name": "crash", "arguments": {}}));
    assert_eq!(connect.recv_error(502, "process_terminated").0, 1);
    let echo = json!({"name": "echo", "arguments": {"text": "still there"}});
    let answer = connect.request(2, "tools/call", &echo);
    assert_eq!(answer["result"]["content"][0]["text"], "still there");
    assert_eq!(connect.count_logs("lost the connection"), 0);
}

// Back-pressure.

/// What is sent in all, to someone who takes nothing at first: more than all buffers on the way hold together.
const FLOOD_LINES: usize = 48 * 1024;

/// What connect may come to use beyond what it used before, in KiB; far less than the flood.
const FLOOD_GROWTH_KIB: u64 = 8 * 1024;

fn flood_line(number: usize) -> String {
    format!(
        r#"{{"method":"flood","params":[{number},"{}"]}}"#,
        "x".repeat(1024)
    )
}

/// Waits until the flood stands still, which it must do before its end.
#[track_caller]
pub(crate) fn wait_for_standstill(sent: &AtomicUsize, total: usize) {
    const SAME_LOOKS: u32 = 80;
    let (mut before, mut same) = (0, 0);
    eventually("the flood to stand still", DEADLINE, || {
        let now = sent.load(Ordering::Relaxed);
        assert!(now < total, "all was taken");
        same = if now == before && now > 0 {
            same + 1
        } else {
            0
        };
        before = now;
        same >= SAME_LOOKS
    });
}

#[test]
fn a_host_that_does_not_read_is_not_read_ahead_for() {
    let (_server, mut connect, peer) = connected(&[]);
    let before = processes::rss_kib(connect.pid());
    let sent = AtomicUsize::new(0);
    let mut writer = peer.writer();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..FLOOD_LINES {
                writer
                    .write_all(format!("{}\n", flood_line(number)).as_bytes())
                    .unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_for_standstill(&sent, FLOOD_LINES);
        let grown = processes::peak_rss_kib(connect.pid()).saturating_sub(before);
        assert!(grown < FLOOD_GROWTH_KIB, "{grown} KiB");
        for number in 0..FLOOD_LINES {
            assert_eq!(connect.recv_line(), flood_line(number));
        }
    });
}

#[test]
fn a_server_that_does_not_read_is_not_read_ahead_for() {
    // A heartbeat between the lines is not what is looked at.
    let (_server, mut connect, mut peer) = connected(&["--heartbeat-interval", "3600"]);
    let before = processes::rss_kib(connect.pid());
    let sent = AtomicUsize::new(0);
    let input = connect.take_input();
    thread::scope(|scope| {
        scope.spawn(|| {
            let input = &input;
            for number in 0..FLOOD_LINES {
                write_all(input, format!("{}\n", flood_line(number)).as_bytes());
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_for_standstill(&sent, FLOOD_LINES);
        let grown = processes::peak_rss_kib(connect.pid()).saturating_sub(before);
        assert!(grown < FLOOD_GROWTH_KIB, "{grown} KiB");
        for number in 0..FLOOD_LINES {
            assert_eq!(peer.recv_line(), flood_line(number));
        }
    });
}

#[test]
fn idle_it_uses_little_memory() {
    const LIMIT_KIB: u64 = 3 * 1024;
    let proxy = Proxy::start(&[], &servers::demo());
    let mut connect = Connect::start(&[], proxy.address());
    connect.initialize();
    connect.request(1, "ping", &json!({}));
    let rss = processes::rss_kib(connect.pid());
    eprintln!("an idle connect uses {rss} KiB");
    assert!(cfg!(debug_assertions) || rss < LIMIT_KIB, "{rss} KiB");
}
