//! `--spawn lazy`: a server is started when there is something for it.

use std::net::TcpStream;

use serde_json::json;

use super::{HEARTBEAT, expect_end};
use crate::common::{Proxy, Scratch, processes, servers, skip_on_reference};

const LAZY: [&str; 2] = ["--spawn", "lazy"];

#[test]
fn the_first_message_starts_the_server() {
    skip_on_reference!("starts servers at once");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&LAZY, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let server = client.pid_of_server();
    assert_eq!(scratch.servers(), [server]);
    let line = proxy.wait_for_log("] opened");
    assert!(
        line.contains("[session 1 ") && line.contains(&format!(" pid {server}]")),
        "{line}"
    );
}

#[test]
fn connections_that_say_nothing_start_nothing() {
    const SCANS: usize = 50;
    skip_on_reference!("starts servers at once");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&LAZY, &servers::scripted(&scratch));
    // Connects and goes, in an orderly way or not, like those who look which ports are open.
    for number in 0..SCANS {
        if number % 2 == 0 {
            drop(TcpStream::connect(proxy.address()).unwrap());
        } else {
            proxy.connect().reset();
        }
    }
    let ends = proxy.wait_for_logs(" closed: ", SCANS);
    assert!(ends.iter().all(|line| !line.contains(" pid ")), "{ends:?}");
    // The one that is started is for whoever has something to say.
    let server = proxy.connect().pid_of_server();
    assert_eq!(scratch.servers(), [server]);
}

#[test]
fn lines_for_the_proxy_start_nothing() {
    skip_on_reference!("starts servers at once");
    let scratch = Scratch::new();
    let options = [&LAZY[..], &["--heartbeat-interval", "0.05"]].concat();
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.send_line(r#"{"type":"handshake","client_version":"1"}"#);
    client.send_line(HEARTBEAT);
    client.send_line("");
    for _ in 0..3 {
        let beat = client.recv_json();
        assert_eq!(
            (&beat["type"], &beat["mcp_alive"]),
            (&json!("heartbeat_response"), &json!(false))
        );
    }
    client.send_line("no JSON");
    while client.recv_json()["error"]["code"] != -32700 {}
    assert_eq!(scratch.servers(), [0; 0]);
    // It is a session like any other.
    let server = client.pid_of_server();
    while client.recv_json()["mcp_alive"] != true {}
    assert_eq!(scratch.servers(), [server]);
    // One that never was used ends like any other, too.
    let mut silent = proxy.connect();
    silent.send_line(HEARTBEAT);
    silent.shutdown_write();
    expect_end(&mut silent);
    assert_eq!(scratch.servers(), [server]);
}

#[test]
fn input_that_ends_at_once_is_served() {
    skip_on_reference!("loses answers of a client that half-closes");
    let proxy = Proxy::start(&LAZY, &servers::demo());
    let mut client = proxy.connect();
    client.send_raw(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    client.shutdown_write();
    assert_eq!(client.recv_json()["result"], json!({}));
    expect_end(&mut client);
    proxy.wait_until_childless();
}

#[test]
fn a_crash_is_survived_as_ever() {
    skip_on_reference!("does not restart");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&LAZY, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    // Nobody has to ask for it.
    let second = scratch.wait_for_server(2);
    assert_eq!(client.pid_of_server(), second);
}

#[test]
fn by_default_a_connection_starts_a_server_at_once() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let client = proxy.connect();
    scratch.wait_for_server(1);
    client.close();
    proxy.wait_until_childless();
}
