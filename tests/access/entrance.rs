//! Networks, limits, and strangers in their thousands.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Client, Footprint, Proxy, eventually, servers};
use crate::tokens::{TOKEN, admitted, anns, handshake};

fn from(last: u8, proxy: &Proxy) -> Client {
    Client::connect_from(Ipv4Addr::new(127, 0, 0, last), proxy.address())
}

#[test]
fn only_those_on_the_list_come_in() {
    let proxy = Proxy::start(
        &["--allow", "127.0.0.2", "--allow", "::1/128"],
        &servers::echo(),
    );
    let mut listed = from(2, &proxy);
    assert!(listed.request("ping", &json!({}))["result"].is_object());
    let mut other = from(3, &proxy);
    assert!(other.try_recv(crate::common::DEADLINE).is_err());
    let line = proxy.wait_for_log("entrance: refused 127.0.0.3:");
    assert!(line.ends_with(": not_allowed (--allow)"), "{line}");
    // A list alone asks nobody for a first line.
    let _silent = from(2, &proxy);
    proxy.wait_for_log("[session 2 127.0.0.2:");
}

#[test]
fn sessions_of_one_address_are_limited() {
    let proxy = Proxy::start(&["--max-sessions-per-address", "1"], &servers::echo());
    let mut first = from(2, &proxy);
    assert!(first.request("ping", &json!({}))["result"].is_object());
    from(2, &proxy).recv_error(503, "session_limit");
    proxy.wait_for_log("of this address already, the limit (--max-sessions-per-address)");
    let mut other = from(3, &proxy);
    assert!(other.request("ping", &json!({}))["result"].is_object());
}

#[test]
fn the_oldest_of_an_origin_makes_room_for_its_newcomers() {
    let tokens = anns();
    let proxy = Proxy::start(&["--token-file", &tokens.path()], &servers::echo());
    let mut visitors: Vec<Client> = (0..65).map(|_| from(2, &proxy)).collect();
    let (_, data) = visitors[0].recv_error(429, "too_many_connections");
    assert_eq!(data["source"], "mcp-tcp-proxy");
    assert_eq!(visitors[0].read_to_end(), [""; 0]);
    visitors[1].send_line(&handshake(TOKEN));
    assert!(visitors[1].request("ping", &json!({}))["result"].is_object());
    let mut other = from(3, &proxy);
    other.send_line(&handshake(TOKEN));
    assert!(other.request("ping", &json!({}))["result"].is_object());
}

/// How the `number`th stranger behaves.
fn say(number: usize, stranger: &mut TcpStream) {
    // It may have had to make room already.
    let _ = match number % 6 {
        0 => Ok(()),
        1 => stranger.write_all(b"{\"type\":\"hand"),
        2 => stranger
            .write_all(handshake("mtp_of_somebody_else").as_bytes())
            .and_then(|()| stranger.write_all(b"\n")),
        3 => stranger.write_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"),
        4 => stranger.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        _ => stranger.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}\n"),
    };
}

#[test]
fn ten_thousand_strangers_start_no_server_and_delay_nobody() {
    const STRANGERS: usize = 10_000;
    /// Of one address; the others come from as many as it takes.
    const OF_ONE: usize = 250;
    let tokens = anns();
    let options = ["--token-file", &tokens.path(), "--entrance-timeout", "6"];
    let proxy = Proxy::start(&options, &servers::echo());
    let mut member = admitted(&proxy, TOKEN);
    drop(admitted(&proxy, TOKEN));
    let server = proxy.only_server();
    let footprint = Footprint::of(proxy.pid());
    let began = Instant::now();
    let mut strangers = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..STRANGERS {
        let own = Ipv4Addr::new(127, 1, 0, u8::try_from(number / OF_ONE + 2).unwrap());
        let stranger = Client::connect_from(own, proxy.address());
        let mut writer = stranger.writer();
        say(number, &mut writer);
        strangers.push(stranger);
        // Whoever is in is served, and whoever has a token comes in.
        if number % 100 == 0 {
            let asked = Instant::now();
            assert!(member.request("ping", &json!({}))["result"].is_object());
            slowest = slowest.max(asked.elapsed());
            assert_eq!(proxy.servers(), [server], "a stranger has a server");
        }
        if number % 1000 == 999 {
            drop(admitted(&proxy, TOKEN));
            eventually("the end of its server", crate::common::DEADLINE, || {
                proxy.servers() == [server]
            });
        }
        if strangers.len() == 2000 {
            strangers.clear();
        }
    }
    println!(
        "{STRANGERS} strangers in {:?}, slowest answer {slowest:?}",
        began.elapsed()
    );
    drop(strangers);
    footprint.wait_until_restored();
    assert!(member.request("ping", &json!({}))["result"].is_object());
    assert_eq!(proxy.servers(), [server]);
    let log = proxy.log();
    let refused = log.iter().filter(|line| line.contains("entrance: refused"));
    assert!(refused.count() < 3000, "the log is limited");
    let sessions = log.iter().filter(|line| line.ends_with("] opened")).count();
    assert_eq!(
        sessions,
        2 + STRANGERS / 1000,
        "no stranger has become a session"
    );
}
