//! The lines that the client gets from the proxy itself: errors in the server's place, heartbeats, notices.

use std::fmt::Display;
use std::time::Duration;

use log::{debug, warn};

use super::in_flight::MAX_IN_FLIGHT;
use super::stderr::excerpt;
use super::{Client, Context, OwnLine, Session, ToUpstream};
use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::lines::TooLong;
use crate::protocol::own_messages::{self, ErrorReason};
use crate::protocol::skip::Skipped;

/// So many requests of one line are refused one by one.
const MAX_REFUSALS: usize = 2 * MAX_IN_FLIGHT;

impl Session {
    /// Queues a line for the client.
    pub(super) fn own_line(&mut self, line: &str, kind: OwnLine, cx: &mut Context<'_>) {
        if matches!(self.client, Client::Open | Client::Ended) {
            debug!("{} proxy → client: {}", self.tag, excerpt(line.as_bytes()));
            if kind != OwnLine::Heartbeat {
                self.line_passed(cx);
            }
            self.to_client.push(line.as_bytes(), Some(kind), cx.memory);
        }
    }

    /// Queues an error. `id` is JSON text.
    pub(super) fn reply_error(
        &mut self,
        id: Option<&dyn Display>,
        reason: ErrorReason,
        message: &str,
        cx: &mut Context<'_>,
    ) {
        self.own_line(
            &own_messages::error(id, reason, message, None),
            OwnLine::Other,
            cx,
        );
    }

    /// Answers the requests of a line that no server will get: each, unless there are more than [`MAX_REFUSALS`]. Those
    /// get one answer together, as theirs would take far more memory than the line.
    pub(super) fn answer_all(
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

    /// An over-long line is answered with its id, unless that would look like the answer to another request.
    pub(super) fn refuse_skipped(&mut self, skipped: &Skipped, why: TooLong, cx: &mut Context<'_>) {
        let is_answer = skipped.has_outcome && !skipped.has_method;
        let id = skipped
            .id
            .as_ref()
            .filter(|id| !(is_answer && self.is_unanswered(id)));
        let message = too_long_message(why, cx);
        debug!("{}: refused a line of the client: {message}", self.tag);
        self.reply_error(
            id.map(|id| id as &dyn Display),
            ErrorReason::TooLarge,
            &message,
            cx,
        );
    }

    /// Whether a request of this id was sent to the server, or is going to be.
    fn is_unanswered(&mut self, id: &RequestId) -> bool {
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

    /// Whether the client may still be told that the proxy lives.
    pub(super) fn has_heartbeat(&self) -> bool {
        self.delivers_to_client()
    }

    pub(super) fn heartbeat_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let interval = cx.settings.heartbeat_interval;
        if !self.has_heartbeat() || !self.heartbeat.beat(self.opened, cx.now, interval) {
            return;
        }
        if !self.heartbeat_queued {
            let line = own_messages::heartbeat_response(unix_time, self.upstream.is_alive());
            self.own_line(&line, OwnLine::Heartbeat, cx);
            self.heartbeat_queued = true;
        }
        if !self.wants_client_input() {
            return;
        }
        if let Some(silence) = self.heartbeat.take_silence_report(cx.now, interval) {
            warn!(
                "{} has been silent for {:.3} s",
                self.tag,
                silence.as_secs_f64()
            );
        }
    }
}

/// Says which limit a line was over, and what it is.
pub(super) fn too_long_message(why: TooLong, cx: &Context<'_>) -> String {
    match why {
        TooLong::Limit => {
            let limit = cx.settings.max_message_bytes;
            format!("the message is too long: the limit is {limit} bytes (--max-message-bytes)")
        }
        TooLong::BufferBudget => {
            let limit = cx.memory.limit();
            format!(
                "no buffer memory left for a message of this size: the limit is {limit} bytes for all sessions"
            )
        }
    }
}
