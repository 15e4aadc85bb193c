//! Keeps others from flooding the log, and counts what is left out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::time::Time;

/// How many lines may be logged.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LogRate {
    /// Lines that are logged at once, however fast they come.
    pub burst: u32,
    /// After a burst, one more line is logged each time this has passed.
    pub interval: Duration,
}

/// A token bucket for log lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRateLimit {
    rate: LogRate,
    tokens: u32,
    refilled: Time,
    left_out: u64,
}

impl LogRateLimit {
    /// A full bucket.
    pub const fn new(rate: &'static LogRate) -> Self {
        Self {
            rate: *rate,
            tokens: rate.burst,
            refilled: Time::from_nanos(0),
            left_out: 0,
        }
    }

    /// Whether one more line may be logged now; if not, it is counted.
    pub fn admit(&mut self, now: Time) -> bool {
        let is_admitted = self.take(now);
        self.left_out += u64::from(!is_admitted);
        is_admitted
    }

    /// Whether one more line may be logged now. If not, whoever asks may ask again; see [`Self::leave_out`].
    pub fn take(&mut self, now: Time) -> bool {
        if self.is_full(now) {
            self.tokens = self.rate.burst;
            self.refilled = now;
        } else {
            // Less than the burst.
            let earned = self.earned(now) as u32;
            self.tokens += earned;
            self.refilled += self.rate.interval * earned;
        }
        let has_token = self.tokens > 0;
        self.tokens -= u32::from(has_token);
        has_token
    }

    /// Counts a line that is left out.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Whether a whole burst may be logged: there was nothing to be logged for a while.
    pub fn is_full(&self, now: Time) -> bool {
        self.earned(now) >= u128::from(self.rate.burst - self.tokens)
    }

    fn earned(&self, now: Time) -> u128 {
        now.saturating_since(self.refilled).as_nanos() / self.rate.interval.as_nanos()
    }

    /// How many lines were left out since the last call.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);
    const BURST: u32 = 100;
    static RATE: LogRate = LogRate {
        burst: BURST,
        interval: INTERVAL,
    };

    #[test]
    fn a_burst_then_a_trickle() {
        let begin = Time::from_nanos(1 << 40);
        let mut limit = LogRateLimit::new(&RATE);
        assert_eq!(
            (0..250).filter(|_| limit.admit(begin)).count() as u32,
            BURST
        );
        assert_eq!((limit.take_left_out(), limit.take_left_out()), (150, 0));
        let almost = begin + INTERVAL * (BURST - 1);
        assert!(!limit.is_full(almost) && limit.is_full(almost + INTERVAL));
        let later = begin + 3 * INTERVAL;
        assert_eq!((0..10).filter(|_| limit.admit(later)).count(), 3);
        let much_later = begin + Duration::from_hours(1);
        assert_eq!(
            (0..250).filter(|_| limit.admit(much_later)).count() as u32,
            BURST
        );
    }

    #[test]
    fn only_what_is_left_out_is_counted() {
        let now = Time::from_nanos(1 << 40);
        let mut limit = LogRateLimit::new(&RATE);
        assert_eq!((0..250).filter(|_| limit.take(now)).count() as u32, BURST);
        assert_eq!(limit.take_left_out(), 0);
        limit.leave_out();
        assert_eq!(limit.take_left_out(), 1);
    }
}
