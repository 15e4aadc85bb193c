//! Sessions that are not used: whose clients never say anything to a server, or in which nothing passes any more.

use std::time::Duration;

use super::ending::Goal;
use super::report::EndReason;
use super::{Context, OwnLine, Session, Settings, earliest};
use crate::util::time::Time;

/// A line of the client that is longer than any heartbeat counts while it comes in, not just when it is complete.
const LONG_LINE_BYTES: usize = 4096;

/// When a session that is not used is ended; `None` for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdleLimits {
    /// How long after its beginning the client must have sent something for the server.
    pub first_message: Option<Duration>,
    /// How long nothing may pass while nothing is waited for. Heartbeats are nothing.
    pub idle: Option<Duration>,
}

/// When a line last passed, in nanoseconds since the session began: half as large as an instant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastLine(u64);

impl Session {
    /// A message passed, or a part of one, or the client was told something.
    pub(super) fn line_passed(&mut self, cx: &Context<'_>) {
        if cx.settings.idle_limits.idle.is_some() {
            let time = cx.now.saturating_since(self.opened);
            self.last_line = LastLine(time.as_nanos() as u64);
        }
    }

    /// The client takes something of what waits for it. A heartbeat alone is nothing.
    pub(super) fn client_takes_lines(&mut self, cx: &Context<'_>) {
        let waiting = &self.to_client;
        let is_server_heard = waiting.len() > waiting.tagged_bytes();
        if is_server_heard || waiting.tags().any(|line| *line != OwnLine::Heartbeat) {
            self.line_passed(cx);
        }
    }

    /// The client is seen to be sending, although no line is complete.
    pub(super) fn note_long_line(&mut self, cx: &Context<'_>) {
        if self.from_client.is_within_line(LONG_LINE_BYTES) {
            self.line_passed(cx);
        }
    }

    /// Whether the session is being ended because it was not used.
    pub(super) fn is_unused(&self) -> bool {
        matches!(
            self.end_reason,
            EndReason::FirstMessageTimeout(_) | EndReason::IdleTimeout(_)
        )
    }

    /// A session that is about to end because it was not used is used after all. Its client has more to say perhaps, and
    /// does not know of any end.
    pub(super) fn resume_use(&mut self) {
        if self.is_unused() && matches!(self.goal, Goal::Finish { .. }) && !self.stopping {
            self.goal = Goal::Serve;
            self.last_call = None;
            self.end_reason = EndReason::ClientEnded;
        }
    }

    pub(super) fn idle_deadline(&self, settings: &Settings) -> Option<Time> {
        let limits = &settings.idle_limits;
        earliest(
            self.first_message_due(limits),
            self.next_message_due(limits),
        )
    }

    pub(super) fn idle_timeout(&mut self, cx: &Context<'_>) {
        let limits = cx.settings.idle_limits;
        let is_over = |due: Option<Time>| due.is_some_and(|at| at <= cx.now);
        let reason = if is_over(self.first_message_due(&limits)) {
            limits.first_message.map(EndReason::FirstMessageTimeout)
        } else if is_over(self.next_message_due(&limits)) {
            limits.idle.map(EndReason::IdleTimeout)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.finish_for(reason, cx);
        }
    }

    fn first_message_due(&self, limits: &IdleLimits) -> Option<Time> {
        let waits = self.goal == Goal::Serve && self.sent_to_server.is_none();
        limits
            .first_message
            .filter(|_| waits)
            .map(|limit| self.opened + limit)
    }

    fn next_message_due(&self, limits: &IdleLimits) -> Option<Time> {
        let limit = limits.idle?;
        self.is_idle()
            .then(|| self.opened + Duration::from_nanos(self.last_line.0) + limit)
    }

    /// Whether nothing is on its way, and nobody waits for an answer.
    fn is_idle(&self) -> bool {
        self.goal == Goal::Serve
            && self.nothing_waits()
            && self.server_requests.none_open()
            && self.to_client.is_empty()
    }
}
