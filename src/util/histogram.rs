//! Durations by how long they were, in ranges that end at 1, 2 and 5 times each power of ten.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the ranges end, in microseconds: from 10 µs to 100 s. What is longer is in one more.
pub const BOUNDS_MICROS: [u64; 22] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

/// The first range that a number of so many bits can be in.
const FIRST_OF_BITS: [u8; 65] = first_of_bits();

const fn first_of_bits() -> [u8; 65] {
    let mut table = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let smallest = 1_u64 << (bits - 1);
        let mut range = 0;
        while range < BOUNDS_MICROS.len() && BOUNDS_MICROS[range] < smallest {
            range += 1;
        }
        table[bits] = range as u8;
        bits += 1;
    }
    table
}

/// Counts durations.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Histogram {
    counts: [u64; BOUNDS_MICROS.len() + 1],
    sum_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Nothing was counted.
    pub const fn new() -> Self {
        Self {
            counts: [0; BOUNDS_MICROS.len() + 1],
            sum_nanos: 0,
        }
    }

    /// One more took this long.
    pub fn note(&mut self, time: Duration) {
        self.note_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The same, in nanoseconds.
    #[inline]
    pub fn note_nanos(&mut self, nanos: u64) {
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos);
        // What is over a bound by less than a microsecond is over it.
        let micros = nanos.saturating_add(999) / 1000;
        let mut range = usize::from(FIRST_OF_BITS[(u64::BITS - micros.leading_zeros()) as usize]);
        while BOUNDS_MICROS
            .get(range)
            .is_some_and(|bound| *bound < micros)
        {
            range += 1;
        }
        self.counts[range] += 1;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    /// For each bound from the first to the last of these on, in seconds: how many took no longer.
    pub fn cumulative(&self, first_micros: u64, last_micros: u64) -> Vec<(f64, u64)> {
        let mut sum = 0;
        let bounds = BOUNDS_MICROS.iter().zip(&self.counts);
        bounds
            .filter_map(|(bound, count)| {
                sum += count;
                let is_shown = (first_micros..=last_micros).contains(bound);
                is_shown.then_some((*bound as f64 / 1e6, sum))
            })
            .collect()
    }

    /// What has come since an earlier state.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.sum_nanos = self.sum_nanos.wrapping_sub(earlier.sum_nanos);
        for (count, before) in since.counts.iter_mut().zip(&earlier.counts) {
            *count -= before;
        }
        since
    }

    /// Counts what another has counted, too.
    pub fn add(&mut self, other: &Self) {
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The time that this share of them took at most, in seconds: the end of a range, so at most 2.5 times too much. Zero if
    /// there were none.
    pub fn quantile(&self, share: f64) -> f64 {
        let all = self.count();
        let wanted = (all as f64 * share).ceil();
        let mut sum = 0;
        for (range, count) in self.counts.iter().enumerate() {
            sum += count;
            if all > 0 && sum as f64 >= wanted {
                let last = BOUNDS_MICROS[BOUNDS_MICROS.len() - 1];
                return *BOUNDS_MICROS.get(range).unwrap_or(&last) as f64 / 1e6;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The range by looking at all of them.
    fn range_of(nanos: u64) -> usize {
        let bounds = BOUNDS_MICROS.iter().map(|micros| micros * 1000);
        bounds.take_while(|bound| *bound < nanos).count()
    }

    #[test]
    fn each_duration_is_in_the_range_that_ends_at_it_or_after_it() {
        let mut nanos = vec![0, 1, u64::MAX];
        for bound in BOUNDS_MICROS {
            nanos.extend([bound * 1000 - 1, bound * 1000, bound * 1000 + 1]);
        }
        nanos.extend((0..64).map(|bits| 1_u64 << bits));
        for nanos in nanos {
            let mut histogram = Histogram::default();
            histogram.note(Duration::from_nanos(nanos));
            let range = histogram.counts.iter().position(|count| *count == 1);
            assert_eq!(range, Some(range_of(nanos)), "{nanos}");
        }
    }

    #[test]
    fn what_is_shown_counts_all_that_took_no_longer() {
        let mut histogram = Histogram::default();
        for micros in [5, 150, 150, 3_000, 500_000_000] {
            histogram.note(Duration::from_micros(micros));
        }
        let shown = histogram.cumulative(100, 5_000);
        let counts: Vec<u64> = shown.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 3, 3, 3, 3, 4]);
        assert!((shown[0].0 - 1e-4).abs() < 1e-12 && histogram.count() == 5);
        assert!((histogram.sum_seconds() - 500.003_305).abs() < 1e-9);
        assert!((histogram.quantile(0.5) - 2e-4).abs() < 1e-12);
        assert!((histogram.quantile(1.0) - 100.0).abs() < 1e-12);
        let mut twice = histogram.clone();
        twice.add(&histogram);
        assert_eq!(twice.cumulative(5_000, 5_000)[0].1, 8);
        assert!((twice.sum_seconds() - 2.0 * histogram.sum_seconds()).abs() < 1e-9);
        let none = histogram.since(&histogram.clone());
        assert_eq!(none.count(), 0);
        assert!(none.quantile(0.5).abs() < 1e-12);
    }
}
