//! How it ends: with stdin, with stdout, by a signal.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::connect::{BYE, IN_HASTE, Reserved, connected, initialize_line, request};
use crate::common::{Connect, DEADLINE, FakeServer, NoLine, Proxy, eventually, servers};

/// What is waited for the other side to end its own: what does not end by itself at once ends no earlier than this.
const PROMPTLY: Duration = Duration::from_secs(10);

#[test]
fn the_end_of_stdin_is_passed_on_and_what_still_comes_is_delivered() {
    let (_server, mut connect, mut peer) = connected(&[]);
    connect.send_line(r#"{"method":"last"}"#);
    connect.end_input();
    assert_eq!(peer.read_to_end(), [r#"{"method":"last"}"#, BYE]);
    for line in [r#"{"method":"one"}"#, r#"{"method":"two"}"#] {
        peer.send_line(line);
        assert_eq!(connect.recv_line(), line);
    }
    peer.send_raw(br#"{"method":"without a line end"}"#);
    peer.close();
    assert_eq!(
        connect.read_to_end(),
        [r#"{"method":"without a line end"}"#]
    );
    assert_eq!(connect.wait_exit(0), [""; 0]);
}

#[test]
fn a_last_line_without_a_line_end_is_a_line() {
    let (_server, mut connect, mut peer) = connected(&[]);
    connect.send_raw(br#"{"method":"last"}"#);
    connect.end_input();
    assert_eq!(peer.recv_line(), r#"{"method":"last"}"#);
    peer.close();
    connect.wait_exit(0);
}

#[test]
fn the_answer_of_a_slow_tool_is_waited_for() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    connect.initialize();
    connect.send_request(
        1,
        "tools/call",
        &json!({"name": "sleep", "arguments": {"seconds": 0.5}}),
    );
    connect.end_input();
    assert_eq!(connect.recv_json()["id"], 1);
    assert_eq!(connect.read_to_end(), [""; 0]);
    assert_eq!(connect.wait_exit(0), [""; 0]);
    proxy.wait_until_childless();
}

#[test]
fn what_was_sent_before_the_end_is_served_although_the_server_starts_late() {
    let reserved = Reserved::new();
    let mut connect = Connect::start(&IN_HASTE, reserved.address());
    connect.send_line(&request(1, "m", &json!({})));
    connect.end_input();
    connect.wait_for_log("no connection to");
    let server = reserved.listen(8);
    let mut peer = server.greeted();
    assert_eq!(peer.recv_json()["id"], 1);
    peer.send_line(r#"{"id":1,"result":{}}"#);
    assert_eq!(peer.read_to_end(), [""; 0]);
    peer.close();
    assert_eq!(connect.read_to_end(), [r#"{"id":1,"result":{}}"#]);
    connect.wait_exit(0);
}

#[test]
fn with_nothing_to_be_served_the_end_of_stdin_is_the_end_also_without_a_server() {
    let reserved = Reserved::new();
    let mut connect = Connect::start(&[], reserved.address());
    connect.wait_for_log("no connection to");
    let start = Instant::now();
    connect.end_input();
    connect.wait_exit(0);
    assert!(start.elapsed() < PROMPTLY);
}

/// No one is left who would want to connect again.
#[test]
fn a_connection_lost_after_the_end_of_stdin_is_not_made_again() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    connect.end_input();
    peer.read_to_end();
    peer.reset();
    connect.wait_exit(0);
    assert!(server.try_accept().is_none());
}

/// Heartbeats come due after the end of our side too, where they can't be sent any more.
#[test]
fn a_peer_that_takes_its_time_to_end_its_side_is_waited_for() {
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.02"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    connect.end_input();
    for line in peer.read_to_end() {
        assert!(line.contains(r#""type":"heartbeat""#), "{line}");
    }
    // Many of its intervals, at the pace of a server that thinks.
    for number in 0..10 {
        let line = format!(r#"{{"method":"thought","params":[{number}]}}"#);
        std::thread::sleep(Duration::from_millis(20));
        peer.send_line(&line);
        assert_eq!(connect.recv_line(), line);
    }
    peer.close();
    connect.wait_exit(0);
    assert!(server.try_accept().is_none(), "it connected again");
}

#[test]
fn a_closed_stdout_is_the_end_although_nothing_is_to_be_written() {
    let (_server, mut connect, mut peer) = connected(&[]);
    connect.close_output();
    connect.wait_exit(0);
    peer.read_to_end();
}

#[test]
fn a_closed_stdout_is_the_end_with_requests_in_flight_and_while_reconnecting() {
    let (_server, mut connect, mut peer) = connected(&[]);
    connect.send_request(1, "m", &json!({}));
    peer.recv_line();
    connect.close_output();
    connect.wait_exit(0);

    let reserved = Reserved::new();
    let mut connect = Connect::start(&[], reserved.address());
    connect.wait_for_log("no connection to");
    connect.close_output();
    connect.wait_exit(0);
}

#[test]
fn a_signal_ends_it_in_good_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_server, mut connect, mut peer) = connected(&[]);
        let start = Instant::now();
        connect.signal(signal);
        assert_eq!(connect.wait_exit(0), [""; 0]);
        assert!(start.elapsed() < PROMPTLY);
        assert_eq!(peer.read_to_end(), [BYE]);
    }
}

#[test]
fn a_signal_with_requests_in_flight_tells_the_host() {
    let (_server, mut connect, mut peer) = connected(&[]);
    for id in 1..=2 {
        connect.send_request(id, "m", &json!({}));
        peer.recv_line();
    }
    let start = Instant::now();
    connect.signal(Signal::SIGTERM);
    for id in 1..=2 {
        assert_eq!(connect.recv_error(503, "shutdown").0, id);
    }
    assert_eq!(connect.read_to_end(), [""; 0]);
    connect.wait_exit(0);
    assert!(start.elapsed() < PROMPTLY);
}

#[test]
fn a_signal_while_reconnecting_ends_it() {
    let reserved = Reserved::new();
    let mut connect = Connect::start(&["--reconnect-delay", "60"], reserved.address());
    connect.send_line(&initialize_line(0));
    connect.wait_for_log("no connection to");
    connect.signal(Signal::SIGTERM);
    assert_eq!(connect.recv_error(503, "shutdown").0, 0);
    connect.wait_exit(0);
}

#[test]
fn signals_that_ask_for_something_else_do_not_end_it() {
    let (_server, mut connect, mut peer) = connected(&["--debug"]);
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        connect.signal(signal);
        connect.wait_for_log(&format!("{signal} is ignored"));
    }
    peer.send_line("[1]");
    assert_eq!(connect.recv_line(), "[1]");
    connect.signal(Signal::SIGQUIT);
    connect.wait_exit(0);
}

/// Nobody reads, so the lines that are due can't be delivered: the second signal, or a second, is enough.
#[test]
fn a_signal_ends_it_although_the_host_does_not_read() {
    let (_server, mut connect, mut peer) = connected(&[]);
    let line = format!(r#"{{"method":"{}"}}"#, "x".repeat(200 * 1024));
    peer.send_line(&line);
    // It has begun to write once there is something to read.
    eventually("something on stdout", DEADLINE, || connect.has_output());
    let start = Instant::now();
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
    assert!(start.elapsed() < PROMPTLY);
    assert!(matches!(
        peer.try_recv(DEADLINE),
        Err(NoLine::End { .. } | NoLine::Reset)
    ));
}

/// The other side has ten seconds to end its own; a signal in that time has its one second all the same.
#[test]
fn a_signal_after_the_end_of_stdin_does_not_wait_for_the_other_side() {
    let (server, mut connect, mut peer) = connected(&[]);
    connect.send_line(r#"{"method":"last"}"#);
    connect.end_input();
    assert_eq!(peer.read_to_end(), [r#"{"method":"last"}"#, BYE]);
    connect.assert_runs();
    let start = Instant::now();
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
    assert!(start.elapsed() < PROMPTLY);

    // What the host has not read yet is no reason either, as nobody knows whether it ever will.
    let mut connect = Connect::start(&[], server.address());
    let mut peer = server.greeted();
    connect.end_input();
    peer.read_to_end();
    peer.send_line(&format!(r#"{{"method":"{}"}}"#, "x".repeat(200 * 1024)));
    eventually("something on stdout", DEADLINE, || connect.has_output());
    let start = Instant::now();
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
    assert!(start.elapsed() < PROMPTLY);
}

/// The second after a signal is for what is left; a host that reads in that time gets it, in whatever order the other side
/// and the host end.
#[test]
fn what_was_said_before_a_signal_is_delivered_to_a_host_that_reads() {
    const ATTEMPTS: usize = 20;
    let line = format!("{{\"method\":\"{}\"}}\n", "x".repeat(100 * 1024));
    let is_delivered = || {
        let (_server, mut connect, mut peer) = connected(&[]);
        connect.send_line(r#"{"method":"last"}"#);
        connect.end_input();
        assert_eq!(peer.read_to_end(), [r#"{"method":"last"}"#, BYE]);
        peer.send_raw(line.as_bytes());
        eventually("something on stdout", DEADLINE, || connect.has_output());
        connect.signal(Signal::SIGTERM);
        let got = connect.rest_of_output();
        connect.wait_exit(0);
        assert!(line.as_bytes().starts_with(&got), "something else came");
        got.len() == line.len()
    };
    // On a busy machine, this host does not always read in that time.
    let is_delivered = (0..ATTEMPTS).any(|_| is_delivered());
    assert!(is_delivered, "in {ATTEMPTS} attempts");
}
