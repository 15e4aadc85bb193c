//! What the lines of the client mean: which are for the proxy, which are forwarded, which are refused.

use super::in_flight::{Addressee, Kind, MAX_RESEND_BYTES, Opening, Request};
use super::refusals::Refusal;
use super::stderr::excerpt;
use super::upstream::ToUpstream;
use super::{Context, Session, cancellations};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::envelope::{Batch, Control, Envelope, Message, Method};
use crate::protocol::id::{IdText, RequestId};
use crate::protocol::json;
use crate::protocol::lines::Line;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::splice::Spliced;
use crate::util::about::about;
use crate::util::time::Time;

/// Where a line goes.
enum Route {
    /// To the upstream, with what it means if that matters.
    Forward(Option<ToUpstream>),
    /// The same, with this in its place.
    Replace(Vec<u8>, Option<ToUpstream>),
    /// Nowhere: it was for the proxy, or it was refused.
    Drop,
}

impl Session {
    /// A line that was read as a whole.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of its callers, one is for nearly every line"
    )]
    pub(super) fn client_text(&mut self, text: &[u8], cx: &mut Context<'_>) {
        // What is small beside the free part of a buffer is to be had.
        if self.bytes_in_outbox() + text.len() < UNCHARGED_BYTES {
            self.pass_client_text(text, cx);
        } else {
            self.client_line(Line::Borrowed(text), cx);
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of two callers, one is for nearly every line"
    )]
    fn pass_client_text(&mut self, text: &[u8], cx: &mut Context<'_>) {
        match self.route_client_line(text, cx) {
            Route::Forward(tag) => self.forward(text, tag, cx),
            Route::Replace(text, tag) => self.forward_replaced(&text, tag, cx),
            Route::Drop => {}
        }
    }

    pub(super) fn client_line(&mut self, line: Line<'_>, cx: &mut Context<'_>) {
        if self.refuse_for_lack_of_memory(&line, cx) {
            return;
        }
        match line {
            Line::Borrowed(text) => self.pass_client_text(text, cx),
            Line::Buffered { bytes, len } => match self.route_client_line(&bytes[..len], cx) {
                Route::Forward(tag) => {
                    self.note_forwarded(len, cx);
                    self.outbox_for(tag.as_ref())
                        .push_buffer(bytes, tag, cx.memory);
                    self.release_held(cx);
                }
                Route::Replace(text, tag) => self.forward_replaced(&text, tag, cx),
                Route::Drop => {}
            },
            Line::Skipped(skipped, why) => self.refuse_skipped(&skipped, why, cx),
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call would move what the line means once more"
    )]
    fn forward(&mut self, text: &[u8], tag: Option<ToUpstream>, cx: &mut Context<'_>) {
        self.note_forwarded(text.len(), cx);
        self.outbox_for(tag.as_ref()).push(text, tag, cx.memory);
        self.release_held(cx);
    }

    #[inline(never)]
    fn forward_replaced(&mut self, text: &[u8], tag: Option<ToUpstream>, cx: &mut Context<'_>) {
        self.forward(text, tag, cx);
    }

    /// A line of this many bytes is forwarded: the session is used.
    #[inline]
    fn note_forwarded(&mut self, len: usize, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.owes_opened) {
            self.backend.log_started(&self.label, true);
        }
        self.sent_to_upstream.count(len);
        cx.counts.to_upstream.count(len);
        self.line_passed(cx);
        self.resume_use();
    }

    /// Decides where a line goes, and refuses what can't go anywhere.
    fn route_client_line(&mut self, line: &[u8], cx: &mut Context<'_>) -> Route {
        let read = Message::read_here(line);
        let message = match &read {
            Ok(message) => message,
            Err(_) if is_blank(line) => return Route::Drop,
            Err(invalid) => {
                self.debug_client_line("proxy", line);
                let text = invalid.to_string();
                self.note_refusal(Refusal::Unreadable, &text, cx);
                self.reply_error(None, ErrorReason::ParseError, &text, cx);
                return Route::Drop;
            }
        };
        if let Message::Single(envelope) = message
            && let Some(control) = envelope.control
            && self.backend.takes_control_line(control)
        {
            self.debug_control_line(line);
            if control == Control::Handshake {
                self.note_ask(line, cx);
            }
            self.control_line(control, line, cx);
            return Route::Drop;
        }
        if self.refuse_control_line(message, cx) || !self.admits(message, cx) {
            self.debug_client_line("proxy, which refused it", line);
            return Route::Drop;
        }
        if self.hibernates && self.takes_ping(message, line, cx) {
            self.debug_client_line("proxy", line);
            return Route::Drop;
        }
        self.note_era(message, cx);
        self.leave_shared(cx);
        if let Some(rare) = self.rare.changed() {
            rare.server_memory.note_client(message);
        }
        self.note_progress_tokens(message);
        let route = self.classify(message, line, cx);
        match &route {
            Route::Forward(_) | Route::Replace(..) => self.debug_client_line("server", line),
            Route::Drop => self.debug_client_line("nobody", line),
        }
        route
    }

    #[inline]
    fn debug_client_line(&self, to: &str, line: &[u8]) {
        if log::max_level() >= log::LevelFilter::Debug {
            self.log_client_line(to, line);
        }
    }

    #[cold]
    fn log_client_line(&self, to: &str, line: &[u8]) {
        about!(debug, self.label, "client → {to}: {}", excerpt(line));
    }

    /// A client that is asked for no token may send one all the same.
    fn debug_control_line(&self, line: &[u8]) {
        if log::max_level() < log::LevelFilter::Debug {
            return;
        }
        if may_hold_secret(line) {
            about!(
                debug,
                self.label,
                "client → proxy: a line with a token, or the id of a session"
            );
        } else {
            self.debug_client_line("proxy", line);
        }
    }

    fn control_line(&mut self, control: Control, line: &[u8], cx: &Context<'_>) {
        about!(debug, self.label, "announced itself by a {control:?} line");
        self.handshake.replays_at_once |=
            control == Control::Handshake && asks_for_eager_replay(line);
        self.heartbeat
            .announce(self.opened, cx.now, cx.settings.heartbeat_interval);
    }

    /// What a message that may pass means.
    fn classify(&mut self, message: &Message<'_>, line: &[u8], cx: &mut Context<'_>) -> Route {
        match message {
            Message::Single(envelope) => self.classify_single(envelope, line, cx),
            Message::Batch(batch) => self.classify_batch(batch, line, cx),
        }
    }

    fn classify_single(
        &mut self,
        envelope: &Envelope<'_>,
        line: &[u8],
        cx: &mut Context<'_>,
    ) -> Route {
        if let Some(id) = envelope.request_id() {
            let kind = self.kind_of_request(envelope.method, line);
            let request = Request::new(RequestId::of(id), kind, cx.now);
            self.queued.add(&request);
            self.note_standing(envelope, &request.id, line);
            return Route::Forward(Some(ToUpstream::Request(request)));
        }
        let Some(id) = envelope.response_id() else {
            let tag = classify_notification(envelope);
            return match tag {
                Some(ToUpstream::Cancelled(id)) if self.take_out(&id, cx) => Route::Drop,
                tag => Route::Forward(tag.filter(|tag| self.note_queued(tag))),
            };
        };
        match self.take_addressee(id) {
            Addressee::Present => Route::Forward(Some(ToUpstream::Response)),
            Addressee::Unknown => Route::Forward(None),
            Addressee::Gone => {
                about!(
                    debug,
                    self.label,
                    "dropped the response {id}: the server that asked is gone"
                );
                Route::Drop
            }
        }
    }

    /// Counts a part of a line that is going to wait for the upstream. Returns whether it has to be remembered: a
    /// cancellation of what is not there means nothing.
    fn note_queued(&mut self, part: &ToUpstream) -> bool {
        match part {
            ToUpstream::Request(request) => self.queued.add(request),
            ToUpstream::Cancelled(id) => {
                // Which requests wait is not searched: that there are some is seldom enough.
                if self.queued.requests() == 0 && !self.in_flight.contains(id) {
                    return false;
                }
                self.queued.add_cancellation(id);
            }
            _ => {}
        }
        true
    }

    fn kind_of_request(&mut self, method: Option<Method>, line: &[u8]) -> Kind {
        let is_initialize = method == Some(Method::Initialize);
        if is_initialize {
            self.handshake.begin();
        } else if method == Some(Method::Listen) {
            return Kind::Listen(self.keep_for_refusal(line));
        } else if method != Some(Method::Discover) {
            return self.keep_for_refusal(line).map_or(Kind::Plain, Kind::Kept);
        }
        // A server may have died of the probe, but a link did not.
        let may_be_resent = is_initialize || self.backend.is_link();
        let line = may_be_resent.then(|| self.keep_for_resending(line));
        let line = line.flatten();
        Kind::Opening(Box::new(Opening {
            is_initialize,
            line,
            was_sent: false,
            number: self.handshake.next_opening(),
        }))
    }

    /// Cancellations of what waits are carried out, and the others pass.
    fn classify_batch(&mut self, batch: &Batch<'_>, line: &[u8], cx: &mut Context<'_>) -> Route {
        self.note_subscriptions_in(batch);
        let carried_out = self.take_out_all(batch, cx);
        match cancellations::without_carried_out(line, &carried_out) {
            Spliced::Unchanged => self.classify_whole_batch(batch, cx.now),
            Spliced::Nothing => Route::Drop,
            Spliced::Line(line) => {
                let Ok(Message::Batch(batch)) = Message::read(&line) else {
                    return Route::Drop;
                };
                match self.classify_whole_batch(&batch, cx.now) {
                    Route::Forward(tag) => Route::Replace(line, tag),
                    route => route,
                }
            }
        }
    }

    fn classify_whole_batch(&mut self, batch: &Batch<'_>, now: Time) -> Route {
        let envelopes = &batch.envelopes;
        let parts = envelopes.iter();
        let parts = parts.filter_map(|envelope| classify_in_batch(envelope, now));
        let parts: Box<[ToUpstream]> = parts.filter(|part| self.note_queued(part)).collect();
        let addressees: Vec<Addressee> = envelopes
            .iter()
            .filter_map(Envelope::response_id)
            .map(|id| self.take_addressee(id))
            .collect();
        if !parts.is_empty() {
            return Route::Forward(Some(ToUpstream::Batch(parts)));
        }
        if addressees.contains(&Addressee::Present) {
            return Route::Forward(Some(ToUpstream::Response));
        }
        let only_responses = addressees.len() == batch.len;
        if only_responses && addressees.contains(&Addressee::Gone) {
            return Route::Drop;
        }
        Route::Forward(None)
    }

    /// Whose request gets this response, which it then has. A server on its way out can still ask, but gets nothing any
    /// more.
    fn take_addressee(&mut self, id: IdText<'_>) -> Addressee {
        match self.server_requests.end(&RequestId::of(id)) {
            Addressee::Present if !self.upstream.is_up() => Addressee::Gone,
            addressee => addressee,
        }
    }

    /// A copy of a line that may be sent to another upstream, unless such lines hold too much already.
    fn keep_for_resending(&self, line: &[u8]) -> Option<Box<[u8]>> {
        let kept = self.in_flight.load().line_bytes() + self.queued.line_bytes();
        (kept + line.len() <= MAX_RESEND_BYTES).then(|| line.into())
    }
}

/// Whether a client announces that neither it nor the application behind it knows about restarts.
fn asks_for_eager_replay(line: &[u8]) -> bool {
    let replay = || {
        let line = str::from_utf8(line).ok()?;
        let [replay] = json::find(line, ["replay"])?;
        line.get(replay?)
    };
    replay() == Some(r#""eager""#)
}

/// Whether a line may have a member `token`, or the id of a session, which may be written with escapes.
fn may_hold_secret(line: &[u8]) -> bool {
    let has = |name: &[u8]| memchr::memmem::find(line, name).is_some();
    has(b"token") || has(b"resume") || line.contains(&b'\\')
}

/// Whether there is nothing in a line but white space.
pub(super) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// What a message in a batch means. A request in a batch is never sent twice, because the batch is not.
fn classify_in_batch(envelope: &Envelope<'_>, now: Time) -> Option<ToUpstream> {
    match envelope.request_id() {
        Some(id) => Some(ToUpstream::Request(Request::new(
            RequestId::of(id),
            Kind::Plain,
            now,
        ))),
        None => classify_notification(envelope),
    }
}

fn classify_notification(envelope: &Envelope<'_>) -> Option<ToUpstream> {
    match envelope.method {
        Some(Method::Initialized) => Some(ToUpstream::Initialized),
        Some(Method::Cancelled) => envelope
            .cancelled_id()
            .map(|id| ToUpstream::Cancelled(RequestId::of(id))),
        _ => None,
    }
}
