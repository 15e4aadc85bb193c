//! A point in time as a plain number, so that state which holds deadlines can be compared, stored and made up in tests.

use std::num::NonZeroU64;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of a clock that never goes back: `CLOCK_MONOTONIC` in the program, any other in tests.
///
/// 64 bits last 584 years; arithmetic saturates, so a deadline that no clock will reach is one that never comes.
///
/// Each session has a dozen times that are seldom set, so `None` takes no room: kept is one nanosecond more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(NonZeroU64);

const _: () = assert!(size_of::<Option<Time>>() == size_of::<Time>());

impl Time {
    /// The time that is `nanos` nanoseconds after the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// How long before this `earlier` was; zero if it was not before.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::from_nanos(0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self::from_nanos(self.as_nanos().saturating_sub(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_within_the_clock() {
        let time = Time::from_nanos(1_000);
        assert_eq!((time + Duration::from_nanos(5)).as_nanos(), 1_005);
        assert_eq!((time - Duration::from_secs(1)).as_nanos(), 0);
        assert_eq!(time + Duration::MAX, Time::from_nanos(u64::MAX));
        assert_eq!(time - (time + Duration::from_nanos(7)), Duration::ZERO);
        assert_eq!(
            (time + Duration::from_nanos(7)) - time,
            Duration::from_nanos(7)
        );
    }
}
