//! `mcp-tcp-proxy bench` as a program: what it reports of servers that behave, and of those that don't.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod fake;
mod faults;
mod honest;
mod loops;
mod reports;
mod targets;
mod usage;

use std::process::{Command, Output, Stdio};

use common::proxy::command_under_test;
use serde_json::Value;

/// What nearly every run is given: so many requests, and nothing before them.
const SHORT: [&str; 4] = ["--requests", "200", "--warm-up", "0"];

/// How a run ended, and what it printed.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = command_under_test();
    command
        .arg("bench")
        .args(arguments)
        .env_remove("MCP_TCP_PROXY_TOKEN")
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Ended {
    Ended::of(command(arguments).output().unwrap())
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The report, if it is JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs it with these options and a short run's, and returns the report of a run in which all went well.
#[track_caller]
fn report_of(arguments: &[&str]) -> Value {
    let ended = run(&[&["--json"], &SHORT[..], arguments].concat());
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    ended.json()
}

/// All requests were answered well.
#[track_caller]
fn assert_all_well(report: &Value) {
    assert_eq!(report["requests"], 200, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    for name in ["mean", "p50", "p99", "max"] {
        assert!(report["latency_us"][name].as_f64() > Some(0.0), "{report}");
    }
    // There are too few samples for these.
    assert!(report["latency_us"]["p99_9"].is_null(), "{report}");
    assert!(report["requests_per_second"].as_f64() > Some(0.0));
    assert!(report["bytes_per_second"].as_f64() > Some(0.0));
}
