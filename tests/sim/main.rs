//! A deterministic simulation: the loop of the proxy itself, with its phases, its scheduler, start queue, waiting servers
//! and sessions, over a system that is a script: random clients, servers, transports and shortages, and a clock of its own.
//! The stdio side takes part by sessions over the same scheduler.
//!
//! A seed determines a run. `MCP_TCP_PROXY_SIM_SEED`, `_SEEDS` and `_STEPS` set the first seed, how many there are, and
//! the steps of each run; a failure prints the line that runs it again, and what happened last.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]
#![allow(
    clippy::struct_excessive_bools,
    reason = "the programs of a random world have many habits"
)]

mod allocated;
mod below;
mod checks;
mod client;
mod connectors;
mod hibernation;
mod journal;
mod observe;
mod order;
mod outgoing;
mod place;
mod plain_system;
mod processes;
mod resume;
mod rng;
mod script;
mod seeds;
mod server;
mod shared;
mod spares;
#[path = "../common/split_mix.rs"]
mod split_mix;
mod standstill;
mod stats;
mod strangers;
mod swaps;
mod text;
mod trace;
mod transport;
mod unused;
mod upgrade;
mod world;
mod wrappers;

use self::seeds::Summary;
use self::stats::Stats;
use self::world::World;

const DEFAULT_SEEDS: u64 = 400;
const DEFAULT_STEPS: u64 = 500;

#[test]
fn every_world_comes_to_its_end_and_nothing_is_lost_on_the_way() {
    run_all(World::new, DEFAULT_SEEDS);
}

/// Sessions hibernate there, as soon as they may.
#[test]
fn in_worlds_that_sleep_much_nothing_is_lost_either() {
    let stats = run_all(World::sleepy, DEFAULT_SEEDS / 8);
    assert!(stats.count(stats::Fault::Hibernates) > 0);
}

/// One loop takes over from another there, again and again.
#[test]
fn in_worlds_that_are_upgraded_nothing_is_lost_either() {
    let stats = run_all(World::upgrading, DEFAULT_SEEDS / 8);
    assert!(stats.count(stats::Fault::Upgraded) > 0);
}

/// New servers are wanted there, again and again.
#[test]
fn in_worlds_in_which_servers_are_replaced_nothing_is_lost_either() {
    let stats = run_all(World::restless, DEFAULT_SEEDS / 2);
    assert!(stats.count(stats::Fault::Moved) > 0 && stats.count(stats::Fault::NotFit) > 0);
}

fn run_all(make: fn(u64) -> World, seeds: u64) -> Stats {
    let run = |seed, steps: u64| make(seed).run(steps as usize);
    let stats = seeds::run_all("", seeds, DEFAULT_STEPS, run);
    println!("{stats}");
    stats
}

impl Summary for Stats {
    fn steps(&self) -> u64 {
        self.steps
    }
}

#[test]
fn a_seed_determines_a_run() {
    seeds::assert_determines(5, |seed| {
        World::new(seed).run(DEFAULT_STEPS as usize).to_string()
    });
}
