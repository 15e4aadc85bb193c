//! The end of sessions that are not used: the client never sends a message, or no more messages pass.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_side::OwnLine;
use super::goal::Goal;
use super::report::EndReason;
use super::{Context, Session, Settings, earliest};
use crate::util::time::Time;

/// A line of the client that is longer than any heartbeat counts while it arrives, not only once it is complete. Real
/// heartbeats have about 100 bytes.
const LONG_LINE_BYTES: usize = 4096;

/// When a session that is not used is ended; `None` for never.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct IdleLimits {
    /// How long after the session began the client must have sent a message.
    pub first_message: Option<Duration>,
    /// Whether that is not for clients that have announced heartbeats.
    pub exempts_heartbeats: bool,
    /// How long no message may pass while no response is awaited. Heartbeats are not messages.
    pub idle: Option<Duration>,
    /// After how long without a message the server is given back, if nothing is open. Shorter than the one before.
    pub hibernate: Option<Duration>,
}

/// What is known of how a session was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum UseKnown {
    /// All of it.
    Wholly,
    /// There was a time without a limit, in which nobody looked.
    InParts,
}

impl UseKnown {
    pub(super) fn under(limits: &IdleLimits) -> Self {
        if limits.watch_use() {
            Self::Wholly
        } else {
            Self::InParts
        }
    }
}

impl IdleLimits {
    /// Whether it matters what passes, and what is open in between.
    pub(super) fn watch_use(&self) -> bool {
        self.idle.is_some() | self.hibernate.is_some()
    }
}

impl Session {
    /// A message passed, or a part of one, or the proxy itself told the client something.
    pub(super) fn line_passed(&mut self, cx: &Context<'_>) {
        self.last_line = cx.now;
    }

    /// Something of what waits for the client is about to be written. A heartbeat alone does not count.
    pub(super) fn note_delivery(&mut self, cx: &Context<'_>) {
        if !cx.settings.idle_limits.watch_use() {
            return;
        }
        let waiting = &self.to_client;
        let has_messages = waiting.len() > waiting.tagged_bytes();
        if has_messages || waiting.tags().any(|line| *line != OwnLine::Heartbeat) {
            self.line_passed(cx);
        }
    }

    /// The client sent a part of a line, which counts if the line is long.
    pub(super) fn note_long_line(&mut self, cx: &Context<'_>) {
        if self.from_client.is_within_line(LONG_LINE_BYTES) {
            self.line_passed(cx);
        }
    }

    /// Whether the session is being ended because it was not used.
    pub(super) fn is_unused(&self) -> bool {
        self.goal.reason().is_some_and(EndReason::is_unused)
    }

    /// The same, while something is still to be written, after which only the end can come.
    pub(super) fn is_unused_but_busy(&self) -> bool {
        let is_busy = !self.to_client.is_empty() || !self.to_upstream.is_empty();
        is_busy && self.is_unused() && !self.is_stopping()
    }

    /// A session that is about to end because it was not used is used after all: it serves again. Its client does not
    /// know of any end.
    pub(super) fn resume_use(&mut self) {
        if matches!(self.goal, Goal::Finish(_)) && self.is_unused() && !self.is_stopping() {
            self.goal = Goal::Serve;
        }
    }

    /// Other settings hold from now on. How a session was used is not known of a time without a limit, so that one which
    /// comes later is not for it.
    pub fn settings_changed(&mut self, settings: &Settings) {
        if !settings.idle_limits.watch_use() {
            self.use_known = UseKnown::InParts;
        }
    }

    pub(super) fn is_use_known(&self) -> bool {
        self.use_known == UseKnown::Wholly
    }

    #[inline]
    pub(super) fn idle_deadline(&self, settings: &Settings) -> Option<Time> {
        let limits = &settings.idle_limits;
        if self.is_detached() {
            let hibernates = limits.watch_use();
            return hibernates
                .then(|| self.hibernation_deadline(settings))
                .flatten();
        }
        let first = self.first_message_due(limits);
        if self.is_use_known() && limits.watch_use() {
            let next = self.next_message_due(limits);
            earliest(first, earliest(next, self.hibernation_deadline(settings)))
        } else {
            first
        }
    }

    pub(super) fn idle_timeout(&mut self, cx: &Context<'_>) {
        let limits = cx.settings.idle_limits;
        let is_counted = !self.is_detached();
        let is_over = |due: Option<Time>| is_counted && due.is_some_and(|at| at <= cx.now);
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
        let limit = limits.first_message?;
        let waits = self.goal.is_serve() && self.sent_to_upstream.is_none();
        let is_exempt = limits.exempts_heartbeats && self.heartbeat.next().is_some();
        (waits && !is_exempt).then(|| self.opened + limit + self.time_paused())
    }

    #[inline]
    fn next_message_due(&self, limits: &IdleLimits) -> Option<Time> {
        self.unused_until(limits.idle.filter(|_| self.is_use_known())?)
    }

    #[inline(never)]
    fn unused_until(&self, limit: Duration) -> Option<Time> {
        let at = || self.rare.server_memory.needed_until(self.last_line + limit);
        self.is_idle().then(at)
    }
}
