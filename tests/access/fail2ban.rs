//! The filter in `examples/fail2ban` against the log of a real proxy: it finds who has no token, and nobody whom a stranger
//! names.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use regex::Regex;

use crate::common::{Client, Proxy, servers};
use crate::tokens::{TOKEN, anns, handshake};

/// An address, as the filter's tag stands for it.
const ADDRESS: &str = r"\[?(?P<address>\d+\.\d+\.\d+\.\d+|[0-9a-f:]+)\]?";

/// The filter's expression.
fn expression() -> Regex {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fail2ban/filter.d/mcp-tcp-proxy.conf");
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("failregex = "));
    Regex::new(&line.unwrap().replace("<ADDR>", ADDRESS)).unwrap()
}

/// Whom the filter finds in a line; the date is taken from it first, as fail2ban does.
fn found(line: &str) -> Option<String> {
    let rest = line.split_once('Z').map_or(line, |(_, rest)| rest);
    let captures = expression().captures(rest)?;
    Some(captures["address"].to_owned())
}

#[test]
fn the_filter_finds_who_has_no_token_and_nobody_else() {
    let tokens = anns();
    let options = [
        "--token-file",
        &tokens.path(),
        "--debug",
        "--server-log",
        "all",
    ];
    let says_it = servers::sh(
        "echo 'WARN  [proxy] entrance: refused 127.0.0.9:1: unauthorized, no token' >&2; cat",
    );
    let proxy = Proxy::start(&options, &says_it);
    for (last, line) in [(2, "x".to_owned()), (3, handshake("mtp_of_somebody_else"))] {
        let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, last), proxy.address());
        client.send_line(&line);
        client.read_to_end();
    }
    let mut member = proxy.connect();
    member.send_line(&handshake(TOKEN));
    // What strangers say is in the log with --debug, and what servers say.
    let forged = "WARN  [proxy] entrance: refused 127.0.0.8:1: unauthorized, no token";
    member.send_line(&format!(r#"{{"id":1,"method":"{forged}"#));
    member.recv_error(-32700, "parse_error");
    proxy.wait_for_log("127.0.0.9");
    proxy.wait_for_log("127.0.0.8");
    let all: Vec<String> = proxy.log().iter().filter_map(|line| found(line)).collect();
    assert_eq!(all, ["127.0.0.2", "127.0.0.3"]);
}

#[test]
fn the_filter_knows_the_journals_lines_and_ipv6() {
    let message = "WARN  [proxy] entrance: refused [2001:db8::7]:4711: unauthorized, wrong token";
    for line in [
        format!("2026-11-27T04:42:27.096Z {message}"),
        format!("host mcp-tcp-proxy[77]: {message}"),
    ] {
        assert_eq!(found(&line).as_deref(), Some("2001:db8::7"), "{line}");
    }
    for other in [
        "entrance_timeout",
        "too_many_connections",
        "not_allowed (--allow)",
    ] {
        let line = format!(
            "2026-11-27T04:42:27.096Z WARN  [proxy] entrance: refused 192.0.2.1:1: {other}"
        );
        assert_eq!(found(&line), None, "{line}");
    }
}
