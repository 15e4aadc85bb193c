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
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::affinity::Affinity;
use common::chart::{Bar, Chart, Panel};
use common::end_to_end::processes;
use common::generator::{Load, Target};
use common::messages::{FIRST_ID, call};
use common::options::Options;
use common::report::Report;
use common::service::Service;
use common::table::{Table, number};
use common::{PROXY, echo_server, family, results};

/// The lengths of the lines in bytes, and how many of them are under way.
const LOADS: [(&str, usize, usize); 7] = [
    ("200 B", 200, 1),
    ("200 B", 200, 64),
    ("200 B", 200, 500),
    ("200 B", 200, 1000),
    ("10 KB", 10_000, 1),
    ("10 KB", 10_000, 50),
    ("1 MB", 1_000_000, 4),
];

/// How long each is measured in a round.
const SLICE: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(100);

/// Sessions that are held open.
const SESSIONS: usize = 1000;

/// Buffers that were not needed for some time are let go.
const SETTLING: Duration = Duration::from_secs(6);

/// What is kept for a session, and what is not, in this order.
const NAMES: [&str; 2] = ["--no-resume", "kept"];

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    family::adopt_orphans().expect("orphans can be adopted");
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    let rounds = if options.quick { 3 } else { 11 };
    let rates = LOADS.map(|load| throughput(load, rounds).expect("throughput can be measured"));
    let memory = memory().expect("memory can be measured");
    let mut report = Report::default();
    report.add(
        &format!("Lines a second through connect, {rounds} rounds that take turns"),
        &rates_table(&rates),
    );
    report.add(
        &format!("Memory of the proxy for each of {SESSIONS} idle sessions, B"),
        &memory_table(memory),
    );
    let text = report.text(affinity.count());
    println!("{text}");
    let files = [("resume.svg", chart(&rates, memory)), ("resume.txt", text)];
    results::keep(options, files).expect("results can be written");
}

fn serve(options: &[&str]) -> Result<Service, String> {
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    let command = command.args(options).arg("--");
    Service::start(command.args(echo_server::command()))
}

/// What one load has brought.
struct Rates {
    name: String,
    /// Lines a second, as [`NAMES`].
    each: [f64; 2],
    /// The median of the rounds' ratios, the least, and the most.
    ratio: [f64; 3],
}

/// With and without, in turns.
fn throughput(
    (name, bytes, in_flight): (&str, usize, usize),
    rounds: u32,
) -> Result<Rates, String> {
    let service = serve(&[])?;
    let address = service.address().to_string();
    let connect = |options: &[&str]| {
        let words = [&[PROXY, "connect"], options, &[address.as_str()]].concat();
        Target::Command(words.into_iter().map(str::to_owned).collect())
    };
    let load = Load::echo(bytes)
        .with("--in-flight", in_flight)
        .with("--rounds", rounds)
        .lasting(SLICE, WARM_UP);
    let versus = load.run_versus(&connect(&["--no-resume"]), &connect(&[]))?;
    let rate = |at: usize| versus.reports[at].requests_per_second();
    let known = || Some((rate(0)?, rate(1)?, versus.ratio("requests_per_second")?));
    let (off, on, ratio) = known().ok_or("nothing was measured")?;
    Ok(Rates {
        name: format!("{name}, {in_flight} under way"),
        each: [off, on],
        ratio,
    })
}

fn rates_table(rates: &[Rates]) -> Table {
    let mut table = Table::new(["", NAMES[0], NAMES[1], "ratio", "least", "most"]);
    for rates in rates {
        let mut row = vec![rates.name.clone()];
        row.extend(rates.each.map(number));
        row.extend(rates.ratio.map(|ratio| format!("{ratio:.2}")));
        table.row(row);
    }
    table
}

fn memory_table([plain, kept]: [f64; 2]) -> Table {
    let mut table = Table::new(["", "bytes"]);
    for (name, bytes) in [
        ("plain", plain),
        ("kept", kept),
        ("difference", kept - plain),
    ] {
        table.row([name.to_owned(), format!("{bytes:.0}")]);
    }
    table
}

fn chart(rates: &[Rates], memory: [f64; 2]) -> String {
    let panel = |title: String, values: [f64; 2]| Panel {
        title,
        bars: NAMES
            .into_iter()
            .zip(values)
            .map(|(name, value)| Bar {
                name: name.to_owned(),
                value: Ok(value),
                own: name == NAMES[1],
            })
            .collect(),
    };
    let mut panels: Vec<Panel> = rates
        .iter()
        .map(|rates| panel(format!("{}, lines/s", rates.name), rates.each))
        .collect();
    panels.push(panel("memory of an idle session, B".to_owned(), memory));
    let chart = Chart {
        title: "What it costs to keep a session".to_owned(),
        note: "Lines through connect and the proxy: more is better. Memory: less is better."
            .to_owned(),
        panels,
    };
    chart.svg()
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

/// Bytes of the proxy for each idle session that was used once: plain, and kept.
fn memory() -> io::Result<[f64; 2]> {
    let mut costs = [0.0; 2];
    for (cost, is_kept) in costs.iter_mut().zip([false, true]) {
        let service = serve(&["--heartbeat-interval", "3600"]).map_err(io::Error::other)?;
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
