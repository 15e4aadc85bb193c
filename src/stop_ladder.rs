//! How a server process is made to go: first the end of its input, then more and more force.

use std::time::{Duration, Instant};

/// After the end of its input a server has this long to exit by itself.
const TERMINATE_AFTER: Duration = Duration::from_secs(2);

/// After SIGTERM, this long until SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// After SIGKILL, this long until what is still in the process group is taken for what no signal can end.
const ABANDON_AFTER: Duration = Duration::from_secs(5);

/// The next rung of the ladder, and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopLadder {
    next: Option<(Instant, Rung)>,
}

/// What is done to the process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
    /// Nothing more can be done.
    Abandon,
}

impl StopLadder {
    /// The input has been ended now.
    pub fn new(now: Instant) -> Self {
        Self {
            next: Some((now + TERMINATE_AFTER, Rung::Terminate)),
        }
    }

    /// When the next rung is due; `None` after the last.
    pub fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Takes the next rung, if it is due.
    pub fn climb(&mut self, now: Instant) -> Option<Rung> {
        let (_, rung) = self.next.filter(|(at, _)| *at <= now)?;
        self.next = match rung {
            Rung::Terminate => Some((now + KILL_AFTER, Rung::Kill)),
            Rung::Kill => Some((now + ABANDON_AFTER, Rung::Abandon)),
            Rung::Abandon => None,
        };
        Some(rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rung_after_the_other() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut ladder = StopLadder::new(begin);
        assert_eq!(
            (ladder.climb(at(1)), ladder.deadline()),
            (None, Some(at(2)))
        );
        assert_eq!(
            (ladder.climb(at(2)), ladder.deadline()),
            (Some(Rung::Terminate), Some(at(7)))
        );
        assert_eq!(ladder.climb(at(6)), None);
        assert_eq!(
            (ladder.climb(at(9)), ladder.deadline()),
            (Some(Rung::Kill), Some(at(14)))
        );
        assert_eq!(
            (ladder.climb(at(14)), ladder.deadline()),
            (Some(Rung::Abandon), None)
        );
        assert_eq!(ladder.climb(at(100)), None);
    }
}
