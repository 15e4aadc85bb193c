//! Who may ask what, and how the answers want to be treated.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::common::{Proxy, TempFolder, servers};
use crate::{Answer, get, send, start, status_address};

#[test]
fn probes_as_programs_send_them() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let host = asked.to_string();
    let kubelet = format!(
        "GET /healthz HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.31\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let haproxy = "GET /readyz HTTP/1.0\r\n\r\n".to_owned();
    let haproxy_options = "OPTIONS / HTTP/1.0\r\n\r\n".to_owned();
    let curl = format!(
        "GET /metrics HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.14\r\nAccept: */*\r\n\r\n"
    );
    let prometheus = format!(
        "GET /metrics HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Prometheus/3.5\r\n\
         Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n\
         Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
    );
    for (request, status, beginning) in [
        (&kubelet, 200, "ok\n"),
        (&haproxy, 200, "ready\n"),
        (&haproxy_options, 405, ""),
        (&curl, 200, "# HELP "),
        (&prometheus, 200, "# HELP "),
    ] {
        let answer = send(asked, request.as_bytes());
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.body.starts_with(beginning), "{answer:?}");
    }
}

#[test]
fn each_answer_says_how_it_is_to_be_treated() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let kinds = [
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/", "text/html; charset=utf-8"),
        ("/nowhere", "text/plain; charset=utf-8"),
    ];
    for (path, kind) in kinds {
        let answer = get(asked, path);
        assert_eq!(answer.field("Content-Type"), Some(kind), "{path}");
        assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.field("Cache-Control"), Some("no-store"));
        assert_eq!(answer.field("Referrer-Policy"), Some("no-referrer"));
        assert_eq!(answer.field("Connection"), Some("close"));
        let policy = answer.field("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    for path in ["/healthz", "/metrics", "/status.json", "/", "/nowhere"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let head = send(asked, request.as_bytes());
        let whole = get(asked, path);
        assert_eq!(head.body, "", "{path}");
        assert_eq!(head.status, whole.status, "{path}");
        assert_eq!(head.field("Content-Type"), whole.field("Content-Type"));
    }
}

#[test]
fn a_web_page_can_not_lead_here_by_a_name_of_its_own() {
    let (_proxy, asked) = start(&["--status-host", "Proxy.example"], &servers::mirror());
    let ask = |host: &str| {
        let request = format!("GET /status.json HTTP/1.1\r\nHost: {host}\r\n\r\n");
        send(asked, request.as_bytes()).status
    };
    for host in [
        "127.0.0.1",
        "localhost:1",
        "[::1]:9180",
        "192.0.2.1",
        "proxy.example:80",
    ] {
        assert_eq!(ask(host), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "x.proxy.example"] {
        assert_eq!(ask(host), 421, "{host}");
    }
    let absolute = b"GET http://evil.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send(asked, absolute).status, 421);
    let absolute = b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send(asked, absolute).status, 200);
    assert_eq!(send(asked, b"GET / HTTP/1.1\r\n\r\n").status, 400);
}

/// An address of this machine that is not loopback, if it has one.
fn other_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only asks which address would be used.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn other_machines_see_health_and_metrics_alone() {
    let Some(address) = other_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    for (option, status) in [(None, 403), (Some("--status-public"), 200)] {
        let wanted = format!("{address}:0");
        let mut options = vec!["--status", &wanted];
        options.extend(option);
        let proxy = Proxy::start(&options, &servers::mirror());
        let asked = status_address(&proxy);
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(get(asked, path).status, 200, "{path}");
        }
        for path in ["/", "/status.json"] {
            assert_eq!(get(asked, path).status, status, "{path}");
        }
        let warning = "can see who is";
        if option.is_some() {
            proxy.wait_for_log(warning);
        } else {
            let log = proxy.log();
            assert!(!log.iter().any(|line| line.contains(warning)), "{log:?}");
        }
    }
}

#[test]
fn a_unix_socket_does_too() {
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("status.sock");
    let address = format!("unix:{}", path.display());
    let proxy = Proxy::start(&["--status", &address], &servers::mirror());
    proxy.wait_for_log(&format!("status at {address}"));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Answer::of(&answer).status, 200);
    drop(proxy);
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut command = crate::common::proxy::command_under_test();
    command.args(["--host=127.0.0.1", "--port=0", "--status"]);
    command.arg(asked.to_string()).args(["--", "cat"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("(--status)"), "{stderr}");
}
