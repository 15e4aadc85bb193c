//! Sessions whose connections are lost and come back: with clients of the test's own, and with `connect`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod cuts;
mod ends;
mod lies;
mod network;
mod places;
mod programs;
mod reloads;
mod upgrades;
mod wire;

use serde_json::{Value, json};

pub(crate) use crate::common::counting::{
    Counting, assert_granted, first_line, first_line_with, id, line, resumed,
};

/// A request that the server sends back, under this id.
fn with_id(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "m"})
}
