//! What the proxy adds to a request beside a session that floods the same process with long lines: from before the client
//! writes it until the server has read it, by one clock. Without a proxy, the same is measured over a pipe.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clients::{self, Client};
use super::common::service::Service;
use super::common::stats::percentile;
use super::{proxy, settle, stamping_server};

/// The length of the lines that flood, at most.
const FLOOD_BYTES: usize = 64 * 1024;

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
}

impl Added {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            medians: Vec::new(),
            p99s: Vec::new(),
        }
    }

    fn note(&mut self, mut times: Vec<f64>) {
        self.medians.push(percentile(&mut times, 0.5));
        self.p99s.push(percentile(&mut times, 0.99));
    }
}

pub(crate) fn measure(is_quick: bool) -> [Added; 3] {
    let rounds = if is_quick { 3 } else { 20 };
    let command = stamping_server::command(Duration::ZERO);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let service = Service::start(&mut proxy("1", &words)).expect("a shared server starts");
    let client = clients::open(service.address(), 1).expect("it is answered");
    let mut client = client.into_iter().next().expect("it is one");
    let mut bare = Bare::start(&words).expect("the server starts");
    let mut added = ["over a pipe", "alone", "beside a flood"].map(Added::new);
    for round in 0..rounds {
        eprintln!("flood: round {} of {rounds}", round + 1);
        added[0].note(times(|_| bare.ask()));
        added[1].note(times(|_| ask(&mut client)));
        let flood = Flood::start(service.address()).expect("the proxy accepts");
        added[2].note(times(|_| ask(&mut client)));
        flood.end();
    }
    drop((client, bare, service));
    settle();
    added
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
    fn start(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        let (mut to_proxy, mut from_proxy) = (socket.try_clone()?, socket);
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let writer = thread::spawn(move || {
            for id in 0.. {
                let line = clients::padded_request(id, FLOOD_BYTES);
                if stop.load(Ordering::Relaxed) || to_proxy.write_all(line.as_bytes()).is_err() {
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
