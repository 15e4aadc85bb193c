//! What the lines of the upstream mean: which reach the client, which requests they answer.

use super::client_lines::is_blank;
use super::handshake::MAX_RECORD_BYTES;
use super::in_flight::{Ended, Kind, Matched, Opening, Request};
use super::own_messages::too_long_message;
use super::stderr::excerpt;
use super::upstream::Upstream;
use super::{Context, Session};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::envelope::{Batch, Envelope, Invalid, Message};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::skip::{SkipScanner, Skipped};
use crate::util::about::about;

impl Session {
    /// The upstream sent these bytes. Any line may be its last: after the refusal of a replay, say, nothing that came
    /// over the same link counts.
    pub(super) fn upstream_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if let Some(liveness) = self.backend.liveness() {
            liveness.note_received(cx.now);
            if !self.is_from_proxy(bytes, cx) {
                return;
            }
        }
        self.note_first_output(cx);
        self.take_output(bytes, cx);
    }

    /// Whatever came after the last line end before the output ended is the last line.
    pub(super) fn upstream_tail(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = self.from_upstream.end(Self::line_limits(cx))
            && self.delivers_to_client()
        {
            self.upstream_line(line, cx);
        }
    }

    /// Whether what the upstream says counts.
    pub(super) fn hears_upstream(&self) -> bool {
        self.upstream.has_output() && self.delivers_to_client()
    }

    /// A line that was read as a whole.
    #[inline]
    pub(super) fn upstream_text(&mut self, text: &[u8], cx: &mut Context<'_>) {
        if self.to_client.len() + text.len() >= UNCHARGED_BYTES {
            self.upstream_line(Line::Borrowed(text), cx);
        } else if self.route_upstream_line(text, cx) {
            self.to_client.push(text, None, cx.memory);
        }
    }

    #[inline(never)]
    pub(super) fn upstream_line(&mut self, line: Line<'_>, cx: &mut Context<'_>) {
        let text = match &line {
            Line::Borrowed(text) => *text,
            Line::Buffered { bytes, len } if !self.to_client.is_empty() => &bytes[..*len],
            Line::Buffered { .. } | Line::Skipped(..) => &[],
        };
        // The system may have less memory than the budget allows.
        if self.to_client.len() + text.len() >= UNCHARGED_BYTES
            && !self.to_client.try_reserve(text.len(), cx.memory)
        {
            let mut scanner = SkipScanner::default();
            scanner.feed(text);
            return self.report_skipped(&scanner.finish(), TooLong::BufferBudget, cx);
        }
        match line {
            Line::Borrowed(text) => {
                if self.route_upstream_line(text, cx) {
                    self.to_client.push(text, None, cx.memory);
                }
            }
            Line::Buffered { bytes, len } => {
                if self.route_upstream_line(&bytes[..len], cx) {
                    self.to_client.push_buffer(bytes, None, cx.memory);
                }
            }
            Line::Skipped(skipped, why) => {
                self.note_line();
                self.note_spoken();
                self.report_skipped(&skipped, why, cx);
            }
        }
    }

    /// Handles what a line means. Returns whether the client is to get it.
    #[inline(never)]
    fn route_upstream_line(&mut self, line: &[u8], cx: &mut Context<'_>) -> bool {
        if is_blank(line) {
            return false;
        }
        let is_first = self.note_line();
        let read = Message::read(line);
        let message = match &read {
            Ok(message) => message,
            Err(invalid) => {
                self.log_no_message(*invalid, line, cx);
                self.note_spoken();
                return false;
            }
        };
        if is_first && self.take_refusal(message, cx) {
            return false;
        }
        if let Message::Single(envelope) = message {
            if self.is_replay_response(envelope) {
                self.debug_upstream_line("proxy", line);
                self.note_spoken();
                self.on_replay_response(envelope, cx);
                return false;
            }
            if self
                .backend
                .take_link_line(envelope, line, &self.label, cx.now)
            {
                self.debug_upstream_line("proxy", line);
                return false;
            }
            if self.take_restored(envelope)
                || self.answers_closed_subscription(envelope)
                || self.is_of_closed_subscription(envelope, line)
                || self.take_back_refused(envelope, cx)
            {
                return false;
            }
        }
        if self.mimics_proxy(message) {
            self.log_mimicry(line, cx);
            return false;
        }
        self.backend.message_heard(message);
        if self.is_unasked(message, line, cx) {
            self.debug_upstream_line("nobody", line);
            return false;
        }
        self.debug_upstream_line("client", line);
        if self.may_be_remembered(line, cx) {
            self.note_remembered(message, cx);
        }
        match message {
            Message::Single(envelope) => self.note_upstream_message(envelope, cx),
            Message::Batch(batch) => self.note_upstream_batch(batch, cx),
        }
        self.sent_to_client.count(line.len());
        cx.counts.to_client.count(line.len());
        self.line_passed(cx);
        true
    }

    fn log_mimicry(&mut self, line: &[u8], cx: &mut Context<'_>) {
        let text = format_args!(
            "stdout: a line that only the proxy may write was dropped: {}",
            excerpt(line)
        );
        self.server_log.warn(&self.label, cx, text);
        self.note_spoken();
    }

    /// A server that logs to stdout from the start may also log its response there instead of sending it.
    fn log_no_message(&mut self, invalid: Invalid, line: &[u8], cx: &mut Context<'_>) {
        let is_first = !self.has_upstream_spoken() && !self.backend.is_link();
        let consequence = if is_first && !self.in_flight.is_empty() {
            " (the first line, while a request waits: if the server logs to stdout, the client may wait for ever)"
        } else {
            ""
        };
        let text = format_args!("stdout: {invalid}{consequence}: {}", excerpt(line));
        self.server_log.warn(&self.label, cx, text);
    }

    #[inline]
    fn debug_upstream_line(&self, to: &str, line: &[u8]) {
        if log::max_level() >= log::LevelFilter::Debug {
            self.log_upstream_line(to, line);
        }
    }

    #[cold]
    fn log_upstream_line(&self, to: &str, line: &[u8]) {
        about!(debug, self.label, "server → {to}: {}", excerpt(line));
    }

    #[inline(never)]
    fn note_upstream_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
        for envelope in &batch.envelopes {
            self.note_upstream_message(envelope, cx);
        }
    }

    /// Ids that are too long to be kept belong to no request of the client; requests of the server with such an id pass
    /// unexamined.
    fn note_upstream_message(&mut self, envelope: &Envelope<'_>, cx: &mut Context<'_>) {
        if envelope.id.is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return;
        }
        if let Some(id) = envelope.response_id() {
            if let Some(request) = self.end_request(&RequestId::of(id)) {
                self.on_response(request, envelope, cx);
            }
        } else if let Some(id) = envelope.request_id() {
            self.server_requests.open(RequestId::of(id));
        } else if let Some(id) = envelope.cancelled_id() {
            // Ids of the two sides may coincide; a side that takes a request back means its own, however late.
            let id = RequestId::of(id);
            if !self.server_requests.cancel(&id) {
                self.end_subscription(&id);
                // A shared server asks nothing: it ends what the client has asked.
                if self.upstream.is_shared() {
                    self.in_flight.cancel(&id);
                }
            }
        }
    }

    /// Ends the request to which a response with this id belongs.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call would move it once more")]
    fn end_request(&mut self, id: &RequestId) -> Option<Request> {
        let request = self.in_flight.cancel(id);
        if request.is_some() {
            return request;
        }
        self.end_request_of_like_id(id)
    }

    /// The same for a response that has no equal id.
    #[inline(never)]
    fn end_request_of_like_id(&mut self, id: &RequestId) -> Option<Request> {
        let Ended { request, matched } = self.in_flight.end(id)?;
        if matched == (Matched::Coerced { is_first: true }) {
            self.log_coerced(id, &request);
        }
        Some(request)
    }

    #[cold]
    fn log_coerced(&self, id: &RequestId, request: &Request) {
        about!(
            info,
            self.label,
            "the server returns ids as another type ({id} for {}); its responses are matched all the same",
            request.id
        );
    }

    /// The response to a request of the client arrived.
    fn on_response(&mut self, request: Request, response: &Envelope<'_>, cx: &mut Context<'_>) {
        if let Upstream::Up(up) = &mut self.upstream {
            up.history.used = true;
            up.history.has_responded = true;
        }
        let nanos = cx.now.as_nanos().saturating_sub(request.sent.as_nanos());
        self.tally.responded(nanos / 1000);
        cx.counts.responses.note_nanos(nanos);
        if response.is_error() {
            self.tally.errors = self.tally.errors.saturating_add(1);
        }
        if let Some(standing) = self.any_standing() {
            standing.answered(&request.id, response.has_result());
        }
        if let Kind::Opening(opening) = request.kind
            && opening.is_initialize
        {
            self.in_flight.forget_probes(opening.number);
            match response.result() {
                Some(result) => self.on_initialized(*opening, result, cx),
                None => self.handshake.refused(),
            }
        }
    }

    /// The server has agreed to the client's `initialize`.
    fn on_initialized(&mut self, opening: Opening, result: &str, cx: &mut Context<'_>) {
        if let Upstream::Up(up) = &self.upstream {
            self.handshake
                .note_time(cx.now.saturating_since(up.started));
        }
        if self.handshake.record(opening.line, result) {
            self.handshake.share_record(cx.records);
            if let Some(standing) = self.any_standing() {
                standing.begin_anew(opening.number);
            }
        }
        if self.handshake.is_too_large() {
            about!(
                warn,
                self.label,
                "the handshake is too large to be kept (over {MAX_RECORD_BYTES} bytes with what else is kept) and \
                 will not be replayed after a restart"
            );
        }
        if self.handshake.take_owed() {
            self.send_initialized(cx);
        }
    }

    /// An over-long line is dropped, and the request that it answers gets an error.
    fn report_skipped(&mut self, skipped: &Skipped, why: TooLong, cx: &mut Context<'_>) {
        let what = if skipped.has_outcome && !skipped.has_method {
            "the server's response"
        } else {
            "the server's message"
        };
        let message = too_long_message(what, skipped.len, why, cx);
        let text = format_args!("stdout: a line was dropped: {message}");
        self.server_log.warn(&self.label, cx, text);
        let Some(id) = skipped.id.as_ref().filter(|_| !skipped.has_method) else {
            return;
        };
        if self.replay_id() == Some(id) {
            self.on_replay_response(&Envelope::default(), cx);
        } else if let Some(request) = self.end_request(id) {
            if request.is_initialize() {
                self.handshake.refused();
            }
            self.tally.lost = self.tally.lost.saturating_add(1);
            self.reply_unserved(
                &request.id,
                true,
                ErrorReason::ResponseTooLarge,
                &message,
                cx,
            );
        }
    }

    fn is_replay_response(&self, envelope: &Envelope<'_>) -> bool {
        self.replay_id().is_some_and(|id| responds_to(envelope, id))
    }
}

/// Whether it is the response to the request of this id.
fn responds_to(envelope: &Envelope<'_>, request: &RequestId) -> bool {
    let id = envelope.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
    id.is_some_and(|id| RequestId::of(id) == *request)
}
