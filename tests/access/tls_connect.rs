//! `connect` over TLS: what it trusts, what it refuses, and what it says of that.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use serde_json::json;

use super::tls::start;
use crate::common::connect::{IN_HASTE, Reserved, request};
use crate::common::pki::{Pki, numbered, params};
use crate::common::servers::{demo, mirror};
use crate::common::{Connect, FakeServer, Proxy};

/// `connect` with these options to that port, as localhost.
fn connect(options: &[&str], address: SocketAddr) -> Connect {
    let options: Vec<&str> = IN_HASTE.iter().chain(options).copied().collect();
    Connect::start_to(&options, &format!("localhost:{}", address.port()))
}

/// It ends for this reason, and a request is told so.
#[track_caller]
fn assert_ends(mut connect: Connect, reason: &str, (code, name): (i32, &str)) {
    connect.send_request(1, "m", &json!({}));
    assert_eq!(connect.recv_error(code, name).0, 1);
    let log = connect.wait_exit(1);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains(reason), "{log:?}");
}

const DENIED: (i32, &str) = (503, "access_denied");
const UNREACHABLE: (i32, &str) = (502, "unreachable");

#[test]
fn an_authority_of_ones_own_is_trusted_and_no_other_then() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &demo());
    let ca = pki.path("ca.pem");
    let mut good = connect(&["--tls-ca", &ca], proxy.address());
    good.initialize();
    let text = "x".repeat(3_000_000);
    let call = json!({"name": "echo", "arguments": {"text": text}});
    let response = good.request(2, "tools/call", &call);
    let echoed = response["result"]["content"][0]["text"].as_str().unwrap();
    assert!(echoed.contains(&text));
    good.end_input();
    assert_eq!(good.read_to_end(), [""; 0]);
    good.wait_exit(0);
    proxy.wait_for_log("the client closed the connection");
    // The system does not know it.
    let of_system = connect(&["--tls"], proxy.address());
    assert_ends(of_system, "--tls-ca", DENIED);
}

#[test]
fn a_certificate_that_is_not_good_is_the_end_and_it_is_said_what_is_wrong() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    pki.issue("other", &params("", &["other.example"]));
    let mut old = params("", &["localhost"]);
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2021, 1, 1);
    pki.issue("old", &old);
    pki.self_sign("stranger", &params("", &["localhost"]));
    let mut both = params("localhost", &["localhost"]);
    both.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    pki.self_sign("both", &both);
    let both = pki.path("both.pem");
    for (name, trusted, reason) in [
        ("other", &ca, "is not for localhost but for other.example"),
        ("old", &ca, "its certificate expired "),
        ("stranger", &ca, "is not of an authority that is trusted"),
        (
            "both",
            &both,
            "add -addext basicConstraints=critical,CA:FALSE",
        ),
    ] {
        let options = pki.serve(name);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let proxy = Proxy::start(&options, &mirror());
        let refusing = connect(&["--tls-ca", trusted], proxy.address());
        assert_ends(refusing, reason, DENIED);
    }
    // By the name that it is for, it is.
    let options = pki.serve("other");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&options, &mirror());
    let options = ["--tls-ca", &ca, "--tls-name", "other.example"];
    let mut named = connect(&options, proxy.address());
    named.send_line(r#"{"method":"m"}"#);
    assert_eq!(named.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn tls_and_plain_text_do_not_meet() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let plain = Proxy::start(&[], &mirror());
    let with_tls = connect(&["--tls-ca", &ca], plain.address());
    assert_ends(with_tls, "does not speak TLS", UNREACHABLE);
    // Something that says nothing at all.
    let silent = FakeServer::start();
    let with_tls = connect(&["--tls-ca", &ca], silent.address());
    drop(silent.accept());
    assert_ends(with_tls, "does not speak TLS", UNREACHABLE);
    let proxy = start(&pki, &[], &mirror());
    let without = connect(&[], proxy.address());
    assert_ends(without, "--tls", DENIED);
}

#[test]
fn a_certificate_of_ones_own_is_shown_and_it_is_said_if_it_is_not_good() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    pki.revoke(&[7]);
    pki.issue("good", &numbered("agent", 6));
    pki.issue("revoked", &numbered("agent", 7));
    let crl = pki.path("crl.pem");
    let options = ["--tls-client-ca", &ca, "--tls-crl", &crl];
    let proxy = start(&pki, &options, &mirror());
    let with = |name: &str| {
        let (certificate, key) = (
            pki.path(&format!("{name}.pem")),
            pki.path(&format!("{name}.key")),
        );
        let options = [
            "--tls-ca",
            &ca,
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ];
        connect(&options, proxy.address())
    };
    let mut good = with("good");
    good.send_line(r#"{"method":"m"}"#);
    assert_eq!(good.recv_line(), r#"{"method":"m"}"#);
    proxy.wait_for_log("let in as cert:agent");
    assert_ends(with("revoked"), "our certificate is revoked", DENIED);
    let without = connect(&["--tls-ca", &ca], proxy.address());
    assert_ends(without, "--tls-cert FILE", DENIED);
}

#[test]
fn after_a_good_connection_a_certificate_that_is_not_good_is_a_loss_like_any_other() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let reserved = Reserved::new();
    let port = reserved.address().port().to_string();
    let mut proxy = start(&pki, &["--port", &port], &mirror());
    let mut connect = connect(&["--tls-ca", &ca], proxy.address());
    connect.send_line(r#"{"method":"one"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"one"}"#);
    let mut again = |name: &str| {
        proxy.signal(nix::sys::signal::Signal::SIGTERM);
        proxy.wait_exit(crate::common::DEADLINE);
        let mut options = pki.serve(name);
        options.extend(["--port".to_owned(), port.clone()]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        proxy = Proxy::start(&options, &mirror());
    };
    pki.issue("other", &params("", &["other.example"]));
    again("other");
    connect.wait_for_logs("is not for localhost but for other.example", 3);
    connect.assert_runs();
    again("server");
    connect.send_line(&request(2, "two", &json!({})));
    assert_eq!(connect.recv_line(), request(2, "two", &json!({})));
}

#[test]
fn a_handshake_that_takes_too_long_is_a_failed_attempt() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let server = FakeServer::start();
    let options = ["--tls-ca", &ca, "--connect-timeout", "0.2"];
    let connect = connect(&options, server.address());
    let _held: Vec<_> = (0..2).map(|_| server.accept()).collect();
    connect.wait_for_logs("the TLS handshake was not done within 0.2 s", 2);
}
