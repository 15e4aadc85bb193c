//! Times, and what is said of them: mean, percentiles, the longest.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is told apart: 3 digits of each time, but nothing below this, in nanoseconds.
const SHORTEST_NANOS: u64 = 100;

/// Longer times count as this: an hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

const DIGITS: u8 = 3;

/// The percentiles that are reported: the name, the share, and how many samples it takes. With fewer, it would be the
/// word of less than ten of them.
pub(super) const PERCENTILES: [(&str, f64, u64); 5] = [
    ("p50", 0.5, 1),
    ("p90", 0.9, 1),
    ("p99", 0.99, 1),
    ("p99_9", 0.999, 10_000),
    ("p99_99", 0.9999, 100_000),
];

/// Times, to three digits each.
#[derive(Debug, Clone)]
pub(super) struct Samples(Histogram<u64>);

impl Default for Samples {
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants, and in their order"
    )]
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(SHORTEST_NANOS, 2 * SHORTEST_NANOS, DIGITS);
        let mut histogram = histogram.expect("a histogram has bounds in their order");
        // Room for an hour would take ten times as much as most have.
        histogram.auto(true);
        Self(histogram)
    }
}

impl Samples {
    pub(super) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // What is within an hour has room.
        let _ = self.0.record(nanos.min(LONGEST_NANOS));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // All have the same lower bound, and room for what the other has.
        let _ = self.0.add(&other.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.reset();
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The arithmetic mean, in microseconds.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.mean() / 1e3)
    }

    /// The longest, in microseconds.
    pub(super) fn max(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.0.max() as f64 / 1e3)
    }

    /// The time that this share of the samples took at most, in microseconds; none of fewer samples than this.
    pub(super) fn percentile(&self, share: f64, least_count: u64) -> Option<f64> {
        let is_known = self.count() >= least_count.max(1);
        is_known.then(|| self.0.value_at_quantile(share) as f64 / 1e3)
    }

    /// Each of [`PERCENTILES`] by its name, in microseconds.
    pub(super) fn percentiles(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let known = |(name, share, least)| (name, self.percentile(share, least));
        PERCENTILES.into_iter().map(known)
    }

    pub(super) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(micros: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        for micros in micros {
            samples.add(Duration::from_micros(micros));
        }
        samples
    }

    fn assert_close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!(
            (found - expected).abs() <= expected / 1000.0,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let samples = samples(1..=100_000);
        for ((_, found), expected) in samples.percentiles().zip([0.5, 0.9, 0.99, 0.999, 0.9999]) {
            assert_close(found, expected * 100_000.0);
        }
        assert_close(samples.mean(), 50_000.5);
        assert_close(samples.max(), 100_000.0);
    }

    #[test]
    fn few_samples_have_no_high_percentiles() {
        let known = |samples: &Samples| {
            let known = samples.percentiles().filter(|(_, value)| value.is_some());
            known.map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(known(&samples([])), [""; 0]);
        assert_eq!((samples([]).mean(), samples([]).max()), (None, None));
        assert_eq!(known(&samples(0..9_999)), ["p50", "p90", "p99"]);
        assert_eq!(known(&samples(0..10_000)).last(), Some(&"p99_9"));
        assert_eq!(known(&samples(0..100_000)).last(), Some(&"p99_99"));
    }

    #[test]
    fn what_is_longer_than_an_hour_counts_as_one() {
        let mut samples = samples([]);
        samples.add(Duration::MAX);
        assert_close(samples.max(), LONGEST_NANOS as f64 / 1e3);
        let mut both = samples.clone();
        both.merge(&samples);
        assert_eq!(both.count(), 2);
        both.clear();
        assert_eq!(both.count(), 0);
    }
}
