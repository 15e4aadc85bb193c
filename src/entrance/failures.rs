//! Who has shown wrong tokens of late.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::client_address::Origin;
use crate::util::time::Time;

/// This many failures are a slip: a token that was copied without its end, an old one in a file.
const FREE_FAILURES: usize = 3;

/// Failures that are older do not count.
const MEMORY_TIME: Duration = Duration::from_mins(1);

/// Origins that are remembered. Whoever has more addresses than these is not slowed down by any table.
const MAX_ORIGINS: usize = 1024;

/// The last failures of each origin.
#[derive(Debug, Default)]
pub(super) struct Failures {
    origins: HashMap<Origin, Recent>,
    /// The origins by the number of their last failure, the oldest first.
    order: BTreeMap<u64, Origin>,
    last_number: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Recent {
    /// The last ones, the oldest first; as many as are free.
    times: [Option<Time>; FREE_FAILURES],
    number: u64,
}

/// The same, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FailuresState(Vec<(Origin, Recent)>);

impl From<FailuresState> for Failures {
    fn from(state: FailuresState) -> Self {
        let order = state.0.iter().map(|(origin, it)| (it.number, *origin));
        let order: BTreeMap<u64, Origin> = order.collect();
        Self {
            last_number: order.last_key_value().map_or(0, |(number, _)| *number),
            order,
            origins: state.0.into_iter().collect(),
        }
    }
}

impl Failures {
    pub(super) fn state(&self) -> FailuresState {
        let all = self.order.values();
        let all = all.filter_map(|origin| Some((*origin, *self.origins.get(origin)?)));
        FailuresState(all.collect())
    }

    /// Notes a failure. Returns whether there had been so many within a short time that whoever made it has to wait.
    pub(super) fn note(&mut self, origin: Origin, now: Time) -> bool {
        self.last_number += 1;
        let number = self.last_number;
        let recent = self.origins.entry(origin).or_insert(Recent {
            times: [None; FREE_FAILURES],
            number,
        });
        let is_recent = |time: Time| now.saturating_since(time) < MEMORY_TIME;
        let are_too_many = recent.times[0].is_some_and(is_recent);
        recent.times.rotate_left(1);
        recent.times[FREE_FAILURES - 1] = Some(now);
        self.order.remove(&recent.number);
        recent.number = number;
        self.order.insert(number, origin);
        if self.origins.len() > MAX_ORIGINS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.origins.remove(&oldest);
        }
        are_too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin::Ipv4(7);

    fn at(seconds: u64) -> Time {
        Time::from_nanos(1 << 40) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_fourth_failure_within_a_minute_has_to_wait() {
        let mut failures = Failures::default();
        for (second, waits) in [(0, false), (10, false), (20, false), (30, true), (31, true)] {
            assert_eq!(failures.note(ORIGIN, at(second)), waits, "{second}");
        }
        assert!(!failures.note(Origin::Ipv4(8), at(31)), "another's first");
        assert!(failures.note(ORIGIN, at(79)));
        assert!(!failures.note(ORIGIN, at(92)), "the third before was at 31");
    }

    #[test]
    fn what_is_known_can_be_written_down() {
        let mut failures = Failures::default();
        for second in 0..3 {
            failures.note(Origin::User(1), at(second));
            failures.note(ORIGIN, at(second));
        }
        let mut failures = Failures::from(failures.state());
        assert!(failures.note(ORIGIN, at(4)));
        assert!(failures.note(Origin::User(1), at(4)));
        assert!(!failures.note(Origin::User(2), at(4)));
    }

    #[test]
    fn of_too_many_origins_the_one_is_forgotten_that_failed_longest_ago() {
        let mut failures = Failures::default();
        for _ in 0..3 {
            failures.note(ORIGIN, at(0));
            failures.note(Origin::User(0), at(0));
        }
        for other in 0..1023 {
            failures.note(Origin::Ipv6(other), at(1));
            failures.note(ORIGIN, at(1));
        }
        assert_eq!(failures.origins.len(), 1024);
        assert!(failures.note(ORIGIN, at(2)));
        assert!(!failures.note(Origin::User(0), at(2)), "was forgotten");
    }
}
