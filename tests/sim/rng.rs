//! Random choices that a seed determines.

use crate::split_mix::SplitMix64;

/// What a world and those in it decide by.
#[derive(Debug, Clone)]
pub struct Rng(SplitMix64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// Another generator, whose numbers do not depend on how many are taken from this one.
    pub fn fork(&mut self) -> Self {
        Self(SplitMix64(self.next()))
    }

    fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number from 0 up to, and without, `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
