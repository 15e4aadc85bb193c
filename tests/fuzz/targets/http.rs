//! The service for those who ask: what is answered does not depend on how the request is cut, and only a request that names
//! an address or `localhost` is.

use std::net::IpAddr;
use std::time::Duration;

use mcp_tcp_proxy::status::exchange::Exchange;
use mcp_tcp_proxy::status::request::{Hosts, MAX_HEAD_BYTES, Request};
use mcp_tcp_proxy::status::route::Route;
use mcp_tcp_proxy::util::time::Time;

/// What came of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing yet.
    Undecided,
    Asked(Request),
    Answered(Vec<u8>),
}

/// The input is a byte that says how the request is cut, and the request.
pub(crate) fn http(input: &[u8]) {
    let Some((size, request)) = input.split_first() else {
        return;
    };
    let whole = run(&[request]);
    let pieces: Vec<&[u8]> = request.chunks(usize::from(size % 60) + 1).collect();
    assert_eq!(run(&pieces), whole);
    match &whole {
        Outcome::Undecided => assert!(request.len() < MAX_HEAD_BYTES),
        Outcome::Answered(answer) => assert!(answer.starts_with(b"HTTP/1.1 ")),
        Outcome::Asked(asked) => {
            assert!(asked.path.starts_with('/') && !asked.path.contains('?'));
            check_host(request);
            // Those on other machines see nothing of sessions, whatever they write.
            let route = Route::of(asked, false);
            assert!(!matches!(route, Ok(Route::Json(_) | Route::Page(_))));
        }
    }
}

fn run(pieces: &[&[u8]]) -> Outcome {
    let now = Time::from_nanos(1 << 40);
    let mut exchange = Exchange::new(now);
    for piece in pieces {
        if let Some(request) = exchange.bytes(piece, &Hosts::default(), now) {
            assert!(!exchange.wants_input() && exchange.output().is_empty());
            return Outcome::Asked(request);
        }
        if !exchange.output().is_empty() {
            let answer = exchange.output().to_vec();
            assert!(exchange.written(answer.len(), now), "it is whole");
            exchange.timeout(now + Duration::from_mins(2));
            assert!(exchange.is_over());
            return Outcome::Answered(answer);
        }
    }
    Outcome::Undecided
}

/// A plain reader finds a name that is ours: in the target, in the only `Host`, or nowhere in HTTP/1.0.
fn check_host(request: &[u8]) {
    let text = String::from_utf8_lossy(request);
    let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
    let first = lines.find(|line| !line.is_empty()).unwrap();
    let words: Vec<&str> = first.split(' ').filter(|word| !word.is_empty()).collect();
    let scheme = words[1]
        .get(..7)
        .filter(|it| it.eq_ignore_ascii_case("http://"));
    let named = scheme.map(|_| {
        let rest = &words[1][7..];
        &rest[..rest.find(['/', '?']).unwrap_or(rest.len())]
    });
    let fields = lines.take_while(|line| !line.is_empty());
    let hosts: Vec<&str> = fields
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim_matches([' ', '\t']))
        .collect();
    assert!(hosts.len() == 1 || (hosts.is_empty() && first.contains("HTTP/1.0")));
    if let Some(host) = named.or(hosts.first().copied()) {
        assert!(is_ours(host), "{host:?}");
    }
}

fn is_ours(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let bare = |text: &str| {
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        is_address(inner.unwrap_or(text))
    };
    bare(without_port) || bare(host) || without_port.eq_ignore_ascii_case("localhost")
}
