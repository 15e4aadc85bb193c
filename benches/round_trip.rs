//! What the way costs: the round trip of a request of 200 bytes to the demo server over its bare pipes, through the
//! proxy, and through `connect` and the proxy. In one run, in turn, medians over rounds; the ratio is what to look at.
//!
//! `cargo bench --bench round_trip`

#![allow(
    clippy::expect_used,
    reason = "what can't be measured ends the benchmark"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Proxy, processes, servers};

const ROUNDS: usize = 11;
const REQUESTS_PER_ROUND: usize = 2000;
const REQUEST_BYTES: usize = 200;

fn main() {
    let proxy = Proxy::start(&[], &servers::demo());
    let address = proxy.address().to_string();
    println!(
        "proxy without a session: {} KiB RSS",
        processes::rss_kib(proxy.pid())
    );
    let demo = servers::demo();
    let mut bare = start(&demo);
    let mut connect = start(&[demo[0].clone(), "connect".into(), address.clone()]);
    let stream = TcpStream::connect(&address).expect("the proxy listens");
    stream.set_nodelay(true).expect("it is a TCP socket");
    let reader = stream.try_clone().expect("there is a descriptor left");
    let mut ways = [
        ("bare pipes", way_of(&mut bare)),
        ("proxy", Way::new(stream, reader)),
        ("connect and proxy", way_of(&mut connect)),
    ];
    let mut medians = [const { Vec::new() }; 3];
    for (_, way) in &mut ways {
        way.initialize();
        way.round();
    }
    let pid = i32::try_from(connect.id()).expect("a pid is an i32");
    println!(
        "connect after {REQUESTS_PER_ROUND} requests: {} KiB RSS",
        processes::rss_kib(pid)
    );
    for _ in 0..ROUNDS {
        for ((_, way), medians) in ways.iter_mut().zip(&mut medians) {
            medians.push(way.round());
        }
    }
    let floor = median(&mut medians[0]);
    for ((name, _), medians) in ways.iter().zip(&mut medians) {
        let time = median(medians);
        let ratio = time.as_secs_f64() / floor.as_secs_f64();
        println!(
            "{name}: p50 {:.1} µs, {ratio:.2} × bare pipes",
            time.as_secs_f64() * 1e6
        );
    }
    drop(ways);
    for mut child in [bare, connect] {
        let _ = child.wait();
    }
}

/// One way to a demo server.
struct Way {
    writer: Box<dyn Write>,
    reader: BufReader<Box<dyn Read>>,
    answer: String,
}

impl Way {
    fn new(writer: impl Write + 'static, reader: impl Read + 'static) -> Self {
        Self {
            writer: Box::new(writer),
            reader: BufReader::new(Box::new(reader)),
            answer: String::new(),
        }
    }

    fn initialize(&mut self) {
        self.ask(concat!(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
            r#""capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#,
            "\n"
        ));
    }

    /// The median of many round trips.
    fn round(&mut self) -> Duration {
        let head = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#;
        let tail = "\"}}}\n";
        let request = format!(
            "{head}{}{tail}",
            "x".repeat(REQUEST_BYTES - head.len() - tail.len())
        );
        let mut times: Vec<Duration> = (0..REQUESTS_PER_ROUND)
            .map(|_| {
                let begin = Instant::now();
                self.ask(&request);
                begin.elapsed()
            })
            .collect();
        median(&mut times)
    }

    fn ask(&mut self, request: &str) {
        self.writer
            .write_all(request.as_bytes())
            .expect("the server reads");
        self.answer.clear();
        self.reader
            .read_line(&mut self.answer)
            .expect("the server answers");
        assert!(self.answer.contains("result"), "{}", self.answer);
    }
}

fn start(command: &[String]) -> Child {
    Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn way_of(child: &mut Child) -> Way {
    Way::new(
        child.stdin.take().expect("it is a pipe"),
        child.stdout.take().expect("it is a pipe"),
    )
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
