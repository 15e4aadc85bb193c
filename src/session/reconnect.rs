//! When a lost connection is made again, and when no more. Policy only: nothing here connects.

use std::time::{Duration, Instant};

use super::restart::Verdict;

/// The delay of the first attempt; it doubles with each that follows.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Counts the attempts to connect since the server was last heard.
#[derive(Debug)]
pub struct ReconnectPolicy {
    max_delay: Duration,
    max_attempts: Option<u32>,
    attempts: u32,
}

impl ReconnectPolicy {
    /// Delays double up to `max_delay`. After `max_attempts` in a row there are no more.
    pub fn new(max_delay: Duration, max_attempts: Option<u32>) -> Self {
        Self {
            max_delay,
            max_attempts,
            attempts: 0,
        }
    }

    /// The server said something. To be let in is not enough: it may be shown out at once, over and over.
    pub fn heard(&mut self) {
        self.attempts = 0;
    }

    /// The connection was lost, or could not be made.
    pub fn lost(&mut self, now: Instant) -> Verdict {
        if self.max_attempts.is_some_and(|max| self.attempts >= max) {
            return Verdict::GiveUp {
                restarts: self.attempts,
            };
        }
        let doubled = FIRST_DELAY.saturating_mul(1 << self.attempts.min(20));
        self.attempts += 1;
        Verdict::RestartAt(now + doubled.min(self.max_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_begin_anew_when_the_server_is_heard() {
        let now = Instant::now();
        let mut policy = ReconnectPolicy::new(Duration::from_secs(2), None);
        let delays = |count: usize, policy: &mut ReconnectPolicy| -> Vec<u128> {
            let delay = |verdict| match verdict {
                Verdict::RestartAt(at) => (at - now).as_millis(),
                Verdict::GiveUp { .. } => panic!("there is no limit"),
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
        let now = Instant::now();
        let mut policy = ReconnectPolicy::new(Duration::from_millis(50), Some(2));
        assert_eq!(
            policy.lost(now),
            Verdict::RestartAt(now + Duration::from_millis(50))
        );
        assert!(matches!(policy.lost(now), Verdict::RestartAt(_)));
        assert_eq!(policy.lost(now), Verdict::GiveUp { restarts: 2 });
        policy.heard();
        assert!(matches!(policy.lost(now), Verdict::RestartAt(_)));
    }
}
