//! The deadlines of a session: when the earliest one is, and what is done at each.

use std::time::Duration;

use super::{Context, Session, Settings};
use crate::util::time::Time;

/// The earlier of two times.
pub(super) fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The earliest of many times, most of which are not there.
struct Earliest(Option<Time>);

impl Earliest {
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "after each run of a session, and mostly there is nothing to be done"
    )]
    fn take(&mut self, at: Option<Time>) {
        if at.is_some() {
            self.0 = earliest_of_some(self.0, at);
        }
    }
}

/// Not a part of where nothing is due.
#[inline(never)]
fn earliest_of_some(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    earliest(a, b)
}

impl Session {
    /// When [`Event::Deadline`](super::Event::Deadline) is due, if nothing else happens before.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "after each run of a session")]
    pub fn next_deadline(&self, settings: &Settings) -> Option<Time> {
        let mut next = Earliest(None);
        next.take(self.heartbeat_deadline());
        next.take(self.liveness_deadline());
        next.take(self.upstream.deadline());
        next.take(self.idle_deadline(settings));
        next.take(self.unfinished_deadline());
        next.take(self.resume_deadline());
        if self.was_calm && self.client.is_at_ease() {
            debug_assert_eq!(self.uneasy_deadline(settings), None);
            return next.0;
        }
        earliest(next.0, self.uneasy_deadline(settings))
    }

    /// The deadlines of a session that holds lines back, is on its way to a new server, or is about to end.
    #[inline(never)]
    fn uneasy_deadline(&self, settings: &Settings) -> Option<Time> {
        let mut next = Earliest(self.held_deadline(settings));
        next.take(self.swap_deadline());
        next.take(self.client_deadline());
        next.take(self.goal_deadline());
        next.0
    }

    /// A deadline has come. `unix_time` is the time since 1970.
    pub(super) fn timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        self.resume_timeout(cx.now);
        self.heartbeat_timeout(unix_time, cx);
        self.liveness_timeout(unix_time, cx);
        self.upstream_timeout(unix_time, cx);
        self.client_timeout(cx);
        self.unfinished_timeout(cx);
        self.goal_timeout(cx);
        self.held_timeout(cx);
        self.idle_timeout(cx);
        self.hibernation_timeout(cx);
    }
}
