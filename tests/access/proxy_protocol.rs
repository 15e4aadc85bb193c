//! Balancers that say whose connection it is.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::common::{Client, Proxy, TempFolder, servers};
use crate::tokens::{TOKEN, anns, handshake};

const V1: &str = "PROXY TCP4 192.0.2.9 10.0.0.1 4711 80\r\n";

/// The same in version 2, with something more after the addresses.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x09\x0a\x00\x00\x01\x12\x67\x00\x50\x04\x00\x02xx";

fn start(options: &[&str]) -> Proxy {
    let options = [&["--proxy-protocol", "127.0.0.1"], options].concat();
    Proxy::start(&options, &servers::echo())
}

#[track_caller]
fn is_served(client: &mut Client) {
    assert!(client.request("ping", &json!({}))["result"].is_object());
}

#[test]
fn the_client_is_whom_the_header_names() {
    let proxy = start(&[]);
    for (number, header) in [V1.as_bytes(), V2].into_iter().enumerate() {
        let mut client = proxy.connect();
        for byte in header {
            client.send_raw(&[*byte]);
        }
        is_served(&mut client);
        proxy.wait_for_log(&format!("session {} 192.0.2.9:4711", number + 1));
    }
}

#[test]
fn without_a_byte_after_the_header_no_server_is_started() {
    let proxy = start(&["--debug"]);
    let mut check = proxy.connect();
    check.send_raw(V1.as_bytes());
    check.shutdown_write();
    assert_eq!(check.read_to_end(), [""; 0]);
    let mut local = proxy.connect();
    local.send_raw(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    assert_eq!(local.read_to_end(), [""; 0]);
    proxy.wait_for_logs("a health check of 127.0.0.1", 2);
    assert!(proxy.servers().is_empty());
    let log = proxy.log().join("\n");
    assert!(
        !log.contains("refused") && !log.contains("[session"),
        "{log}"
    );
}

#[test]
fn a_connection_without_a_header_is_closed() {
    let proxy = start(&[]);
    let mut client = proxy.connect();
    client.send_line(r#"{"id":1,"method":"x"}"#);
    assert!(client.try_recv(crate::common::DEADLINE).is_err());
    proxy.wait_for_log("entrance: refused 127.0.0.1:");
    assert!(proxy.servers().is_empty());
}

#[test]
fn others_need_no_header_and_may_not_send_one() {
    let proxy = start(&[]);
    let mut other = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), proxy.address());
    is_served(&mut other);
    let mut liar = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), proxy.address());
    liar.send_raw(V1.as_bytes());
    liar.send_line(r#"{"id":1,"method":"x"}"#);
    assert_eq!(liar.read_to_end(), [""; 0]);
    proxy.wait_for_log("the client speaks the PROXY protocol");
}

#[test]
fn networks_and_limits_are_those_of_the_client_and_not_of_the_balancer() {
    let proxy = start(&["--allow", "192.0.2.0/24", "--max-sessions-per-address", "1"]);
    let mut first = proxy.connect();
    first.send_raw(V1.as_bytes());
    is_served(&mut first);
    let mut second = proxy.connect();
    second.send_raw(V1.as_bytes());
    second.send_line(r#"{"id":1,"method":"x"}"#);
    second.recv_error(503, "session_limit");
    for header in [
        "PROXY TCP4 192.0.3.9 10.0.0.1 1 80\r\n",
        "PROXY UNKNOWN\r\n",
    ] {
        let mut client = proxy.connect();
        client.send_raw(header.as_bytes());
        assert!(client.try_recv(crate::common::DEADLINE).is_err());
    }
    proxy.wait_for_log("entrance: refused 192.0.3.9:1: not_allowed");
    proxy.wait_for_log("entrance: refused unknown: unknown_client");
}

#[test]
fn a_balancer_may_come_over_a_unix_socket_and_its_clients_are_not_its_users() {
    let tokens = anns();
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("mcp.sock");
    let listen = format!("unix:{}", path.display());
    let file = tokens.path();
    let options = [
        "--listen",
        &listen,
        "--proxy-protocol",
        "unix",
        "--token-file",
        &file,
        "--token-exempt-unix",
    ];
    let proxy = Proxy::start(&options, &servers::echo());
    let mut member = Client::connect_unix(&path);
    member.send_raw(V1.as_bytes());
    member.send_line(&handshake(TOKEN));
    is_served(&mut member);
    proxy.wait_for_log("session 1 192.0.2.9:4711] let in as token:ann");
    let mut stranger = Client::connect_unix(&path);
    stranger.send_raw(b"PROXY UNKNOWN\r\n");
    stranger.send_line(r#"{"id":1,"method":"x"}"#);
    stranger.recv_error(401, "unauthorized");
}
