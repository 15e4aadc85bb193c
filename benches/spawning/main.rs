//! What a connection costs: how soon a new client gets a response, with and without servers that wait for it; what a
//! rush of connections does to an open session; and whether the time that a start takes depends on the proxy's size.
//! Compare figures within one run only.
//!
//! `cargo bench --bench spawning`; add `-- first`, `rush` or `heap` for parts of it. What needs the Python SDK is left out
//! unless `.ci/interop-setup` has installed it.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod first_answer;
mod heap;
mod rush;

use std::time::{Duration, Instant};

use common::end_to_end::{Client, installed, servers};
use serde_json::json;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let parts: [(&str, fn()); 3] = [
        ("first", first_answer::measure),
        ("rush", rush::measure),
        ("heap", heap::measure),
    ];
    for (name, measure) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
            println!();
        }
    }
}

/// The servers to measure with: a name, the command, and how many rounds to spend on it.
fn subjects() -> Vec<(&'static str, Vec<String>, usize)> {
    let mut subjects = vec![("demo server", servers::demo(), 30)];
    match installed::sdk_server_if_installed() {
        Some(command) => subjects.push(("Python SDK server", command, 5)),
        None => println!("(no Python SDK server: run .ci/interop-setup first)"),
    }
    subjects
}

/// The time from a request to its response.
fn round_trip(client: &mut Client) -> Duration {
    let begin = Instant::now();
    let answer = client.request("ping", &json!({}));
    assert!(answer.get("result").is_some(), "{answer}");
    begin.elapsed()
}

/// Percentiles of durations.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn median(&self) -> Duration {
        self.at(50)
    }
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn ratio(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64()
}
