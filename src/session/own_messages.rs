//! The lines that the client gets from the proxy itself: errors in place of responses, and notices. Heartbeats are in
//! `heartbeat`.

use std::fmt::Display;
use std::time::Duration;

use super::client_side::OwnLine;
use super::in_flight::MAX_IN_FLIGHT;
use super::stderr::excerpt;
use super::unfinished::STALL_TIME;
use super::upstream::ToUpstream;
use super::{Context, Session};
use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::lines::TooLong;
use crate::protocol::own_messages::{self, Delivered, ErrorReason, Loss};
use crate::protocol::skip::Skipped;
use crate::util::about::about;
use crate::util::plural::Grouped;

/// Up to this many requests of one line are refused one by one: twice what could be in flight, so that whoever is over
/// that limit by mistake still gets a response to each.
const MAX_REFUSALS: usize = 2 * MAX_IN_FLIGHT;

impl Session {
    /// Queues a line for the client.
    pub(super) fn own_line(&mut self, line: &str, kind: OwnLine, cx: &mut Context<'_>) {
        if self.client.is_writable() {
            about!(
                debug,
                self.label,
                "proxy → client: {}",
                excerpt(line.as_bytes())
            );
            if kind != OwnLine::Heartbeat {
                self.line_passed(cx);
            }
            self.to_client.push(line.as_bytes(), Some(kind), cx.memory);
        }
    }

    /// Queues an error about what no server got. `id` is JSON text.
    pub(super) fn reply_error(
        &mut self,
        id: Option<&dyn Display>,
        reason: ErrorReason,
        message: &str,
        cx: &mut Context<'_>,
    ) {
        let loss = Loss {
            status: None,
            delivered: matches!(reason.code(), 401 | 502 | 503).then_some(Delivered::No),
            ..Loss::default()
        };
        self.reply_lost(id, reason, message, loss, cx);
    }

    /// Queues an error about a request that gets no response. `was_sent` tells whether an upstream has had it.
    pub(super) fn reply_unserved(
        &mut self,
        id: &RequestId,
        was_sent: bool,
        reason: ErrorReason,
        message: &str,
        cx: &mut Context<'_>,
    ) {
        if was_sent {
            let loss = Loss {
                status: None,
                delivered: Some(self.backend.delivers()),
                ..Loss::default()
            };
            self.reply_lost(Some(id), reason, message, loss, cx);
        } else {
            self.reply_error(Some(id), reason, message, cx);
        }
    }

    /// Queues an error that says what became of the request.
    pub(super) fn reply_lost(
        &mut self,
        id: Option<&dyn Display>,
        reason: ErrorReason,
        message: &str,
        loss: Loss<'_>,
        cx: &mut Context<'_>,
    ) {
        cx.counts.error(reason);
        let line = own_messages::error(id, reason, message, loss);
        self.own_line(&line, OwnLine::Other, cx);
    }

    /// Refuses the requests of a line that no server will get: each, unless there are more than [`MAX_REFUSALS`]. Those
    /// get one error together, because theirs would take far more memory than the line.
    pub(super) fn refuse_requests(
        &mut self,
        message: &Message<'_>,
        reason: ErrorReason,
        text: &str,
        cx: &mut Context<'_>,
    ) {
        let ids = || message.envelopes().iter().filter_map(Envelope::request_id);
        let count = ids().count();
        if count > MAX_REFUSALS {
            let text = format!("{text}; this is about all {count} or more requests of a batch");
            return self.reply_error(None, reason, &text, cx);
        }
        for id in ids().filter(|id| id.len() <= MAX_ID_BYTES) {
            self.reply_error(Some(&id), reason, text, cx);
        }
    }

    /// An over-long line is refused under its id, unless that would look like the response to another request.
    pub(super) fn refuse_skipped(&mut self, skipped: &Skipped, why: TooLong, cx: &mut Context<'_>) {
        let is_response = skipped.has_outcome && !skipped.has_method;
        let id = skipped
            .id
            .as_ref()
            .filter(|id| !(is_response && self.is_unanswered(id)));
        let what = if is_response {
            "the client's response"
        } else {
            "the client's message"
        };
        let message = too_long_message(what, skipped.len, why, cx);
        self.note_refusal(why.into(), &message, cx);
        self.reply_error(
            id.map(|id| id as &dyn Display),
            ErrorReason::TooLarge,
            &message,
            cx,
        );
    }

    /// Whether a request of this id was sent to the upstream, or waits to be.
    pub(super) fn is_unanswered(&mut self, id: &RequestId) -> bool {
        if self.in_flight.contains(id) {
            return true;
        }
        let mut queued = self
            .to_upstream
            .tags()
            .chain(self.held().tags())
            .flat_map(ToUpstream::requests);
        queued.any(|request| request.id == *id)
    }

    /// Tells the client that it goes on with a new server, unless the session is about to end.
    pub(super) fn give_notice(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        self.backend.notice_given();
        // A modern client has no session that it would lose, and the line is not MCP: it must have shown that it knows us.
        let is_wanted = !self.era.is_modern() || self.heartbeat.is_announced();
        if self.goal.is_serve() && is_wanted {
            let line = own_messages::server_restarted(unix_time);
            self.own_line(&line, OwnLine::Other, cx);
        }
    }
}

/// Says what was over which limit, and by how much if that is known.
pub(super) fn too_long_message(what: &str, len: u64, why: TooLong, cx: &Context<'_>) -> String {
    let len = Grouped(len);
    match why {
        TooLong::Limit => {
            let limit = Grouped(cx.settings.max_message_bytes as u64);
            format!("{what} is too long: {len} bytes, the limit is {limit} (--max-message-bytes)")
        }
        TooLong::BufferBudget => {
            let limit = Grouped(cx.memory.limit() as u64);
            format!(
                "no buffer memory left for {what} of {len} bytes: the limit is {limit} bytes for all sessions"
            )
        }
        TooLong::MemoryShort => {
            let limit = Grouped(cx.memory.limit() as u64);
            format!(
                "others needed the buffer memory of {what} of {len} bytes before its end: the limit is {limit} bytes for \
                 all sessions (--max-buffer-bytes)"
            )
        }
        TooLong::Stalled => {
            let limit = STALL_TIME.as_secs();
            format!("{what} of {len} bytes took too long: nothing of it arrived for {limit} s")
        }
    }
}
