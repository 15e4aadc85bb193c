//! Sessions that give their servers back while nothing passes (`--hibernate-after`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod many;
mod open;
mod shared;
mod unread;
mod wakes;

use std::time::Duration;

use common::client::{modern_meta, result_of};
use common::{Client, DEADLINE, Proxy, Scratch, eventually, servers};
use serde_json::{Value, json};

/// Several times what it takes to hibernate.
const LONG: Duration = Duration::from_secs(2);

/// Long for a test, and short for its deadline.
const OPTIONS: [&str; 2] = ["--hibernate-after", "0.5"];

/// Waits until so many sessions have given their servers back since the start, and none of those is left. Sessions that
/// nobody wakes stay as they are.
#[track_caller]
fn wait_until_asleep(proxy: &Proxy, sessions: usize) {
    let count = |text: &str| {
        let log = proxy.log();
        log.iter().filter(|line| line.contains(text)).count()
    };
    eventually("the sessions to hibernate", 2 * DEADLINE, || {
        count("] hibernates, ") == sessions + count("] wakes up, ")
    });
    eventually("their servers to be gone", DEADLINE, || {
        proxy.descendants().is_empty()
    });
}

/// A server of [`servers::scripted`] that stays when its input ends, and when it is asked to go.
fn stubborn(scratch: &Scratch) -> Vec<String> {
    let mut command = servers::scripted(scratch);
    let script = command.pop().unwrap();
    command.push(format!("trap '' TERM\n{script}\nwhile :; do sleep 1; done"));
    command
}

/// A modern request, and the process id of whoever has answered it.
#[track_caller]
fn modern_pid(client: &mut Client) -> i32 {
    pid_in(&client.request("pid", &modern(&json!({}))))
}

fn modern(params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = modern_meta();
    params
}

#[track_caller]
fn pid_in(answer: &Value) -> i32 {
    let pid = result_of(answer.clone())["pid"].as_i64();
    pid.unwrap_or_else(|| panic!("{answer}"))
        .try_into()
        .unwrap()
}
