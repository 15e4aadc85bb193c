//! Runs of one world after the other: which seeds there are, and what is shown of the first that fails.

use std::env;
use std::ops::AddAssign;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use crate::{allocated, trace};

/// What is known of a run at its end.
pub trait Summary: Default + AddAssign {
    fn steps(&self) -> u64;
}

/// What the environment asks for, or else this.
pub fn setting(name: &str, default: u64) -> u64 {
    let name = format!("MCP_TCP_PROXY_SIM_{name}");
    match env::var(&name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: '{text}' is not a number")),
        Err(_) => default,
    }
}

/// Runs so many seeds for so many steps each, unless the environment asks for others. `test` is how they are named for cargo.
pub fn run_all<S: Summary>(test: &str, seeds: u64, steps: u64, run: impl Fn(u64, u64) -> S) -> S {
    let _beside = allocated::beside_others();
    let first = setting("SEED", 0);
    let seeds = setting("SEEDS", seeds);
    let steps = setting("STEPS", steps);
    let began = Instant::now();
    let mut sum = S::default();
    let run = |seed| panic::catch_unwind(AssertUnwindSafe(|| run(seed, steps))).ok();
    for seed in first..first + seeds {
        let Some(more) = run(seed) else {
            trace::start();
            let _ = run(seed);
            for event in trace::take() {
                println!("{event}");
            }
            panic!(
                "seed {seed} fails, after {} others; again with\n  \
                 MCP_TCP_PROXY_SIM_SEED={seed} MCP_TCP_PROXY_SIM_SEEDS=1 MCP_TCP_PROXY_SIM_STEPS={steps} \
                 cargo test --test sim {test} -- --nocapture",
                seed - first
            );
        };
        sum += more;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds in {seconds:.1} s, {:.0} steps a second",
        sum.steps() as f64 / seconds
    );
    sum
}

/// What is shown of a run is the same whenever it has the same seed.
pub fn assert_determines(seeds: u64, run: impl Fn(u64) -> String) {
    let _beside = allocated::beside_others();
    for seed in 0..seeds {
        assert_eq!(run(seed), run(seed));
    }
}
