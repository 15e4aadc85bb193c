//! What a running proxy tells those who ask over HTTP: probes, Prometheus, people, and whoever means no good.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod asked;
mod away;
mod balanced;
mod command;
mod draining;
mod http;
mod many;
mod notified;
mod numbers;
mod page;
mod pictures;
mod promtool;
mod readiness;
mod sessions;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{DEADLINE, Proxy, eventually_some};

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("not an answer: {text:?}"));
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A field of the head.
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut named = fields.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }

    /// The value of a metric that counts, labels and all.
    #[track_caller]
    fn count(&self, name: &str) -> u64 {
        self.value(name).parse().unwrap()
    }

    /// The value of a metric, labels and all.
    #[track_caller]
    fn metric(&self, name: &str) -> f64 {
        self.value(name).parse().unwrap()
    }

    #[track_caller]
    fn value(&self, name: &str) -> &str {
        let mut lines = self.body.lines().filter_map(|line| line.rsplit_once(' '));
        let value = lines.find(|(other, _)| *other == name);
        let (_, value) = value.unwrap_or_else(|| panic!("no {name} in {}", self.body));
        value
    }
}

/// Starts a proxy that can be asked, and returns where.
#[track_caller]
fn start(options: &[&str], server: &[String]) -> (Proxy, SocketAddr) {
    let options = [&["--status", "127.0.0.1:0"], options].concat();
    let proxy = Proxy::start(&options, server);
    let asked = status_address(&proxy);
    (proxy, asked)
}

#[track_caller]
fn status_address(proxy: &Proxy) -> SocketAddr {
    let line = proxy.wait_for_log("status at http://");
    let (_, address) = line.split_once("http://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// Sends these bytes, and returns all that comes. A test that stands still for too long is tried again.
#[track_caller]
fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    eventually_some("an answer", DEADLINE, || {
        let mut stream = connect(address);
        let mut answer = Vec::new();
        let asked = stream.write_all(bytes);
        asked.and_then(|()| stream.read_to_end(&mut answer)).ok()?;
        let answer = (!answer.is_empty()).then(|| Answer::of(&answer))?;
        (answer.status != 408).then_some(answer)
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(3 * DEADLINE)).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    stream
}

/// Asks for a path as most programs do.
#[track_caller]
fn get(address: SocketAddr, target: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    send(address, request.as_bytes())
}

/// The status as JSON.
#[track_caller]
fn json(address: SocketAddr, target: &str) -> serde_json::Value {
    let answer = get(address, target);
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}
