//! What the proxy adds to a request beside a session that floods the same process: from before the client writes it until
//! the server has read it, by one clock; and how long the iterations of the proxy's loop took meanwhile, as it says itself. A
//! line that is complete waits for the end of one of these, and is written in the next. Without a proxy, the same is measured
//! over a pipe.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clients::{self, Client};
use super::common::end_to_end::Scratch;
use super::common::service::Service;
use super::common::stats::percentile;
use super::{proxy_with, settle, stamping_server};

/// The lengths of lines that flood, in bytes.
const FLOODS: [(&str, usize); 3] = [
    ("beside lines of 64 KiB", 64 * 1024),
    ("beside lines of 8 KiB", 8 * 1024),
    ("beside lines of 1 KiB", 1024),
];

/// What is written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Between two requests that are measured.
const PAUSE: Duration = Duration::from_micros(700);

/// What a round has of each.
const PER_ROUND: usize = 500;

/// From the client's write to the server's read.
pub(crate) struct Added {
    pub(crate) what: &'static str,
    /// Of each round, in µs.
    pub(crate) medians: Vec<f64>,
    pub(crate) p99s: Vec<f64>,
    /// 99 of 100 iterations of the loop took no longer than this, in µs; nothing without a proxy.
    pub(crate) iteration: Option<f64>,
}

impl Added {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            medians: Vec::new(),
            p99s: Vec::new(),
            iteration: None,
        }
    }

    fn note(&mut self, mut times: Vec<f64>) {
        self.medians.push(percentile(&mut times, 0.5));
        self.p99s.push(percentile(&mut times, 0.99));
    }
}

pub(crate) fn measure(is_quick: bool) -> Vec<Added> {
    let rounds = if is_quick { 3 } else { 20 };
    let command = stamping_server::command(Duration::ZERO);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let scratch = Scratch::new();
    let status = scratch.file("status");
    let option = format!("unix:{}", status.display());
    let mut proxy = proxy_with("1", &["--status", &option], &words);
    let service = Service::start(&mut proxy).expect("a shared server starts");
    let client = clients::open(service.address(), 1).expect("it is answered");
    let mut client = client.into_iter().next().expect("it is one");
    let mut bare = Bare::start(&words).expect("the server starts");
    let (mut over_pipe, mut alone) = (Added::new("over a pipe"), Added::new("alone"));
    let mut floods = FLOODS.map(|(what, bytes)| (Added::new(what), bytes, Loops::default()));
    for round in 0..rounds {
        eprintln!("flood: round {} of {rounds}", round + 1);
        over_pipe.note(times(|_| bare.ask()));
        alone.note(times(|_| ask(&mut client)));
        for (added, bytes, loops) in &mut floods {
            let before = Loops::ask(&status).expect("the proxy says how it is");
            let flood = Flood::start(service.address(), *bytes).expect("the proxy accepts");
            added.note(times(|_| ask(&mut client)));
            flood.end();
            let after = Loops::ask(&status).expect("the proxy says how it is");
            loops.add(&after, &before);
        }
    }
    drop((client, bare, service));
    settle();
    let floods = floods.map(|(mut added, _, loops)| {
        added.iteration = loops.p99();
        added
    });
    [over_pipe, alone].into_iter().chain(floods).collect()
}

/// How many iterations of the loop took at most how long, in seconds.
#[derive(Default)]
struct Loops(Vec<(f64, u64)>);

impl Loops {
    /// What a proxy says of itself.
    fn ask(status: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(status)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let buckets = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("mcp_tcp_proxy_loop_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        });
        Ok(Self(buckets.collect()))
    }

    /// Adds what has happened in between.
    fn add(&mut self, after: &Self, before: &Self) {
        if self.0.is_empty() {
            self.0 = after.0.iter().map(|(bound, _)| (*bound, 0)).collect();
        }
        let between = after.0.iter().zip(&before.0);
        for (sum, ((_, after), (_, before))) in self.0.iter_mut().zip(between) {
            sum.1 += after - before;
        }
    }

    /// In µs.
    fn p99(&self) -> Option<f64> {
        let (_, all) = self.0.last()?;
        let mut enough = self.0.iter().filter(|(_, count)| count * 100 >= all * 99);
        enough.next().map(|(bound, _)| bound * 1e6)
    }
}

fn times(mut ask: impl FnMut(usize) -> io::Result<f64>) -> Vec<f64> {
    let one = |at| {
        thread::sleep(PAUSE);
        ask(at).expect("it is answered")
    };
    (0..PER_ROUND).map(one).collect()
}

fn ask(client: &mut Client) -> io::Result<f64> {
    let asked = stamping_server::now();
    client.ask(1)?;
    since(asked, client.hear_line()?)
}

/// The time until the server had read the request that this answers, in µs.
fn since(asked: u64, response: &[u8]) -> io::Result<f64> {
    let read = stamping_server::read_at(response);
    let read = read.ok_or_else(|| io::Error::other("the server has not answered"))?;
    Ok(read.saturating_sub(asked) as f64 / 1000.0)
}

/// The server without a proxy.
struct Bare {
    server: Child,
    response: Vec<u8>,
}

impl Bare {
    fn start(command: &[&str]) -> io::Result<Self> {
        let mut server = Command::new(command[0]);
        let server = server.args(&command[1..]);
        let server = server.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self {
            server: server.spawn()?,
            response: vec![0; 4096],
        })
    }

    fn ask(&mut self) -> io::Result<f64> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let asked = stamping_server::now();
        let stdin = self.server.stdin.as_mut().ok_or_else(broken)?;
        stdin.write_all(clients::request(0).as_bytes())?;
        let stdout = self.server.stdout.as_mut().ok_or_else(broken)?;
        // A response is written at once, and shorter than what a pipe takes in one piece.
        let count = stdout.read(&mut self.response)?;
        since(asked, &self.response[..count])
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        // Its input has ended, so it does.
        let _ = self.server.wait();
    }
}

/// A session that writes as fast as it can, and reads what it gets.
struct Flood {
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Flood {
    fn start(address: SocketAddr, bytes: usize) -> io::Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        let (mut to_proxy, mut from_proxy) = (socket.try_clone()?, socket);
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let writer = thread::spawn(move || {
            let at_once = WRITE_BYTES / bytes;
            for write in 0.. {
                let ids = write * at_once..(write + 1) * at_once;
                let lines: String = ids.map(|id| clients::padded_request(id, bytes)).collect();
                if stop.load(Ordering::Relaxed) || to_proxy.write_all(lines.as_bytes()).is_err() {
                    break;
                }
            }
            // It is gone already, if this fails.
            let _ = to_proxy.shutdown(std::net::Shutdown::Both);
        });
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; 64 * 1024];
            while from_proxy.read(&mut bytes).is_ok_and(|count| count > 0) {}
        });
        Ok(Self {
            is_over,
            writer,
            reader,
        })
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.writer.join().expect("the writer ends");
        self.reader.join().expect("the reader ends");
    }
}
