//! Keeps a server's output from flooding the log, and counts what is left out.

use std::time::Duration;

use crate::util::time::Time;

/// Lines that are logged at once, however fast they come.
const BURST: u32 = 100;

/// After a burst, one more line is logged each time this has passed.
const INTERVAL: Duration = Duration::from_millis(50);

/// A token bucket for log lines.
#[derive(Debug)]
pub struct LogRateLimit {
    tokens: u32,
    refilled: Time,
    left_out: u64,
}

impl LogRateLimit {
    /// A full bucket.
    pub fn new(now: Time) -> Self {
        Self {
            tokens: BURST,
            refilled: now,
            left_out: 0,
        }
    }

    /// Whether one more line may be logged now; if not, it is counted.
    pub fn admit(&mut self, now: Time) -> bool {
        let earned = self.earned(now);
        if self.is_full(now) {
            self.tokens = BURST;
            self.refilled = now;
        } else {
            self.tokens += earned as u32;
            self.refilled += INTERVAL * earned as u32;
        }
        if self.tokens == 0 {
            self.left_out += 1;
            return false;
        }
        self.tokens -= 1;
        true
    }

    /// Whether a whole burst may be logged: there was nothing to be logged for a while.
    pub fn is_full(&self, now: Time) -> bool {
        self.earned(now) >= u128::from(BURST - self.tokens)
    }

    fn earned(&self, now: Time) -> u128 {
        now.saturating_since(self.refilled).as_millis() / INTERVAL.as_millis()
    }

    /// How many lines were left out since the last call.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let begin = Time::from_nanos(1 << 40);
        let mut limit = LogRateLimit::new(begin);
        assert_eq!(
            (0..250).filter(|_| limit.admit(begin)).count() as u32,
            BURST
        );
        assert_eq!((limit.take_left_out(), limit.take_left_out()), (150, 0));
        assert!(
            !limit.is_full(begin + INTERVAL * (BURST - 1))
                && limit.is_full(begin + INTERVAL * BURST)
        );
        let later = begin + 3 * INTERVAL;
        assert_eq!((0..10).filter(|_| limit.admit(later)).count(), 3);
        let much_later = begin + Duration::from_hours(1);
        assert_eq!(
            (0..250).filter(|_| limit.admit(much_later)).count() as u32,
            BURST
        );
    }
}
