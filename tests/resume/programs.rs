//! `connect` and the proxy, with something between them or to one of them.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::connect::IN_HASTE;
use crate::common::processes::{send_signal, wait_until_stopped};
use crate::common::servers::{demo, mirror};
use crate::common::{Connect, Proxy};

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
fn a_proxy_that_is_started_anew_knows_nothing_of_a_session() {
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
    connect.wait_exit(0);
    second.wait_until_childless();
}
