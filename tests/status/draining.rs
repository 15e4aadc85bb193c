//! The way to the end: first nobody new is welcome, then nobody new is served.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{DEADLINE, eventually, servers};
use crate::{get, start};

/// Within this time a signal counts as an echo of the one before it.
const ECHO_TIME: Duration = Duration::from_millis(500);

#[test]
fn new_sessions_are_served_until_the_delay_is_over() {
    let options = ["--drain-delay", "86400"];
    let (mut proxy, asked) = start(&options, &servers::mirror());
    let mut old = proxy.connect();
    old.send_line("[1]");
    assert_eq!(old.recv_line(), "[1]");
    proxy.signal(Signal::SIGTERM);
    eventually("the proxy to say that it is not ready", DEADLINE, || {
        get(asked, "/readyz").status == 503
    });
    let body = get(asked, "/readyz").body;
    assert!(body.starts_with("not ready\ndraining: "), "{body}");
    assert_eq!(get(asked, "/healthz").status, 200);
    let mut new = proxy.connect();
    for client in [&mut new, &mut old] {
        client.send_line("[2]");
        assert_eq!(client.recv_line(), "[2]");
    }
    // Another signal ends the delay, and sessions come to their ends in good order. It is sent once, as one more would
    // kill the servers, and is no echo of the first, which was heeded before the proxy said that it is not ready.
    thread::sleep(ECHO_TIME);
    proxy.signal(Signal::SIGTERM);
    let log = proxy.wait_for_log("shutting down; ");
    assert!(log.contains("2 sessions are open"), "{log}");
    new.read_to_end();
    old.read_to_end();
    assert_eq!(proxy.wait_exit(2 * DEADLINE).code(), Some(0));
}

#[test]
fn the_delay_ends_by_itself() {
    let (mut proxy, _) = start(&["--drain-delay", "0.05"], &servers::mirror());
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    let line = proxy.wait_for_log("--drain-delay");
    assert!(line.contains("0.05 s"), "{line}");
}

#[test]
fn a_proxy_that_stops_says_so_to_the_end() {
    let server = servers::sh("trap '' TERM; while :; do sleep 1; done");
    let (mut proxy, asked) = start(&[], &server);
    let client = proxy.connect();
    proxy.only_server();
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down; ");
    let answer = get(asked, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("shutdown: "), "{}", answer.body);
    drop(client);
    proxy.signal_until_exit(Signal::SIGTERM, 2 * DEADLINE);
}
