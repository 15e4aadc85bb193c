//! When a lost connection is made again, and when no more. Policy only: nothing here connects.

use std::time::Duration;

use super::restart::Decision;
use crate::util::time::Time;

/// The delay of the first attempt; it doubles with each that follows.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Counts the attempts to connect since the server was last heard.
#[derive(Debug)]
pub struct ReconnectPolicy {
    max_delay: Duration,
    max_attempts: Option<u32>,
    attempts: u32,
    /// When the connection was made.
    connected: Option<Time>,
}

impl ReconnectPolicy {
    /// Delays double up to `max_delay`. After `max_attempts` in a row there are no more.
    pub fn new(max_delay: Duration, max_attempts: Option<u32>) -> Self {
        Self {
            max_delay,
            max_attempts,
            attempts: 0,
            connected: None,
        }
    }

    /// A connection was made, or could not be.
    pub fn started(&mut self, now: Time) {
        self.connected = Some(now);
    }

    /// The server said something. To be let in is not enough: it may be shown out at once, over and over.
    pub fn heard(&mut self) {
        self.attempts = 0;
    }

    /// The other side ended a connection on which nothing was waited for. If it had held for a while, nobody was shown
    /// out at once: it was idle, and may be so again and again.
    pub fn ended_idle(&mut self, now: Time) {
        let held = self
            .connected
            .map_or(Duration::ZERO, |since| now.saturating_since(since));
        if held > self.max_delay {
            self.attempts = 0;
        }
    }

    /// The connection was lost, or could not be made.
    pub fn lost(&mut self, now: Time) -> Decision {
        if self.max_attempts.is_some_and(|max| self.attempts >= max) {
            return Decision::GiveUp {
                restarts: self.attempts,
            };
        }
        let doubled = FIRST_DELAY.saturating_mul(1 << self.attempts.min(20));
        self.attempts += 1;
        Decision::RetryAt(now + doubled.min(self.max_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_begin_anew_when_the_server_is_heard() {
        let now = Time::from_nanos(1 << 40);
        let mut policy = ReconnectPolicy::new(Duration::from_secs(2), None);
        let delays = |count: usize, policy: &mut ReconnectPolicy| -> Vec<u128> {
            let delay = |verdict| match verdict {
                Decision::RetryAt(at) => (at - now).as_millis(),
                Decision::GiveUp { .. } => panic!("there is no limit"),
            };
            (0..count).map(|_| delay(policy.lost(now))).collect()
        };
        assert_eq!(
            delays(7, &mut policy),
            [100, 200, 400, 800, 1600, 2000, 2000]
        );
        assert_eq!(delays(100, &mut policy)[99], 2000);
        policy.heard();
        assert_eq!(delays(2, &mut policy), [100, 200]);
    }

    #[test]
    fn attempts_in_a_row_are_limited() {
        let now = Time::from_nanos(1 << 40);
        let mut policy = ReconnectPolicy::new(Duration::from_millis(50), Some(2));
        assert_eq!(
            policy.lost(now),
            Decision::RetryAt(now + Duration::from_millis(50))
        );
        assert!(matches!(policy.lost(now), Decision::RetryAt(_)));
        assert_eq!(policy.lost(now), Decision::GiveUp { restarts: 2 });
        policy.heard();
        assert!(matches!(policy.lost(now), Decision::RetryAt(_)));
    }

    #[test]
    fn idle_connections_that_held_for_a_while_are_no_failed_attempts() {
        let begin = Time::from_nanos(1 << 40);
        let delay = Duration::from_secs(2);
        let mut policy = ReconnectPolicy::new(delay, Some(1));
        let mut cycle = |held: Duration| {
            policy.started(begin);
            policy.ended_idle(begin + held);
            policy.lost(begin + held)
        };
        for _ in 0..10 {
            let verdict = cycle(delay + Duration::from_millis(1));
            assert!(matches!(verdict, Decision::RetryAt(_)));
        }
        assert_eq!(cycle(delay), Decision::GiveUp { restarts: 1 });
    }
}
