//! Random numbers that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::split_mix::SplitMix64;

/// Names the seed that is to be used again.
const SEED_VARIABLE: &str = "MCP_TCP_PROXY_SEED";

/// Numbers that a test takes its decisions by.
pub(crate) struct Random(SplitMix64);

impl Random {
    /// The sequence of the seed in `MCP_TCP_PROXY_SEED`, or another one each time. The seed is printed, so that a test
    /// that fails tells how to repeat what it did.
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var(SEED_VARIABLE).map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::from(now.subsec_nanos())
            },
            |seed| seed.parse().unwrap(),
        );
        eprintln!("{SEED_VARIABLE}={seed}");
        Self(SplitMix64(seed))
    }

    /// Another sequence, for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self(SplitMix64(self.next()))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Whether something happens that does so once in that many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).unwrap();
        (count > 0).then(|| &from[usize::try_from(self.below(count)).unwrap()])
    }

    /// A time of up to that many milliseconds.
    pub(crate) fn milliseconds(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }

    fn next(&mut self) -> u64 {
        self.0.next()
    }
}
