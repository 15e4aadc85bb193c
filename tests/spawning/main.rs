//! When servers are started, and when unused sessions end: late, ahead of time, in fair order and not too many at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod idle;
mod lazy;
mod pool;
mod starting;

use std::time::UNIX_EPOCH;

use common::{Client, DEADLINE, NoLine};

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;

#[track_caller]
fn expect_end(client: &mut Client) {
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(client.try_recv(DEADLINE), Err(end));
}

/// The time at which a line was logged, since 1970.
fn logged_at(line: &str) -> f64 {
    let time = humantime::parse_rfc3339(line.split(' ').next().unwrap()).unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
