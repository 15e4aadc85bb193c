//! When requests are due that are sent at a steady rate, whatever becomes of them.

use std::time::Duration;

use crate::util::time::Time;

/// Times at equal distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    begin: Time,
    /// In nanoseconds.
    interval: f64,
    /// How many were taken.
    taken: u64,
}

impl Schedule {
    /// The first time is `begin`, and then there are this many a second.
    pub(super) fn new(begin: Time, rate: f64) -> Self {
        Self {
            begin,
            interval: 1e9 / rate,
            taken: 0,
        }
    }

    /// The next time. Each is counted from the beginning, so that no error adds up.
    pub(super) fn next(&self) -> Time {
        self.begin + Duration::from_secs_f64(self.taken as f64 * self.interval / 1e9)
    }

    pub(super) fn take(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_millionth_time_is_as_exact_as_the_second() {
        let begin = Time::from_nanos(7);
        let mut schedule = Schedule::new(begin, 3.0);
        for expected in [0, 333_333_333, 666_666_666, 1_000_000_000] {
            let next = schedule.next().as_nanos() - 7;
            assert!(next.abs_diff(expected) <= 1, "{next}");
            schedule.take();
        }
        for _ in 4..3_000_000 {
            schedule.take();
        }
        let million_seconds = 1_000_000 * 1_000_000_000;
        assert!((schedule.next().as_nanos() - 7).abs_diff(million_seconds) <= 1000);
    }
}
