//! What it saves that clients share servers, and what it costs: memory and processes by number of clients, round trips, and
//! messages per second, each against a process for every client, in the same run.
//!
//! `cargo bench --bench sharing [-- --quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod memory;
mod speed;

use std::process::Command;
use std::time::Duration;

use common::affinity::Affinity;
use common::options::Options;
use common::table::{Table, number};
use common::{PROXY, family, machine, results};
use memory::Row;
use speed::Speed;

/// Shared processes.
const PROCESSES: &str = "4";

fn main() {
    let options = Options::from_args();
    family::adopt_orphans().expect("orphans can be adopted");
    let cores = Affinity::of_this_process()
        .expect("the affinity mask can be read")
        .count();
    let rows = memory::measure(options.quick);
    let speed = speed::measure(options.quick);
    let text = [
        memory_table(&rows),
        speed_table(&speed),
        format!("Where\n\n{}", machine::list(&machine::facts(cores))),
    ];
    let text = text.join("\n");
    println!("{text}");
    let files = [
        ("sharing.svg", memory::chart(&rows).svg()),
        ("sharing.txt", text),
    ];
    results::keep(options, files).expect("results can be written");
}

/// The program, with or without shared processes.
fn proxy(is_shared: bool, server: &[&str]) -> Command {
    let mut command = Command::new(PROXY);
    command.args([
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--max-sessions",
        "20000",
    ]);
    if is_shared {
        command.args(["--share", PROCESSES]);
    }
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
    format!("Speed (the demo server; medians of rounds that take turns)\n\n{table}")
}
