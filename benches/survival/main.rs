//! What an application notices of what its session survives: for each event, the longest time between two results while it
//! calls one thing after the other over `connect`. With a server in native code, and with one of the Python SDK, if
//! `.ci/interop-setup` has installed it.
//!
//! `cargo bench --bench survival [-- --quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod events;
mod floor;
mod host;
mod relay;

use std::time::Duration;

use common::affinity::Affinity;
use common::end_to_end::{installed, servers};
use common::options::Options;
use common::report::Report;
use common::stats::median;
use common::table::{Table, number};
use common::{family, results};
use events::EVENTS;

/// A server to measure with.
struct Subject {
    name: &'static str,
    command: Vec<String>,
    rounds: usize,
}

fn main() {
    let options = Options::from_args();
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    family::adopt_orphans().expect("orphans can be adopted");
    let subjects = subjects(options.quick);
    let mut table = Table::new(headings(&subjects));
    for event in EVENTS {
        let mut row = vec![event.name.to_owned()];
        for subject in &subjects {
            eprintln!("{}: {}", subject.name, event.name);
            row.extend(cells(&(event.measure)(&subject.command, subject.rounds)));
        }
        table.row(row);
    }
    let mut row = vec!["its own start and two results, over pipes without a proxy".to_owned()];
    for subject in &subjects {
        row.extend(floor::measure(&subject.command, subject.rounds));
    }
    table.row(row);
    let mut report = Report::default();
    let rounds: Vec<String> = subjects.iter().map(|of| of.rounds.to_string()).collect();
    report.add(
        &format!(
            "The longest time between two results, ms; {} rounds",
            rounds.join(" and ")
        ),
        &table,
    );
    let text = report.text(affinity.count());
    println!("{text}");
    results::keep(options, [("survival.txt", text)]).expect("results can be written");
}

fn subjects(is_quick: bool) -> Vec<Subject> {
    let mut subjects = vec![Subject {
        name: "demo server",
        command: servers::demo(),
        rounds: if is_quick { 3 } else { 15 },
    }];
    match installed::sdk_server_if_installed() {
        Some(command) => subjects.push(Subject {
            name: "Python SDK",
            command,
            rounds: if is_quick { 1 } else { 5 },
        }),
        None => eprintln!("(no Python SDK server: run .ci/interop-setup first)"),
    }
    subjects
}

fn headings(subjects: &[Subject]) -> Vec<String> {
    let of = |subject: &Subject| [subject.name.to_owned(), "worst".to_owned()];
    let rest = subjects.iter().flat_map(of);
    std::iter::once(String::new()).chain(rest).collect()
}

/// The median, and the worst.
fn cells(times: &[Duration]) -> [String; 2] {
    let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    [median(&times), worst].map(number)
}
