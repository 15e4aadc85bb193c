//! Clients that speak another protocol: a web page above all, which reaches loopback through the browser.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{DEADLINE, Proxy, Scratch, servers};
use crate::{expect_nothing_before_marker, expect_own_error};
use serde_json::Value;

/// What a browser sends for a form with `enctype="text/plain"` that submits itself.
fn form(address: &str) -> String {
    let body = format!(
        "{}\r\n{}\r\n",
        r#"{"jsonrpc":"2.0","id":1,"method":"sh","params":{"code":"answer"},"x":"="}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"pid"}"#
    );
    format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\
         Origin: https://example.com\r\nContent-Type: text/plain\r\nUser-Agent: Mozilla/5.0\r\n\
         Accept: text/html\r\n\r\n{body}",
        body.len()
    )
}

/// Sends these pieces, and reads to the end.
fn response_to(proxy: &Proxy, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for piece in pieces {
        // It may have been closed after an earlier piece.
        let _ = stream.write_all(piece);
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[track_caller]
fn assert_is_bad_request(response: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(head.contains("\r\nConnection: close"), "{response}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    assert!(body.contains("MCP over plain TCP"), "{response}");
}

#[test]
fn a_form_of_a_web_page_reaches_no_server() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--spawn", "lazy"], &servers::scripted(&scratch));
    let form = form(&proxy.address().to_string());
    for cut in 0..=form.len() {
        let (head, tail) = form.as_bytes().split_at(cut);
        assert_is_bad_request(&response_to(&proxy, &[head, tail]));
    }
    let bytes: Vec<&[u8]> = form.as_bytes().chunks(1).collect();
    assert_is_bad_request(&response_to(&proxy, &bytes));
    proxy.wait_for_log("closed: the client speaks HTTP: ");
    assert!(scratch.servers().is_empty(), "a server was started");
    // Others are served as ever.
    proxy.connect().pid_of_server();
    assert_eq!(scratch.servers().len(), 1);
}

#[test]
fn a_server_that_is_there_already_reads_nothing_and_is_stopped() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let form = form(&proxy.address().to_string());
    for cut in [0, 1, 16, 17, form.len() - 60] {
        let (head, tail) = form.as_bytes().split_at(cut);
        assert_is_bad_request(&response_to(&proxy, &[head, tail]));
    }
    proxy.wait_for_logs(": the client speaks HTTP: ", 5);
    proxy.wait_until_childless();
    for server in scratch.servers() {
        assert_eq!(scratch.got(server), [""; 0]);
    }
}

#[test]
fn other_protocols_are_named_in_the_log() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--spawn", "lazy"], &servers::scripted(&scratch));
    let line: &[u8] = b"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pid\"}\n";
    let first_lines: [(&[u8], &str); 4] = [
        (b"\x16\x03\x01\x00\xf1\x01", "speaks TLS: "),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r",
            "speaks the PROXY protocol: ",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
            "speaks the PROXY protocol: ",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r", "speaks SSH: "),
    ];
    for (count, (first, named)) in first_lines.into_iter().enumerate() {
        assert_eq!(response_to(&proxy, &[first, line]), "");
        let logged = proxy.wait_for_logs(" closed: the client speaks ", count + 1);
        let is_named = logged[count].contains(named) && logged[count].contains("WARN");
        assert!(is_named, "{logged:?}");
    }
    assert!(scratch.servers().is_empty(), "a server was started");
}

/// More than the burst that is logged.
#[test]
fn many_such_clients_do_not_flood_the_log() {
    const COUNT: usize = 300;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--spawn", "lazy"], &servers::scripted(&scratch));
    let clients: Vec<TcpStream> = (0..COUNT)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    for mut stream in clients {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    // What was left out is counted.
    crate::common::eventually("all are counted", DEADLINE, || {
        let log = proxy.log();
        log.iter().any(|line| line.contains("left out of the log"))
    });
}

#[test]
fn lines_that_are_only_not_json_do_not_end_the_session() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for line in ["hello", "GET / HTTP/1.1", "\u{16}\u{3}"] {
        client.send_line(line);
        expect_own_error(&mut client, &Value::Null, -32700, "parse_error");
    }
    expect_nothing_before_marker(&mut client);
}
