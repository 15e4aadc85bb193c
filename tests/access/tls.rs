//! TLS on the proxy's side: what passes, what is cut off, and what else comes to such a port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::json;

use crate::common::client::stream_from;
use crate::common::pki::{Pki, params};
use crate::common::servers::{demo, mirror, scripted};
use crate::common::tls::{TlsClient, VERSIONS};
use crate::common::{DEADLINE, Footprint, Proxy, Scratch, eventually};
use crate::refused;

/// A proxy with the certificate of `server`, and more options.
pub(super) fn start(pki: &Pki, options: &[&str], server: &[String]) -> Proxy {
    let mut all = pki.serve("server");
    all.extend(options.iter().map(|&option| option.to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Proxy::start(&all, server)
}

#[test]
fn lines_pass_over_both_versions_and_a_session_is_resumed() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    for version in VERSIONS {
        let config = pki.client(None, &[version]);
        for is_second in [false, true] {
            let mut client = TlsClient::connect(proxy.address(), &config);
            assert_eq!(client.version(), version.version);
            client.send_line(r#"{"method":"one"}"#);
            client.send_line(r#"{"method":"two"}"#);
            assert_eq!(client.recv_line(), r#"{"method":"one"}"#);
            assert_eq!(client.recv_line(), r#"{"method":"two"}"#);
            assert_eq!(client.is_resumed(), is_second);
        }
    }
}

#[test]
fn large_messages_pass_both_ways_and_a_slow_reader_delays_nobody() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &demo());
    let text = "x".repeat(4_000_000);
    for version in VERSIONS {
        let config = pki.client(None, &[version]);
        let mut slow = TlsClient::connect(proxy.address(), &config);
        slow.initialize();
        let call = json!({"name": "echo", "arguments": {"text": text}});
        let id = slow.send_request("tools/call", &call);
        let mut other = TlsClient::connect(proxy.address(), &config);
        for _ in 0..20 {
            assert!(other.request("ping", &json!({}))["result"].is_object());
        }
        let response = slow.recv_json();
        assert_eq!(response["id"], id);
        let echoed = response["result"]["content"][0]["text"].as_str().unwrap();
        assert!(echoed.contains(&text));
    }
}

#[test]
fn after_its_end_a_client_still_gets_its_responses() {
    let pki = Pki::new();
    let scratch = Scratch::new();
    let proxy = start(&pki, &[], &scripted(&scratch));
    for version in VERSIONS {
        let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &[version]));
        let id = client.send_request("pid", &json!({}));
        // In one segment with what came before, or in one of its own.
        client.end();
        let responses = client.read_to_end();
        assert_eq!(responses.len(), 1, "{responses:?}");
        assert!(responses[0].contains(&format!("\"id\":{id}")));
    }
    proxy.wait_for_logs("the client closed the connection", 2);
}

#[test]
fn a_connection_that_ends_without_close_notify_is_a_broken_one() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    for (round, version) in VERSIONS.into_iter().enumerate() {
        let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &[version]));
        client.send_line("{}");
        assert_eq!(client.recv_line(), "{}");
        client.cut();
        proxy.wait_for_logs("without the close_notify of TLS", round + 1);
    }
    proxy.wait_until_childless();
}

/// What a client says first.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_handshake_that_is_cut_at_any_byte_starts_nothing_and_leaves_nothing() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    // What is open after a session is what is open without one.
    let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &VERSIONS));
    client.send_line("{}");
    assert_eq!(client.recv_line(), "{}");
    client.end();
    assert_eq!(client.read_to_end(), [""; 0]);
    proxy.wait_for_log("closed: the client closed the connection");
    proxy.wait_until_childless();
    let before = Footprint::of(proxy.pid());
    for version in VERSIONS {
        let hello = hello(&pki.client(None, &[version]));
        for cut in 1..=hello.len() {
            let mut stream = TcpStream::connect(proxy.address()).unwrap();
            stream.write_all(&hello[..cut]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            // Nothing, or what TLS has to say.
            assert!(answer.is_empty() || [0x15, 0x16].contains(&answer[0]));
        }
    }
    before.wait_until_alone();
    let opened = |line: &&String| line.contains("opened");
    assert_eq!(proxy.log().iter().filter(opened).count(), 1);
}

#[test]
fn plain_text_gets_one_line_and_the_end() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    client.send_line(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#);
    let (id, _) = client.recv_error(400, "tls_required");
    assert!(id.is_null());
    assert_eq!(client.read_to_end(), [""; 0]);
    proxy.wait_for_log(": tls_required");
    let mut client = proxy.connect();
    client.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.read_to_end()[0].starts_with("HTTP/1.1 400 "));
    assert!(!proxy.log().iter().any(|line| line.contains("opened")));
}

#[test]
fn another_protocol_inside_of_tls_is_known_there() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &VERSIONS));
    client.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.read_to_end()[0].starts_with("HTTP/1.1 400 "));
}

#[test]
fn whoever_does_not_shake_hands_in_time_is_closed() {
    let pki = Pki::new();
    let proxy = start(&pki, &["--entrance-timeout", "0.2"], &mirror());
    let hello = hello(&pki.client(None, &VERSIONS));
    for said in [0, 1, hello.len() / 2, hello.len()] {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // On a busy machine this may come too late, and then it is a reset.
        let _ = stream.write_all(&hello[..said]);
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
    proxy.wait_for_logs(": entrance_timeout", 4);
}

/// Asks and is answered until it is told to end. Returns how long it had to wait, in order.
fn stand_by(mut client: TlsClient, is_over: &AtomicBool) -> Vec<Duration> {
    let mut waits = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.request("pid", &json!({}));
        waits.push(start.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    waits.sort_unstable();
    waits
}

/// Full handshakes, all begun before the first one goes on.
fn shake_fifty(pki: &Pki, own: Ipv4Addr, address: SocketAddr) {
    let begun: Vec<TlsClient> = (0..50)
        .map(|_| {
            // No ticket is known to a new configuration.
            let config = pki.client(None, &VERSIONS);
            TlsClient::begin(stream_from(own, address), &config).unwrap()
        })
        .collect();
    for mut client in begun {
        client.shake().unwrap();
    }
}

#[test]
fn two_hundred_handshakes_at_once_let_a_session_go_on() {
    let pki = Pki::new();
    let scratch = Scratch::new();
    // All are begun before the first one goes on, which takes its time.
    let options = ["--spawn", "lazy", "--entrance-timeout", "60"];
    let proxy = start(&pki, &options, &scripted(&scratch));
    let config = pki.client(None, &VERSIONS);
    let is_over = AtomicBool::new(false);
    let waits = thread::scope(|scope| {
        let bystander = TlsClient::connect(proxy.address(), &config);
        let bystander = scope.spawn(|| stand_by(bystander, &is_over));
        // Of one address, no more than 64 may shake hands at a time.
        let crowd: Vec<_> = (2..6)
            .map(|own| {
                let own = Ipv4Addr::new(127, 0, 0, own);
                let (pki, address) = (&pki, proxy.address());
                scope.spawn(move || shake_fifty(pki, own, address))
            })
            .collect();
        for thread in crowd {
            thread.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        bystander.join().unwrap()
    });
    let p99 = waits[waits.len() * 99 / 100];
    eprintln!(
        "{} round trips beside 200 handshakes, p99 {p99:?}",
        waits.len()
    );
}

#[test]
fn files_are_read_again_when_the_proxy_is_told_to() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    let config = pki.client(None, &VERSIONS);
    let mut old = TlsClient::connect(proxy.address(), &config);
    old.send_line("{}");
    assert_eq!(old.recv_line(), "{}");
    // A certificate that the client does not trust: what comes now is new.
    pki.self_sign("server", &params("", &["localhost"]));
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_log("SIGHUP: the files were read again");
    let error = TlsClient::try_connect(proxy.address(), &config).err();
    assert!(error.unwrap().to_string().contains("UnknownIssuer"));
    // What was there goes on.
    old.send_line("{}");
    assert_eq!(old.recv_line(), "{}");
    // What is wrong changes nothing.
    pki.issue("server", &params("", &["localhost"]));
    pki.scratch.write("server.pem", "nothing");
    proxy.signal(Signal::SIGHUP);
    let line = proxy.wait_for_log("SIGHUP: nothing was changed");
    assert!(line.contains("--tls-cert "), "{line}");
    let error = TlsClient::try_connect(proxy.address(), &config).err();
    assert!(error.unwrap().to_string().contains("UnknownIssuer"));
    pki.issue("server", &params("", &["localhost"]));
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_logs("SIGHUP: the files were read again", 2);
    let mut client = TlsClient::connect(proxy.address(), &config);
    assert!(!client.is_resumed(), "with a ticket of the files before");
    client.send_line("{}");
    assert_eq!(client.recv_line(), "{}");
}

#[test]
fn a_proxy_whose_files_are_wrong_does_not_start() {
    let pki = Pki::new();
    pki.issue("other", &params("", &["localhost"]));
    let (certificate, key) = (pki.path("server.pem"), pki.path("server.key"));
    let other = pki.path("other.key");
    let line = refused(&["--tls-cert", &certificate, "--tls-key", &other], 1);
    assert!(
        line.contains("does not belong to the certificate"),
        "{line}"
    );
    let line = refused(&["--tls-cert", "/does/not/exist", "--tls-key", &key], 1);
    assert!(line.contains("--tls-cert /does/not/exist: "), "{line}");
    let line = refused(&["--tls-cert", &certificate, "--tls-key", &certificate], 1);
    assert!(line.contains("lets others read"), "{line}");
    let line = refused(&["--tls-cert", &certificate], 2);
    assert!(line.contains("--tls-cert: needs --tls-key"), "{line}");
}

#[test]
fn a_stop_ends_tls_sessions_in_good_order() {
    let pki = Pki::new();
    let mut proxy = start(&pki, &[], &mirror());
    let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &VERSIONS));
    client.send_line("{}");
    assert_eq!(client.recv_line(), "{}");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.read_to_end(), [""; 0]);
    client.end();
    drop(client);
    assert!(proxy.wait_exit(DEADLINE).success());
    eventually("the end of the log", DEADLINE, || {
        proxy.log().iter().any(|line| line.contains("stopped"))
    });
}
