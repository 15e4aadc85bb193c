//! When servers are started, and when unused sessions end: late, ahead of time, in fair order and not too many at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod idle;
mod lazy;
mod starting;

use common::{Client, DEADLINE, NoLine};

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;

#[track_caller]
fn expect_end(client: &mut Client) {
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(client.try_recv(DEADLINE), Err(end));
}
