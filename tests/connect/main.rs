//! `connect`, the stdio side: what it says, what passes, what it does when the connection is lost, and how it ends.
//!
//! Most tests play the proxy at the other end themselves, as a proxy that is none can do what a real one never does.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod ending;
mod full_proxy;
mod other_protocols;
mod random_cuts;
mod reconnecting;
mod relaying;
mod resolving;
mod signs_of_life;
mod stderr_kinds;
mod stdio_kinds;
mod tidy;
mod unreachable;
mod usage;
mod without_server;

use std::process::Command;

/// Runs a command to its end. Returns its exit code, and what it wrote to stdout and stderr.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
