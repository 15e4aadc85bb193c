//! Requests that wait for a connection: not for ever, as whoever has sent them may have no time-out of its own.

use std::time::Duration;

use super::in_flight::Request;
use super::upstream::{ToUpstream, Upstream};
use super::{Backend, Context, Session, Settings};
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::ErrorReason;
use crate::util::about::about;
use crate::util::plural::Counted;
use crate::util::time::Time;

impl Session {
    /// When the request that has waited longest has waited long enough. While there is a connection, whoever is at its
    /// other end is waited for.
    #[inline]
    pub(super) fn held_deadline(&self, settings: &Settings) -> Option<Time> {
        let limit = held_limit(settings)?;
        self.held_until(limit)
    }

    #[inline(never)]
    fn held_until(&self, limit: Duration) -> Option<Time> {
        let is_up = matches!(self.upstream, Upstream::Up(_) | Upstream::Leaving(_));
        let is_connected = is_up && !self.is_detached();
        let waiting = self.waits_for_link().chain(self.held().tags());
        // Those that are to be sent again come first, and have waited longest.
        let mut waiting = waiting.flat_map(ToUpstream::requests);
        let oldest = waiting.next().filter(|_| !is_connected)?;
        Some(oldest.since.max(self.link_lost_since().unwrap_or_default()) + limit)
    }

    pub(super) fn held_timeout(&mut self, cx: &mut Context<'_>) {
        let Some(limit) = held_limit(cx.settings) else {
            return;
        };
        if self.held_deadline(cx.settings).is_none_or(|at| at > cx.now) {
            return;
        }
        let overdue = self.take_overdue(limit, cx);
        let text = format!(
            "there has been no connection to {} for {} s (--held-request-timeout)",
            self.label.peer(),
            limit.as_secs_f64()
        );
        about!(
            warn,
            self.label,
            "not served: {}, as {text}",
            Counted(overdue.len(), "request")
        );
        self.note_unserved(overdue.len());
        for (id, was_sent) in overdue {
            if let Some(standing) = self.any_standing() {
                standing.answered(&id, false);
            }
            self.reply_unserved(&id, was_sent, ErrorReason::Unreachable, &text, cx);
        }
    }

    /// Takes out the lines whose requests have waited this long. What is said about these requests in other lines stays,
    /// and means nothing to a server. Returns the ids, each with whether it was sent to an upstream that was lost.
    fn take_overdue(&mut self, limit: Duration, cx: &Context<'_>) -> Vec<(RequestId, bool)> {
        let mut overdue: Vec<(RequestId, bool)> = Vec::new();
        let mut held = self.take_held();
        let lost_since = self.link_lost_since();
        let queued = &mut self.queued;
        let since = |request: &Request| request.since.max(lost_since.unwrap_or_default());
        let mut keep = |tag: &ToUpstream| {
            let is_overdue = |request: &Request| since(request) + limit <= cx.now;
            if !tag.requests().next().is_some_and(is_overdue) {
                return true;
            }
            for part in tag.parts() {
                match part {
                    ToUpstream::Request(request) => {
                        queued.remove(request);
                        overdue.push((request.id.clone(), request.was_sent()));
                    }
                    ToUpstream::Cancelled(id) => queued.remove_cancellation(id),
                    _ => {}
                }
            }
            false
        };
        if lost_since.is_some() {
            self.to_upstream.retain_unstarted(&mut keep);
        }
        held.retain_unstarted(&mut keep);
        self.hold(held);
        overdue
    }

    /// So many requests were answered because there was no connection, or not long enough.
    pub(super) fn note_unserved(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count > 0 {
            let unserved = &mut self.rare.change().unserved;
            *unserved = unserved.saturating_add(count);
        }
    }

    /// How many requests were answered in the server's place because there was no connection, or not long enough.
    pub fn unserved(&self) -> u32 {
        self.rare.unserved
    }
}

fn held_limit(settings: &Settings) -> Option<Duration> {
    match settings.role {
        Backend::Proxy { held_timeout, .. } => held_timeout,
        Backend::Process { .. } => None,
    }
}
