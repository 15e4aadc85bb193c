//! How a server process is made to go: first the end of its input, then more and more force.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::time::Time;

/// After the end of its input a server has this long to exit by itself; MCP asks clients to wait for "a reasonable time",
/// and its own SDKs wait for two seconds.
const TERMINATE_AFTER: Duration = Duration::from_secs(2);

/// After SIGTERM, this long until SIGKILL: runtimes that clean up take seconds. With the two before, it stays below the ten
/// that container runtimes give a whole machine to stop.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// For a server that is not used, and starts again when it is: it should be gone by then.
const IDLE_TERMINATE_AFTER: Duration = Duration::from_secs(1);

/// The same between SIGTERM and SIGKILL.
const IDLE_KILL_AFTER: Duration = Duration::from_secs(1);

/// After SIGKILL, this long until what is still in the process group is taken for what no signal can end: one that waits
/// for a disk or a network file system, or has another user. As long as SIGTERM has, so that a slow machine is no reason.
const ABANDON_AFTER: Duration = Duration::from_secs(5);

/// The next step, and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    next: Option<(Time, Step)>,
    kill_after: Duration,
}

/// What is done to the process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
    /// Nothing more can be done.
    Abandon,
}

impl Escalation {
    /// The input has been ended now.
    pub fn new(now: Time) -> Self {
        Self {
            next: Some((now + TERMINATE_AFTER, Step::Terminate)),
            kill_after: KILL_AFTER,
        }
    }

    /// The same for a server that is not used.
    pub fn of_idle(now: Time) -> Self {
        Self {
            next: Some((now + IDLE_TERMINATE_AFTER, Step::Terminate)),
            kill_after: IDLE_KILL_AFTER,
        }
    }

    /// There are no more steps: they would lead to nothing.
    pub fn give_up(&mut self) {
        self.next = None;
    }

    /// When the next step is due; `None` after the last.
    pub fn deadline(&self) -> Option<Time> {
        self.next.map(|(at, _)| at)
    }

    /// Takes the next step, if it is due.
    pub fn escalate(&mut self, now: Time) -> Option<Step> {
        let (_, step) = self.next.filter(|(at, _)| *at <= now)?;
        self.next = match step {
            Step::Terminate => Some((now + self.kill_after, Step::Kill)),
            Step::Kill => Some((now + ABANDON_AFTER, Step::Abandon)),
            Step::Abandon => None,
        };
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_after_the_other() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut escalation = Escalation::new(begin);
        assert_eq!(
            (escalation.escalate(at(1)), escalation.deadline()),
            (None, Some(at(2)))
        );
        assert_eq!(
            (escalation.escalate(at(2)), escalation.deadline()),
            (Some(Step::Terminate), Some(at(7)))
        );
        assert_eq!(escalation.escalate(at(6)), None);
        assert_eq!(
            (escalation.escalate(at(9)), escalation.deadline()),
            (Some(Step::Kill), Some(at(14)))
        );
        assert_eq!(
            (escalation.escalate(at(14)), escalation.deadline()),
            (Some(Step::Abandon), None)
        );
        assert_eq!(escalation.escalate(at(100)), None);
    }

    #[test]
    fn one_that_is_not_used_has_less_time() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut escalation = Escalation::of_idle(begin);
        assert_eq!(escalation.deadline(), Some(at(1)));
        assert_eq!(escalation.escalate(at(1)), Some(Step::Terminate));
        assert_eq!(escalation.deadline(), Some(at(2)));
        assert_eq!(escalation.escalate(at(2)), Some(Step::Kill));
    }
}
