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

impl Session {
    /// When [`Event::Deadline`](super::Event::Deadline) is due, if nothing else happens before.
    pub fn next_deadline(&self, settings: &Settings) -> Option<Time> {
        let own = earliest(self.heartbeat_deadline(), self.liveness_deadline());
        let upstream = earliest(own, self.upstream.deadline());
        let served = earliest(upstream, self.idle_deadline(settings));
        let served = earliest(served, self.held_deadline(settings));
        let served = earliest(served, self.unfinished_deadline());
        let served = earliest(served, self.resume_deadline());
        if self.goal.is_serve() && self.client.is_at_ease() {
            debug_assert_eq!(self.client_deadline(), None);
            debug_assert_eq!(self.goal_deadline(), None);
            return served;
        }
        let client = earliest(served, self.client_deadline());
        earliest(client, self.goal_deadline())
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
    }
}
