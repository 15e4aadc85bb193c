//! Another program goes on in the proxy's process, and sessions do not notice.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod many;
mod refused;
mod sessions;
mod sockets;

use std::process::{Command, Output};

use common::proxy::command_under_test;
use common::{DEADLINE, Proxy, eventually};
use nix::sys::signal::Signal;

/// What the log says once another program goes on.
const GOES_ON: &str = " goes on with ";

/// How often a program was replaced in this process.
fn generation(proxy: &Proxy) -> u64 {
    let line = std::fs::read(format!("/proc/{}/cmdline", proxy.pid())).unwrap();
    let mut words = line.split(|byte| *byte == 0);
    // For a moment there are none.
    if words.nth(1) != Some(b"--generation") {
        return 0;
    }
    let number = words.next().unwrap();
    str::from_utf8(number).unwrap().parse().unwrap()
}

/// Has the proxy upgraded, and waits until it was.
#[track_caller]
fn upgrade(proxy: &Proxy) {
    let before = generation(proxy);
    proxy.signal(Signal::SIGUSR2);
    eventually("the next program", 2 * DEADLINE, || {
        generation(proxy) > before
    });
    // The program before may have said so in its time, but not as often.
    let count = usize::try_from(before).unwrap() + 1;
    proxy.wait_for_logs(GOES_ON, count);
}

/// What `mcp-tcp-proxy upgrade` comes to.
fn upgrade_by_command(words: &[&str]) -> Output {
    let mut command = Command::new(command_under_test().get_program());
    command.arg("upgrade").args(words).output().unwrap()
}
