//! Lines that stay between client and proxy: the heartbeat protocol.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::common::processes::{Process, voluntary_switches};
use crate::common::{Client, DEADLINE, NoLine, Proxy, eventually, servers};
use crate::expect_nothing_before_marker;

const HANDSHAKE: &str = r#"{"type":"handshake"}"#;

/// Lines that the proxy consumes, each of which marks a client as heartbeat-capable.
const CONTROL_LINES: &[&str] = &[
    r#"{"type":"heartbeat"}"#,
    r#"{"type":"heartbeat","timestamp":1700000000.5}"#,
    r#"{"type":"handshake","client":"x","version":[1]}"#,
    r#"  { "b":1 , "type" : "heartbeat" }  "#,
    r#"{"\u0074ype":"hand\u0073hake"}"#,
    r#"{"type":5,"type":"heartbeat"}"#,
    r#"{"type":"other","type":"handshake"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"m","type":"heartbeat"}"#,
    r#"{"type":"heartbeat","timestamp":NaN}"#,
];

/// Lines that are none of the proxy's business.
const FORWARDED_LINES: &[&str] = &[
    r#"{"type":"heartbeat_response"}"#,
    r#"{"type":"Heartbeat"}"#,
    r#"{"type":"heartbeat "}"#,
    r#"{"Type":"heartbeat"}"#,
    r#"{"type":""}"#,
    r#"{"type":null}"#,
    r#"{"type":5}"#,
    r#"{"type":true}"#,
    r#"{"type":["heartbeat"]}"#,
    r#"{"type":{"type":"heartbeat"}}"#,
    r#"{"type":"heartbeat","type":5}"#,
    r#"{"type":"heartbeat","type":null}"#,
    r#"{"type":"heartbeat","type":"ping"}"#,
    r#"{"params":{"type":"heartbeat"}}"#,
    r#"[{"type":"heartbeat"}]"#,
    r#"["type","heartbeat"]"#,
    r#"{"type":"\ud800"}"#,
];

fn is_heartbeat(line: &str) -> bool {
    line.starts_with(r#"{"type":"heartbeat_response","#)
}

/// The `timestamp` in a heartbeat of the exact shape.
#[track_caller]
fn timestamp_of(heartbeat: &str) -> f64 {
    let rest = heartbeat.strip_prefix(r#"{"type":"heartbeat_response","timestamp":"#);
    let number = rest.and_then(|rest| rest.strip_suffix(r#","mcp_alive":true}"#));
    let number = number.unwrap_or_else(|| panic!("of another shape: {heartbeat}"));
    let decimal = number
        .chars()
        .all(|letter| letter.is_ascii_digit() || letter == '.');
    assert!(decimal && number.contains('.'), "{heartbeat}");
    number.parse().unwrap()
}

fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

#[track_caller]
fn next_heartbeat(client: &mut Client) -> String {
    let line = client.recv_line();
    assert!(is_heartbeat(&line), "{line}");
    line
}

#[test]
fn control_lines_are_not_forwarded() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for line in CONTROL_LINES {
        client.send_line(line);
        expect_nothing_before_marker(&mut client);
    }
}

#[test]
fn control_lines_enable_heartbeats() {
    let proxy = Proxy::start(&["--heartbeat-interval", "0.1"], &servers::mirror());
    let clients = CONTROL_LINES.iter().map(|line| {
        let mut client = proxy.connect();
        client.send_line(line);
        client
    });
    for mut client in clients.collect::<Vec<_>>() {
        next_heartbeat(&mut client);
    }
}

#[test]
fn other_types_are_forwarded_and_enable_nothing() {
    let proxy = Proxy::start(&["--heartbeat-interval", "0.05"], &servers::mirror());
    let mut client = proxy.connect();
    for line in FORWARDED_LINES {
        client.send_line(line);
        assert_eq!(client.recv_line(), *line);
    }
    // The other session began later: when it has had three heartbeats, this one would have had two at least.
    let mut capable = proxy.connect();
    capable.send_line(HANDSHAKE);
    for _ in 0..3 {
        next_heartbeat(&mut capable);
    }
    expect_nothing_before_marker(&mut client);
}

#[test]
fn heartbeats_have_the_exact_shape_and_are_never_early() {
    const INTERVAL: f64 = 0.1;
    let proxy = Proxy::start(&["--heartbeat-interval", "0.1"], &servers::mirror());
    let began_after = unix_time();
    let mut client = proxy.connect();
    client.send_line(HANDSHAKE);
    for number in 1..=5_u32 {
        let timestamp = timestamp_of(&next_heartbeat(&mut client));
        let earliest = began_after + INTERVAL * f64::from(number);
        // A millisecond for clocks that are being adjusted.
        assert!(timestamp > earliest - 0.001, "{timestamp} < {earliest}");
        assert!(timestamp <= unix_time() + 0.001);
    }
}

#[test]
fn the_phase_is_that_of_the_session_and_not_of_the_announcement() {
    let interval = Duration::from_millis(500);
    let proxy = Proxy::start(&["--heartbeat-interval", "0.5"], &servers::mirror());
    // The second session begins a fifth of an interval after the first one. Announced at a heartbeat of the first, it
    // has to get its own that much later, and not an interval later. On a busy machine it may be late: try again.
    eventually("a heartbeat in the session's phase", 3 * DEADLINE, || {
        let mut first = proxy.connect();
        first.send_line(HANDSHAKE);
        if first.try_recv(interval / 5) != Err(NoLine::Deadline) {
            return false;
        }
        let mut second = proxy.connect();
        next_heartbeat(&mut first);
        let announced = Instant::now();
        second.send_line(HANDSHAKE);
        next_heartbeat(&mut second);
        announced.elapsed() < interval / 2
    });
}

#[test]
fn there_is_one_warning_per_silence() {
    let proxy = Proxy::start(&["--heartbeat-interval", "0.1"], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line(HANDSHAKE);
    let warning = proxy.wait_for_log("silent for ");
    assert!(
        warning.contains("WARN") && warning.contains("[session 1 "),
        "{warning}"
    );
    for silence in 1..3 {
        for _ in 0..6 {
            next_heartbeat(&mut client);
        }
        // What a marker sends back is sent after the heartbeats, so the log is complete up to here.
        assert_eq!(proxy.wait_for_logs("silent for ", silence).len(), silence);
        // Any byte is a sign of life, also one that completes nothing.
        client.send_raw(b" ");
        proxy.wait_for_logs("silent for ", silence + 1);
    }
}

#[test]
fn a_client_that_announced_nothing_may_be_silent() {
    let proxy = Proxy::start(&["--heartbeat-interval", "0.05"], &servers::mirror());
    let quiet = proxy.connect();
    // Of two at once, the one that speaks is the first.
    proxy.wait_for_log("[session 1 ");
    let mut announced = proxy.connect();
    announced.send_line(HANDSHAKE);
    let warning = proxy.wait_for_log("silent for ");
    for _ in 0..5 {
        next_heartbeat(&mut announced);
    }
    assert!(warning.contains("[session 2 "), "{warning}");
    assert_eq!(proxy.wait_for_logs("silent for ", 1).len(), 1);
    quiet.close();
}

#[test]
fn the_clock_of_silence_stands_while_the_client_is_not_read() {
    let proxy = Proxy::start(
        // Nothing is said for three seconds, on a machine that stalls, before the proxy stops reading.
        &["--heartbeat-interval", "2"],
        // Never reads.
        &servers::sh("exec sleep 1000"),
    );
    let mut client = proxy.connect();
    client.send_line(HANDSHAKE);
    // More than the proxy and the pipe hold, and less than all that and the sockets.
    let line = json!({"method": "m", "params": "x".repeat(1_000)});
    for _ in 0..300 {
        client.send_json(&line);
    }
    for _ in 0..4 {
        next_heartbeat(&mut client);
    }
    let log = proxy.log();
    assert!(!log.iter().any(|line| line.contains("silent for ")));
}

#[test]
fn one_heartbeat_at_most_waits_for_a_client_that_does_not_read() {
    const MESSAGES: u32 = 40_000;
    // 12 MB: more than sockets and pipes hold. The shell is replaced, so that the server is the one who writes.
    let flood = format!(
        r#"exec awk 'BEGIN {{ for (i = 0; i < {MESSAGES}; i++) printf "{{\"method\":\"count\",\"params\":[%d,\"%0300d\"]}}\n", i, 0; system("exec cat") }}'"#
    );
    let proxy = Proxy::start(&["--heartbeat-interval", "0.05"], &servers::sh(&flood));
    let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
    let server = proxy.only_server();
    let mut observer = proxy.connect();
    // The observer's own flood has to be taken, or its heartbeats would wait, too.
    for _ in 0..MESSAGES {
        observer.recv_line();
    }
    observer.send_line(HANDSHAKE);
    // The server has nothing to do but to write: when it sleeps, and goes on sleeping while the proxy serves the other,
    // no one takes what it writes.
    let (mut before, mut asleep) = (0, 0);
    while asleep < 20 {
        observer.send_line("[]");
        while is_heartbeat(&observer.recv_line()) {}
        let switches = voluntary_switches(server);
        let sleeps = Process::find(server).unwrap().state == 'S' && switches == before;
        before = switches;
        asleep = if sleeps { asleep + 1 } else { 0 };
    }
    client.send_line(HANDSHAKE);
    for _ in 0..40 {
        next_heartbeat(&mut observer);
    }
    let reading_since = unix_time();
    let (mut messages, mut waited) = (0, 0);
    while messages < MESSAGES {
        let line = client.recv_line();
        if is_heartbeat(&line) {
            waited += u32::from(timestamp_of(&line) < reading_since);
        } else {
            assert!(line.starts_with(&format!("{{\"method\":\"count\",\"params\":[{messages},")));
            messages += 1;
        }
    }
    assert_eq!(waited, 1);
    // And they go on.
    next_heartbeat(&mut client);
}
