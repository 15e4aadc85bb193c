//! Slow, huge, pipelined and broken requests, and readers that do not read.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::common::{Client, DEADLINE, eventually, eventually_some, servers};
use crate::{Answer, connect, get, send, start};

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let long_line = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(20_000));
    let fields = "A: b\r\n".repeat(100);
    let many_fields = format!("GET / HTTP/1.0\r\n{fields}\r\n");
    for (request, status) in [
        ("POST /healthz HTTP/1.0\r\n\r\n", 405),
        ("DELETE / HTTP/1.0\r\n\r\n", 405),
        ("GET /healthz\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n", 400),
        ("GET / HTTP/1.0\r\nbad field\r\n\r\n", 400),
        ("GET /status.json?limit=0 HTTP/1.0\r\n\r\n", 400),
        ("GET /readyz?server=other HTTP/1.0\r\n\r\n", 404),
        ("GET /%2e%2e/etc/passwd HTTP/1.0\r\n\r\n", 404),
        (&long_line, 431),
        (&many_fields, 431),
    ] {
        assert_eq!(
            send(asked, request.as_bytes()).status,
            status,
            "{request:.80}"
        );
    }
    assert_eq!(
        send(asked, b"POST / HTTP/1.0\r\n\r\n").field("Allow"),
        Some("GET, HEAD")
    );
    assert_eq!(send(asked, b"\x16\x03\x01\x02\x00\x01").status, 400);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut stream = connect(asked);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::of(&answer).status, 200);
}

#[test]
fn of_requests_in_a_row_the_first_is_answered_and_a_body_is_ignored() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let two = b"GET /healthz HTTP/1.0\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n";
    assert_eq!(send(asked, two).body, "ok\n");
    let body = format!(
        "GET /healthz HTTP/1.0\r\nContent-Length: 60000\r\n\r\n{}",
        "x".repeat(60_000)
    );
    assert_eq!(send(asked, body.as_bytes()).body, "ok\n");
}

#[test]
fn whoever_ends_his_side_after_the_request_is_answered() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut stream = connect(asked);
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::of(&answer).status, 200);
}

#[test]
fn a_request_that_does_not_come_has_its_time() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut silent = connect(asked);
    let answer = eventually_some("an answer to half a request", 3 * DEADLINE, || {
        let mut slow = connect(asked);
        // Whoever is so slow that nothing comes in time is told nothing.
        slow.write_all(b"GET /heal").ok()?;
        let mut answer = Vec::new();
        slow.read_to_end(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    assert_eq!(Answer::of(&answer).status, 408);
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).unwrap();
    assert_eq!(nothing, b"");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let (proxy, asked) = start(&[], &servers::mirror());
    let silent: Vec<_> = (0..200).map(|_| connect(asked)).collect();
    assert_eq!(get(asked, "/healthz").status, 200);
    eventually("most of the silent ones to be closed", DEADLINE, || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()));
        files.unwrap().count() < 64 + 40
    });
    drop(silent);
}

#[test]
fn whoever_does_not_read_the_answer_delays_nobody() {
    // All are started at once: none of them writes anything.
    let (proxy, asked) = start(&["--max-starting", "60"], &servers::mirror());
    let clients: Vec<Client> = (0..60).map(|_| proxy.connect()).collect();
    proxy.wait_for_logs("opened", clients.len());
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(asked);
            stream
                .write_all(b"GET /?limit=1000 HTTP/1.0\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    let mut client = proxy.connect();
    client.send_line(r#"{"method":"m"}"#);
    assert_eq!(client.recv_line(), r#"{"method":"m"}"#);
    assert_eq!(get(asked, "/readyz").status, 200);
    for mut stream in deaf {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = Answer::of(&answer);
        assert!(answer.body.ends_with("</html>\n"), "{:.100}", answer.body);
    }
    drop(clients);
}

#[test]
fn random_bytes_do_no_harm() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut random = crate::common::Random::seeded();
    for _ in 0..300 {
        let mut bytes = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        let mut stream = connect(asked);
        // It may end without an answer, or with a reset, and before all is sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(get(asked, "/healthz").status, 200);
}
