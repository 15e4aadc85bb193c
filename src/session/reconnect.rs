//! When a lost link is made again, and when no longer. Policy only: nothing here connects.

use std::time::Duration;

use super::restart::Decision;
use crate::util::time::Time;

/// The delay before the first attempt; it doubles with each that follows. Long enough for a proxy that is being
/// restarted to have closed its old socket, short enough not to be noticed.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Counts the attempts to connect since a server was last heard.
#[derive(Debug)]
pub(super) struct ReconnectPolicy {
    max_delay: Duration,
    max_attempts: Option<u32>,
    attempts: u32,
    /// When the link was made.
    connected: Option<Time>,
    /// Whether a proxy, or a server behind it, was ever heard.
    was_reached: bool,
    /// Whether a proxy has refused us since.
    was_denied: bool,
}

impl ReconnectPolicy {
    /// Delays double up to `max_delay`. After `max_attempts` in a row there are no more.
    pub(super) fn new(max_delay: Duration, max_attempts: Option<u32>) -> Self {
        Self {
            max_delay,
            max_attempts,
            attempts: 0,
            connected: None,
            was_reached: false,
            was_denied: false,
        }
    }

    /// A link was made, or could not be.
    pub(super) fn started(&mut self, now: Time) {
        self.connected = Some(now);
    }

    /// The server said something. A connection alone does not reset the count: a full proxy accepts and closes, again
    /// and again.
    pub(super) fn heard(&mut self) {
        self.attempts = 0;
        self.was_reached = true;
        self.was_denied = false;
    }

    /// The proxy does not let us in. Returns whether that is news.
    pub(super) fn denied(&mut self) -> bool {
        !std::mem::replace(&mut self.was_denied, true)
    }

    /// The proxy itself said something that only a proxy says.
    pub(super) fn reached(&mut self) {
        self.was_reached = true;
    }

    pub(super) fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// The proxy ended a link on which no response was awaited. If the link had held for a while, it was idle rather
    /// than refused, and may be idle again and again.
    pub(super) fn ended_idle(&mut self, now: Time) {
        let held = self
            .connected
            .map_or(Duration::ZERO, |since| now.saturating_since(since));
        if held > self.max_delay {
            self.attempts = 0;
        }
    }

    /// When an attempt to go on with the same session may be made; `None` if none may. The first one after the server was
    /// heard is made at once.
    pub(super) fn next_attempt(&mut self, now: Time) -> Option<Time> {
        if self.attempts == 0 {
            self.attempts = 1;
            return Some(now);
        }
        match self.lost(now) {
            Decision::RetryAt(at) => Some(at),
            Decision::GiveUp { .. } => None,
        }
    }

    /// The link was lost, or could not be made.
    pub(super) fn lost(&mut self, now: Time) -> Decision {
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
            let delay = |decision| match decision {
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
    fn idle_links_that_held_for_a_while_are_not_failed_attempts() {
        let begin = Time::from_nanos(1 << 40);
        let delay = Duration::from_secs(2);
        let mut policy = ReconnectPolicy::new(delay, Some(1));
        let mut cycle = |held: Duration| {
            policy.started(begin);
            policy.ended_idle(begin + held);
            policy.lost(begin + held)
        };
        for _ in 0..10 {
            let decision = cycle(delay + Duration::from_millis(1));
            assert!(matches!(decision, Decision::RetryAt(_)));
        }
        assert_eq!(cycle(delay), Decision::GiveUp { restarts: 1 });
    }
}
