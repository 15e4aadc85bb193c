//! Another program goes on in the proxy's process, and sessions do not notice.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod many;
mod mixed;
mod names;
mod panics;
mod refused;
mod sessions;
mod shared;
mod shortage;
mod sockets;
mod states;
mod tls;

use std::process::{Command, Output};

use common::proxy::command_under_test;
pub(crate) use common::upgrades::{GOES_ON, generation, upgrade};

/// What `mcp-tcp-proxy upgrade` comes to.
fn upgrade_by_command(words: &[&str]) -> Output {
    let mut command = Command::new(command_under_test().get_program());
    command.arg("upgrade").args(words).output().unwrap()
}
