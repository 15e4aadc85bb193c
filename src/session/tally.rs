//! What went wrong in a session, and how fast its server responded, in a few bytes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::defaults::is_default;
use crate::util::plural::Counted;

/// Response times that are told apart: each range ends at twice the time of the one before. The last one is open.
const RANGES: usize = 24;

/// Where the first range ends, in microseconds: no response is that fast.
const FIRST_MICROS: u64 = 16;

/// What is counted while a session lasts.
#[derive(Debug, PartialEq, Eq, Default, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Tally {
    /// How many responses took how long; of many, the last ones count more.
    #[serde(default, skip_serializing_if = "is_default")]
    responses: [u8; RANGES],
    #[serde(default, skip_serializing_if = "is_default")]
    slowest_micros: u32,
    /// Errors that the server responded with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) errors: u32,
    /// Messages that the proxy did not accept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) refused: u32,
    /// Requests whose server, or the connection to it, was lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) lost: u16,
    /// Servers after the first, or connections to one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) restarts: u16,
}

const _: () = assert!(size_of::<Tally>() <= 40);

impl Tally {
    /// A response took this long.
    pub(super) fn responded(&mut self, micros: u64) {
        self.slowest_micros = self
            .slowest_micros
            .max(micros.try_into().unwrap_or(u32::MAX));
        let range = (micros / FIRST_MICROS).checked_ilog2();
        let range = range.map_or(0, |log| log as usize + 1).min(RANGES - 1);
        if self.responses[range] == u8::MAX {
            // That keeps the median.
            self.responses.iter_mut().for_each(|count| *count /= 2);
        }
        self.responses[range] += 1;
    }

    /// The time that half of the responses took at most, within a factor of two.
    fn median(&self) -> Option<Duration> {
        let all: u32 = self.responses.iter().map(|count| u32::from(*count)).sum();
        let mut left = all.div_ceil(2);
        let range = self.responses.iter().position(|count| {
            left = left.saturating_sub(u32::from(*count));
            left == 0
        });
        let range = range.filter(|_| all > 0)?;
        let begin = if range == 0 {
            0
        } else {
            FIRST_MICROS << (range - 1)
        };
        let middle = u64::midpoint(begin, FIRST_MICROS << range);
        Some(Duration::from_micros(
            middle.min(self.slowest_micros.into()),
        ))
    }
}

impl fmt::Display for Tally {
    /// What there is to say, each part after a comma or a semicolon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(median) = self.median() {
            let slowest = Duration::from_micros(self.slowest_micros.into());
            let millis = |time: Duration| time.as_secs_f64() * 1e3;
            write!(
                f,
                "; responses took about {:.2} ms (median), the slowest {:.2} ms",
                millis(median),
                millis(slowest)
            )?;
        }
        let counts = [
            (Counted(self.errors, "error"), ""),
            (Counted(self.lost.into(), "lost request"), " (502)"),
            (Counted(self.restarts.into(), "restart"), ""),
            (Counted(self.refused, "refused message"), ""),
        ];
        let counts = counts.iter().filter(|(counted, _)| counted.0 > 0);
        for (place, (counted, code)) in counts.enumerate() {
            let mark = if place == 0 { ';' } else { ',' };
            write!(f, "{mark} {counted}{code}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(micros: &[u64]) -> u64 {
        let mut tally = Tally::default();
        for micros in micros {
            tally.responded(*micros);
        }
        tally.median().unwrap().as_micros() as u64
    }

    #[test]
    fn the_median_is_right_within_a_factor_of_two() {
        for exact in [20, 100, 1000, 50_000, 1_000_000, 20_000_000] {
            let told = median(&[exact / 10, exact, exact * 10]);
            assert!((exact / 2..=exact * 2).contains(&told), "{exact}: {told}");
        }
        assert_eq!(median(&[0]), 0);
        assert_eq!(median(&[1000, 9000]), 768, "of two, the faster");
        assert!(Tally::default().median().is_none());
    }

    #[test]
    fn many_responses_are_counted_as_well_as_few() {
        let mut tally = Tally::default();
        for number in 0..300_000_u64 {
            let micros = if number % 3 == 0 { 100_000 } else { 1000 };
            tally.responded(micros);
        }
        let median = tally.median().unwrap().as_micros();
        assert!((500..2000).contains(&median), "{median}");
    }

    #[test]
    fn only_what_has_happened_is_told() {
        assert_eq!(Tally::default().to_string(), "");
        let mut tally = Tally {
            errors: 1,
            restarts: 2,
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "; 1 error, 2 restarts");
        tally.responded(3_000);
        tally.responded(3 * 3600 * 1_000_000);
        assert_eq!(
            tally.to_string(),
            "; responses took about 3.07 ms (median), the slowest 4294967.29 ms; 1 error, 2 restarts"
        );
    }
}
