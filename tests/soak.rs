//! A mixed load with crashes and churn for minutes: afterwards the proxy holds no more than it did after the warm-up.
//!
//! ```text
//! cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! takes three minutes, or as many seconds as `MCP_TCP_PROXY_SOAK_S` says, but nine rounds at least.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::{Duration, Instant};

use common::crowd::crowd;
use common::visitor::Tally;
use common::{Bystander, DEADLINE, Footprint, Proxy, Random, servers};
use nix::sys::signal::Signal;

/// How long it takes by default.
const DEFAULT_TIME: Duration = Duration::from_mins(3);

/// Clients at a time.
const VISITORS: u64 = 24;

/// The load comes in rounds, each of which takes this part of the time. Between them nothing happens, so that what is
/// held can be compared.
const ROUNDS_IN_TIME: u32 = 20;

/// After these, everything has happened that ever will, and buffers and tables have their size.
const WARM_UP_ROUNDS: usize = 3;

/// Of so many rounds, at the beginning and at the end, the median is compared.
const COMPARED_ROUNDS: usize = 3;

/// By how much these medians may differ: where the allocator finds room for what stays is a matter of chance. In the
/// default time, a leak of a kilobyte a session comes to more.
const SLACK_KIB: u64 = 512;

fn time() -> Duration {
    match std::env::var("MCP_TCP_PROXY_SOAK_S") {
        Ok(seconds) => Duration::from_secs(seconds.parse().unwrap()),
        Err(_) => DEFAULT_TIME,
    }
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
#[ignore = "takes minutes"]
fn a_mixed_load_leaves_nothing_behind() {
    common::skip_on_reference!("does not restart a server");
    let time = time();
    let mut random = Random::seeded();
    // Sessions are not to end because a server was killed too often.
    let options = ["--max-restarts", "1000", "--heartbeat-interval", "2"];
    let mut proxy = Proxy::start(&options, &servers::demo());
    let bystander = Bystander::start(proxy.address());
    let spared = proxy.only_server();
    let before = Footprint::of(proxy.pid());
    let mut tally = Tally::default();
    let mut memory = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time || memory.len() < WARM_UP_ROUNDS + 2 * COMPARED_ROUNDS {
        let round = Instant::now();
        tally.add(crowd(&proxy, VISITORS, spared, &mut random, |_| {
            round.elapsed() > time / ROUNDS_IN_TIME
        }));
        bystander.wait_for(1);
        let now = before.wait_until_alone();
        eprintln!("round {}: {now:?}", memory.len() + 1);
        memory.push(now.settled_rss_kib());
    }
    let waits = bystander.end();
    let (exchanges, longest) = (waits.exchanges, waits.longest);
    eprintln!("in {:?}: {tally}", start.elapsed());
    eprintln!("the bystander was answered {exchanges} times, in {longest:?} at most");

    let settled = &memory[WARM_UP_ROUNDS..];
    let first = median(&settled[..COMPARED_ROUNDS]);
    let last = median(&settled[settled.len() - COMPARED_ROUNDS..]);
    eprintln!("RSS after the warm-up: {first} KiB; at the end: {last} KiB");
    assert!(last <= first + SLACK_KIB, "memory grew: {memory:?}");
    // A debug build asserts at its end that no deadline of a session or a process is left.
    proxy.wait_until_childless();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}
