//! Percentiles and medians.

use std::time::Duration;

/// The value below which this share of the samples lies. Sorts the samples.
pub(crate) fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples[rounded((samples.len() - 1) as f64 * share)]
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(&mut samples.to_vec(), 0.5)
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The nearest whole number; the value must not be negative.
#[allow(
    clippy::cast_sign_loss,
    reason = "a value that is negative after all becomes zero"
)]
pub(crate) fn rounded(value: f64) -> usize {
    value.round() as usize
}
