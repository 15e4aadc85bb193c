//! What many sessions cost: memory, processor time while idle, round trips and heartbeats; and whether they leave
//! anything behind.
//!
//! `cargo bench --bench sessions [-- N] [--quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod report;
mod trial;
mod usage;

use std::fs;
use std::process::{Command, exit};
use std::time::Duration;

use common::affinity::Affinity;
use common::end_to_end::processes;
use common::options::Options;
use common::{PROXY, earlier_build, echo_server, family, machine, reference, results};
use trial::{Figures, Windows};

const DEFAULT_SESSIONS: usize = 1000;

/// The Python script is measured with at most this many: it takes long to open them.
const MOST_SESSIONS_OF_SCRIPT: usize = 1000;

/// Left to the rest of the system.
const SPARE_PROCESSES: usize = 1000;

const FULL: Windows = Windows {
    idle: Duration::from_secs(10),
    heartbeats: Duration::from_secs(30),
};
const QUICK: Windows = Windows {
    idle: Duration::from_secs(2),
    heartbeats: Duration::from_secs(5),
};

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    let windows = if options.quick { QUICK } else { FULL };
    let sessions = sessions_asked_for();
    check_limits(sessions);
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    family::adopt_orphans().expect("orphans can be adopted");

    let mut trials = vec![(
        "mcp-tcp-proxy",
        run(proxy(PROXY, windows), sessions, true, windows, &affinity),
    )];
    if let Some(path) = earlier_build() {
        let figures = run(proxy(&path, windows), sessions, true, windows, &affinity);
        trials.push(("earlier build", figures));
    }
    if machine::is_installed("tcpserver") {
        let figures = run(tcpserver(sessions), sessions, false, windows, &affinity);
        trials.push(("tcpserver", figures));
    }
    if let Some(script) = reference() {
        let sessions = sessions.min(MOST_SESSIONS_OF_SCRIPT);
        let command = script_command(&script, windows);
        let figures = run(command, sessions, true, windows, &affinity);
        trials.push(("Python script", figures));
    }
    let text = report::text(&trials, windows, affinity.count());
    println!("{text}");
    let files = [
        ("sessions.svg", report::chart(&trials)),
        ("sessions.txt", text),
    ];
    results::keep(options, files).expect("results can be written");
}

/// The first number among the arguments.
fn sessions_asked_for() -> usize {
    let mut words = std::env::args().skip(1);
    let number = words.find_map(|word| word.parse().ok());
    number.unwrap_or(DEFAULT_SESSIONS).max(1)
}

/// Ends the benchmark if the system does not allow this many sessions.
fn check_limits(sessions: usize) {
    let by_descriptors = processes::sessions_that_fit(sessions);
    let most = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(usize::MAX)
    };
    let processes = most("/proc/sys/kernel/pid_max").min(most("/proc/sys/kernel/threads-max"));
    let possible = by_descriptors.min(processes.saturating_sub(SPARE_PROCESSES));
    if possible < sessions {
        eprintln!(
            "{sessions} sessions are not possible here: each takes a process (/proc/sys/kernel/pid_max) and four \
             descriptors in the proxy (`ulimit -Hn`). The most is {possible}: cargo bench --bench sessions -- {possible}"
        );
        exit(2);
    }
}

fn run(
    command: Command,
    sessions: usize,
    has_heartbeats: bool,
    windows: Windows,
    affinity: &Affinity,
) -> Result<Figures, String> {
    eprintln!("{sessions} sessions: {}", command.get_program().display());
    let figures = trial::run(command, sessions, has_heartbeats, windows, affinity);
    if let Err(error) = &figures {
        eprintln!("failed: {error}");
    }
    family::settle(&[], Duration::from_secs(10));
    figures
}

fn proxy(path: &str, windows: Windows) -> Command {
    let mut command = Command::new(path);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    command.args(heartbeat_option(windows));
    command.arg("--").args(echo_server::command());
    command
}

fn tcpserver(sessions: usize) -> Command {
    // One more is opened beside them, and those before may not have ended.
    let most = (3 * sessions).to_string();
    let mut command = Command::new("tcpserver");
    command.args(["-HR", "-l0", "-b", "128", "-c", &most, "127.0.0.1", "0"]);
    command.args(echo_server::command());
    command
}

fn script_command(script: &str, windows: Windows) -> Command {
    let mut command = Command::new("python3");
    command.args([script, "--host", "127.0.0.1", "--port", "0"]);
    command.args(heartbeat_option(windows));
    command.arg("--").args(echo_server::command());
    command
}

fn heartbeat_option(windows: Windows) -> [String; 2] {
    let seconds = windows.heartbeats.as_secs_f64();
    ["--heartbeat-interval".to_owned(), seconds.to_string()]
}
