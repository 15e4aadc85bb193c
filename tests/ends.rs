//! Ends that are chosen, by a client or by whoever stops the proxy: what is no work is not waited for, what is work has
//! its time, and nobody is left without an answer.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::{Duration, Instant};

use common::processes::wait_until_dead;
use common::{Connect, DEADLINE, Proxy, Scratch, servers};
use nix::sys::signal::Signal;

/// Less than anything that is waited out takes.
const PROMPTLY: Duration = Duration::from_secs(10);

const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"s-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
const CLOSED: &str = r#"{"jsonrpc":"2.0","id":"s-1","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"s-1"}}}"#;

// Subscriptions.

#[test]
fn a_half_close_ends_subscriptions_at_once() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_line(LISTEN);
    let began = Instant::now();
    client.shutdown_write();
    assert_eq!(client.read_to_end(), [CLOSED]);
    wait_until_dead(server);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    let got = scratch.read(&format!("got.{server}"));
    let cancelled = r#""method":"notifications/cancelled","params":{"requestId":"s-1""#;
    assert!(got.contains(cancelled), "{got}");
}

#[test]
fn a_stop_ends_subscriptions_at_once() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_line(LISTEN);
    scratch.wait_for_lines(server, 2);
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.recv_line(), CLOSED);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

#[test]
fn a_subscription_alone_does_not_keep_a_session() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--idle-timeout", "0.3"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.pid_of_server();
    client.send_line(LISTEN);
    assert_eq!(client.read_to_end(), [CLOSED]);
    proxy.wait_for_log("idle_timeout");
}

#[test]
fn the_end_of_stdin_ends_subscriptions_at_both_ends() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut connect = Connect::start(&[], proxy.address());
    let server = scratch.wait_for_server(1);
    connect.send_line(LISTEN);
    scratch.wait_for_lines(server, 1);
    let began = Instant::now();
    connect.end_input();
    assert_eq!(connect.read_to_end(), [CLOSED]);
    connect.wait_exit(0);
    wait_until_dead(server);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}
