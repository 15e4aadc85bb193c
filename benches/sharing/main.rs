//! What it saves that clients share servers, and what it costs: memory and processes by number of clients, round trips, and
//! messages per second, each against a process for every client, in the same run; the first response of a new session; what
//! the proxy adds beside a flood; and what waiting for others means at a server that serves one after the other.
//!
//! `cargo bench --bench sharing [-- --quick | --write-results]`, or `-- memory`, `speed`, `newcomer`, `flood` or `serial` for
//! parts of it; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod flood;
mod memory;
mod newcomer;
mod serial;
mod speed;
mod stamping_server;

use std::process::Command;
use std::time::Duration;

use common::affinity::Affinity;
use common::options::Options;
use common::stats::{median, percentile};
use common::table::{Table, number};
use common::{PROXY, family, machine, results};
use flood::Added;
use memory::Row;
use newcomer::Newcomer;
use serial::Wait;
use speed::Speed;

/// Shared processes.
const PROCESSES: &str = "4";

/// The same for a process for each session.
const OWN_EACH: &str = "0";

/// The parts, in order.
const PARTS: [&str; 5] = ["memory", "speed", "newcomer", "flood", "serial"];

fn main() {
    if stamping_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |part: &&&str| wanted.iter().any(|word| word == **part);
    let is_all = PARTS.iter().all(|part| !is_named(&part));
    family::adopt_orphans().expect("orphans can be adopted");
    let cores = Affinity::of_this_process()
        .expect("the affinity mask can be read")
        .count();
    let mut rows = Vec::new();
    let mut texts = Vec::new();
    for part in PARTS.iter().filter(|part| is_all || is_named(part)) {
        texts.push(match *part {
            "memory" => {
                rows = memory::measure(options.quick);
                memory_table(&rows)
            }
            "speed" => speed_table(&speed::measure(options.quick)),
            "newcomer" => newcomer_table(&newcomer::measure(options.quick)),
            "flood" => flood_table(&flood::measure(options.quick)),
            _ => serial_table(&serial::measure(options.quick)),
        });
    }
    texts.push(format!(
        "Where\n\n{}",
        machine::list(&machine::facts(cores))
    ));
    let text = texts.join("\n");
    println!("{text}");
    if is_all {
        let files = [
            ("sharing.svg", memory::chart(&rows).svg()),
            ("sharing.txt", text),
        ];
        results::keep(options, files).expect("results can be written");
    }
}

/// The program, with this many shared processes.
fn proxy(processes: &str, server: &[&str]) -> Command {
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    command.args(["--max-sessions", "20000", "--share", processes]);
    command.arg("--").args(server);
    command
}

/// Lets go of what the last trial has left.
fn settle() {
    family::settle(&[], Duration::from_secs(10));
}

fn memory_table(rows: &[Row]) -> String {
    let mut table = Table::new([
        "clients",
        "",
        "processes",
        "servers MiB",
        "proxy MiB",
        "all answered s",
    ]);
    for row in rows {
        let kind = if row.is_shared { "shared" } else { "own" };
        let figures = row.figures.as_ref().map(|figures| {
            [
                figures.processes.to_string(),
                number(figures.servers_mib),
                number(figures.proxy_mib),
                number(figures.seconds),
            ]
        });
        let cells = figures
            .unwrap_or_else(|why| [why.clone(), String::new(), String::new(), String::new()]);
        let [processes, servers, proxy, seconds] = cells;
        table.row([
            row.clients.to_string(),
            kind.to_owned(),
            processes,
            servers,
            proxy,
            seconds,
        ]);
    }
    format!("Memory (a Python server; PSS of the servers, RSS of the proxy)\n\n{table}")
}

fn speed_table(speed: &Speed) -> String {
    let mut table = Table::new(["", "own", "shared", "shared / own"]);
    for (name, own, shared) in [
        (
            "round trip of one session, µs",
            speed.own_round_trip,
            speed.shared_round_trip,
        ),
        (
            "messages/s of 100 sessions",
            speed.own_messages,
            speed.shared_messages,
        ),
    ] {
        let ratio = format!("{:.2}", shared / own);
        table.row([name.to_owned(), number(own), number(shared), ratio]);
    }
    format!("Speed (the demo server; rounds that take turns)\n\n{table}")
}

fn newcomer_table(newcomer: &Newcomer) -> String {
    let (open, new) = (&newcomer.round_trips, &newcomer.first_responses);
    let mut table = Table::new(["", "median µs", "lowest", "highest"]);
    for (name, times) in [
        ("round trip of an open session", open),
        ("the same right after another", &newcomer.warm_round_trips),
        ("first response of a new session", new),
    ] {
        table.row([vec![name.to_owned()], of_rounds(times)].concat());
    }
    let ratios: Vec<f64> = new.iter().zip(open).map(|(new, open)| new / open).collect();
    let ratios = of_rounds(&ratios);
    table.row([vec!["new / open".to_owned()], ratios].concat());
    format!(
        "A new session beside 100 (the demo server; from before the connection is made; after pauses of 2 ms; medians of rounds)\n\n{table}"
    )
}

fn flood_table(added: &[Added]) -> String {
    let mut table = Table::new(["", "p50 µs", "p99 µs", "lowest p99", "highest p99"]);
    for added in added {
        let name = vec![added.what.to_owned(), number(median(&added.medians))];
        table.row([name, of_rounds(&added.p99s)].concat());
    }
    format!(
        "A request beside a flood of lines of 64 KiB to the same process (from the client's write to the server's read; \
         medians of rounds)\n\n{table}"
    )
}

/// The median of rounds, the lowest and the highest.
fn of_rounds(figures: &[f64]) -> Vec<String> {
    let shares = [0.5, 0.0, 1.0];
    let at = |share| number(percentile(&mut figures.to_vec(), share));
    shares.map(at).into()
}

fn serial_table(waits: &[Wait]) -> String {
    let alone = waits[0].millis;
    let mut table = Table::new(["requests before it", "response after ms", "as alone"]);
    for wait in waits {
        let times = format!("{:.1} ×", wait.millis / alone);
        table.row([wait.before.to_string(), number(wait.millis), times]);
    }
    let service_time = serial::SERVICE_TIME.as_millis();
    format!(
        "A server that takes {service_time} ms for a request and serves one after the other\n\n{table}"
    )
}
