//! New servers under living sessions (SIGUSR1).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

mod configured;
mod in_place;
mod living;
mod load;
mod unfit;
mod without;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, eventually_some, servers};

/// In the log when all sessions have moved that were to.
const DONE: &str = "are replaced: ";

/// In the log when a new server was not fit.
const NOT_FIT: &str = "are not replaced any more";

/// A session after its handshake, at a server that insists on one.
fn opened(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.initialize();
    client
}

fn legacy(scratch: &Scratch, options: &[&str]) -> Proxy {
    Proxy::start(options, &servers::legacy(scratch))
}

/// Wants new servers, for the `count`th time, and waits until all sessions have theirs.
#[track_caller]
fn swap(proxy: &Proxy, count: usize) {
    proxy.signal(Signal::SIGUSR1);
    proxy.wait_for_logs(DONE, count);
}

/// Waits until none but these servers are left.
#[track_caller]
fn only_left(proxy: &Proxy, pids: &[i32]) {
    eventually("old servers to be gone", DEADLINE, || {
        let left = proxy.descendants();
        left.len() == pids.len() && pids.iter().all(|pid| left.iter().any(|it| it.pid == *pid))
    });
}

#[track_caller]
fn pid_in(answer: &Value) -> i32 {
    let pid = answer["result"]["pid"].as_i64();
    let pid = pid.unwrap_or_else(|| panic!("{answer}"));
    pid.try_into().unwrap()
}

/// How many handshakes a server has got.
fn handshakes(scratch: &Scratch, server: i32) -> usize {
    let methods = scratch.methods(server);
    let both = ["initialize", "notifications/initialized"];
    let counts = both.map(|method| methods.iter().filter(|it| *it == method).count());
    assert_eq!(counts[0], counts[1], "{methods:?}");
    counts[0]
}
