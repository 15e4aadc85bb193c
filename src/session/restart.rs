//! When a lost server is restarted, and when no longer. Policy only: nothing here starts anything.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::time::Time;

/// The shortest time between two starts of a server that seldom fails: as in the Python script that this program
/// replaces.
const COOLDOWN: Duration = Duration::from_secs(1);

/// The same for a server that fails again and again, also as in that script.
const REPEATED_COOLDOWN: Duration = Duration::from_secs(5);

/// For this long a restart counts as recent, and the cooldown is the longer one: a server that works for a minute is
/// not one that fails again and again.
const RECENT: Duration = Duration::from_mins(1);

/// By how much each allowed restart lengthens the window in which they are counted. Longer than [`REPEATED_COOLDOWN`],
/// so that a server that never stops failing does reach the limit.
const WINDOW_PER_RESTART: Duration = Duration::from_secs(6);

/// The shortest window in which restarts are counted: as long as one restart counts as recent.
const MIN_WINDOW: Duration = Duration::from_mins(1);

/// What to do about a lost upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start another, but not before then.
    RetryAt(Time),
    /// Start none: it was lost too often.
    GiveUp {
        /// How many restarts, or attempts to connect, there were.
        restarts: u32,
    },
}

/// Counts the restarts of one session's server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestartPolicy {
    max_restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_start: Option<Time>,
    /// The restarts within the window, oldest first, if there were any.
    #[allow(
        clippy::box_collection,
        reason = "what is seldom there must take little room"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    restarts: Option<Box<VecDeque<Time>>>,
}

impl RestartPolicy {
    /// Allows `max_restarts` within max(60 s, 6 s × `max_restarts`).
    pub fn new(max_restarts: u32) -> Self {
        Self {
            max_restarts,
            last_start: None,
            restarts: None,
        }
    }

    /// The time in which restarts are counted.
    pub fn window(&self) -> Duration {
        MIN_WINDOW.max(WINDOW_PER_RESTART * self.max_restarts)
    }

    /// The server was started, or could not be.
    pub fn started(&mut self, now: Time) {
        self.last_start = Some(now);
    }

    /// The server was lost, or could not be started.
    pub fn lost(&mut self, now: Time) -> Decision {
        let window = self.window();
        let restarts = self.restarts.get_or_insert_default();
        restarts.retain(|at| now.saturating_since(*at) < window);
        let count = restarts.len() as u32;
        if count >= self.max_restarts {
            return Decision::GiveUp { restarts: count };
        }
        let last = restarts.back();
        let recent = last.is_some_and(|at| now.saturating_since(*at) < RECENT);
        let cooldown = if recent { REPEATED_COOLDOWN } else { COOLDOWN };
        let at = self
            .last_start
            .map_or(now, |start| now.max(start + cooldown));
        restarts.push_back(at);
        Decision::RetryAt(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that lives for `uptime` each time: when it is started, until given up.
    fn starts(max_restarts: u32, uptime: Duration, most: usize) -> (Vec<Duration>, bool) {
        let begin = Time::from_nanos(1 << 40);
        let mut now = begin;
        let mut policy = RestartPolicy::new(max_restarts);
        let mut starts = Vec::new();
        loop {
            policy.started(now);
            starts.push(now - begin);
            if starts.len() > most {
                return (starts, false);
            }
            now += uptime;
            match policy.lost(now) {
                Decision::RetryAt(at) => now = at,
                Decision::GiveUp { restarts } => {
                    assert_eq!(restarts, max_restarts);
                    return (starts, true);
                }
            }
        }
    }

    #[test]
    fn a_server_that_dies_at_once_is_given_up_after_the_limit() {
        let (starts, gave_up) = starts(5, Duration::ZERO, 100);
        let seconds: Vec<u64> = starts.iter().map(Duration::as_secs).collect();
        assert_eq!((seconds, gave_up), (vec![0, 1, 6, 11, 16, 21], true));
    }

    #[test]
    fn any_limit_is_reached_by_a_server_that_always_dies_at_once() {
        for max in [0, 1, 13, 100, 1000] {
            let (starts, gave_up) = starts(max, Duration::ZERO, 5000);
            assert!(gave_up, "{max}");
            assert_eq!(starts.len() as u32, max + 1);
        }
    }

    #[test]
    fn a_server_that_outlived_the_cooldown_restarts_at_once() {
        let (starts, _) = starts(5, 2 * SECOND, 1);
        assert_eq!(starts, [Duration::ZERO, 2 * SECOND]);
    }

    #[test]
    fn staying_up_pays_the_debt_off() {
        let (starts, gave_up) = starts(5, 13 * SECOND, 50);
        assert_eq!((starts.len(), gave_up), (51, false));
    }

    #[test]
    fn the_cooldown_is_short_again_after_a_quiet_minute() {
        let begin = Time::from_nanos(1 << 40);
        let mut policy = RestartPolicy::new(5);
        policy.started(begin);
        assert_eq!(policy.lost(begin), Decision::RetryAt(begin + SECOND));
        let second_start = begin + SECOND;
        policy.started(second_start);
        let later = second_start + RECENT - SECOND;
        assert_eq!(
            policy.lost(later),
            Decision::RetryAt(later),
            "long up: no wait"
        );
        policy.started(later);
        assert_eq!(
            policy.lost(later),
            Decision::RetryAt(later + REPEATED_COOLDOWN)
        );
    }
}
