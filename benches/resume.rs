//! What it costs that a session is kept while its connection is lost: the throughput of `connect` to a proxy, with
//! `--no-resume` and without in turns, and the memory of an idle session.
//!
//! `cargo bench --bench resume [-- --quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "common/mod.rs"]
mod common;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::affinity::Affinity;
use common::end_to_end::processes;
use common::messages::{FIRST_ID, call};
use common::options::Options;
use common::service::Service;
use common::stats::median;
use common::table::{Table, number};
use common::{PROXY, echo_server, family, machine, results};

/// The lines, with how many of them are under way and how many there are in a round.
const LOADS: [Load; 3] = [
    Load::new(200, 500, 100_000),
    Load::new(10_000, 50, 20_000),
    Load::new(1_000_000, 4, 400),
];

/// Sessions that are held open.
const SESSIONS: usize = 1000;

/// Buffers that were not needed for some time are let go.
const SETTLING: Duration = Duration::from_secs(6);

struct Load {
    bytes: usize,
    window: usize,
    count: usize,
}

impl Load {
    const fn new(bytes: usize, window: usize, count: usize) -> Self {
        Self {
            bytes,
            window,
            count,
        }
    }
}

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    family::adopt_orphans().expect("orphans can be adopted");
    let cores = Affinity::of_this_process()
        .expect("the affinity mask can be read")
        .count();
    let rounds = if options.quick { 3 } else { 15 };
    let text = [
        throughput_table(rounds),
        memory_table(),
        format!("Where\n\n{}", machine::list(&machine::facts(cores))),
    ];
    let text = text.join("\n");
    println!("{text}");
    results::keep(options, [("resume.txt", text)]).expect("results can be written");
}

fn throughput_table(rounds: usize) -> String {
    let mut table = Table::new(["", "--no-resume", "kept", "kept / --no-resume"]);
    for load in &LOADS {
        let [off, on] = throughput(load, rounds).expect("throughput can be measured");
        table.row([
            format!("{} B, {} under way", load.bytes, load.window),
            number(off),
            number(on),
            format!("{:.3}", on / off),
        ]);
    }
    format!("Lines/s through one `connect` (medians of {rounds} rounds that take turns)\n\n{table}")
}

fn memory_table() -> String {
    let [plain, kept] = memory().expect("memory can be measured");
    let mut table = Table::new(["", "plain", "kept", "more"]);
    table.row([
        "bytes".to_owned(),
        number(plain),
        number(kept),
        number(kept - plain),
    ]);
    format!("Memory of an idle session, of {SESSIONS} (RSS of the proxy)\n\n{table}")
}

fn serve(options: &[&str]) -> io::Result<Service> {
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    let command = command.args(options).arg("--");
    Service::start(command.args(echo_server::command())).map_err(io::Error::other)
}

/// A `connect`, with a host at its stdin and stdout.
struct Host {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn start(address: SocketAddr, options: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(PROXY);
        command
            .arg("connect")
            .args(options)
            .arg(address.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut host = Self {
            input: input.ok_or(io::ErrorKind::BrokenPipe)?,
            output: BufReader::with_capacity(1 << 20, output),
            child,
        };
        host.input.write_all(&call(FIRST_ID, 200))?;
        host.output.skip_until(b'\n')?;
        Ok(host)
    }

    /// Lines a second, as many under way at a time.
    fn run(&mut self, load: &Load) -> io::Result<f64> {
        let line = call(FIRST_ID, load.bytes);
        let begin = Instant::now();
        let (input, output) = (&mut self.input, &mut self.output);
        let (tell, told) = std::sync::mpsc::sync_channel(load.window);
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for _ in 0..load.count {
                    // There is room for so many, and each answer makes room for one more.
                    if tell.send(()).is_err() {
                        break;
                    }
                    input.write_all(&line)?;
                }
                io::Result::Ok(())
            });
            for _ in 0..load.count {
                output.skip_until(b'\n')?;
                told.recv().map_err(io::Error::other)?;
            }
            writer.join().unwrap_or(Ok(()))
        })?;
        Ok(load.count as f64 / begin.elapsed().as_secs_f64())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines a second without and with, in turns, each first as often as second.
fn throughput(load: &Load, rounds: usize) -> io::Result<[f64; 2]> {
    let service = serve(&[])?;
    let mut hosts = [
        Host::start(service.address(), &["--no-resume"])?,
        Host::start(service.address(), &[])?,
    ];
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            rates[which].push(hosts[which].run(load)?);
        }
    }
    Ok(rates.map(|rates| median(&rates)))
}

/// A client that has asked for its session to be kept, or not, and has had an answer.
fn idle(address: SocketAddr, number: usize, is_kept: bool) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let asked = format!(r#","resume":{{"version":1,"session":"{number:032x}","heartbeat":3600}}"#);
    let asked = if is_kept { asked.as_str() } else { "" };
    let mut text = format!("{{\"type\":\"handshake\"{asked}}}\n").into_bytes();
    text.extend_from_slice(&call(FIRST_ID, 200));
    stream.write_all(&text)?;
    let mut lines = BufReader::new(&stream);
    for _ in 0..=usize::from(is_kept) {
        lines.skip_until(b'\n')?;
    }
    drop(lines);
    if is_kept {
        stream.write_all(b"{\"type\":\"heartbeat\",\"lines\":1}\n")?;
    }
    Ok(stream)
}

/// Reads the acknowledgement of the line that was sent, which comes a second after it.
fn wait_for_acknowledgement(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; "{\"type\":\"ack\",\"lines\":1}\n".len()])
}

/// Bytes of the proxy for each idle session that was used once.
fn memory() -> io::Result<[f64; 2]> {
    let mut costs = [0.0; 2];
    for (cost, is_kept) in costs.iter_mut().zip([false, true]) {
        let service = serve(&["--heartbeat-interval", "3600"])?;
        let _first = idle(service.address(), usize::MAX >> 1, is_kept)?;
        thread::sleep(SETTLING);
        let before = processes::rss_kib(service.pid());
        let sessions = (0..SESSIONS).map(|number| idle(service.address(), number, is_kept));
        let sessions = sessions.collect::<io::Result<Vec<TcpStream>>>()?;
        if is_kept {
            sessions.iter().try_for_each(wait_for_acknowledgement)?;
        }
        thread::sleep(SETTLING);
        let grown = processes::rss_kib(service.pid()).saturating_sub(before);
        drop(sessions);
        *cost = (grown * 1024) as f64 / SESSIONS as f64;
    }
    Ok(costs)
}
