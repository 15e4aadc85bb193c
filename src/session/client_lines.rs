//! What the client sends: which lines are for the proxy, which are forwarded, which are refused.

use log::debug;

use super::ending::Goal;
use super::in_flight::{Addressee, Kind, MAX_IN_FLIGHT, MAX_RESEND_BYTES, Opening, Request};
use super::own_messages::too_long_message;
use super::stderr::excerpt;
use super::{Backend, Client, Context, OUTBOX_BYTES, OWN_LINES_BYTES, Session, ToUpstream, Unread};
use crate::protocol::envelope::{Batch, Control, Envelope, Message, Method};
use crate::protocol::id::{INLINE_BYTES, MAX_ID_BYTES, RequestId};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::own_messages::ErrorReason;

/// What becomes of a line.
enum Route {
    /// It is forwarded, with what it means if that matters.
    Forward(Option<ToUpstream>),
    /// It was for the proxy, or it was refused.
    Drop,
}

impl Session {
    /// The client sent these bytes.
    pub(super) fn client_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        self.heartbeat.note_activity(cx.now);
        self.prolong_last_call(cx.now);
        match self.client {
            Client::Open => {
                let mut input = bytes;
                if self.unread.is_none() {
                    self.handle_input(&mut input, cx);
                }
                self.keep_unread(input);
                self.note_long_line(cx);
            }
            Client::Lingering { .. } => self.discard(bytes.len(), cx),
            Client::Ended | Client::Closed => {}
        }
    }

    /// The client ended its side. What has no line end is its last line.
    pub(super) fn client_eof(&mut self, cx: &mut Context<'_>) {
        if self.client == Client::Open {
            if let Some(line) = self.from_client.end(Self::line_limits(cx)) {
                self.client_line(line, cx);
            }
            self.client = Client::Ended;
        }
        self.after_client_eof(cx);
    }

    /// Goes on with what could not be handled when it was read.
    pub(super) fn handle_unread(&mut self, cx: &mut Context<'_>) {
        if !self.has_room_for_client_lines() {
            return;
        }
        let Some(mut unread) = self.unread.take() else {
            return;
        };
        let mut input = &unread.bytes[unread.at..];
        self.handle_input(&mut input, cx);
        if !input.is_empty() {
            unread.at = unread.bytes.len() - input.len();
            self.unread = Some(unread);
        }
    }

    fn keep_unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let unread = self.unread.get_or_insert_with(|| {
            Box::new(Unread {
                bytes: Vec::new(),
                at: 0,
            })
        });
        unread.bytes.extend_from_slice(bytes);
    }

    /// Whether there is room for what a client's line may lead to.
    pub(super) fn has_room_for_client_lines(&self) -> bool {
        self.accepts_client_lines()
            && self.to_upstream.len() + self.held().len() < OUTBOX_BYTES
            && self.to_client.tagged_bytes() <= OWN_LINES_BYTES
    }

    fn handle_input(&mut self, input: &mut &[u8], cx: &mut Context<'_>) {
        while !input.is_empty() && self.has_room_for_client_lines() {
            if let Some(line) = Self::next_line(&mut self.from_client, input, cx) {
                self.client_line(line, cx);
            }
        }
    }

    fn client_line(&mut self, line: Line<'_>, cx: &mut Context<'_>) {
        match line {
            Line::Borrowed(text) => {
                if let Route::Forward(tag) = self.route_client_line(text, cx) {
                    self.note_message(text.len(), cx);
                    self.outbox_for(tag.as_ref()).push(text, tag, cx.memory);
                    self.release_held(cx);
                }
            }
            Line::Buffered { bytes, len } => {
                if let Route::Forward(tag) = self.route_client_line(&bytes[..len], cx) {
                    self.note_message(len, cx);
                    self.outbox_for(tag.as_ref())
                        .push_buffer(bytes, tag, cx.memory);
                    self.release_held(cx);
                }
            }
            Line::Skipped(skipped, why) => self.refuse_skipped(&skipped, why, cx),
        }
    }

    /// The client has said something that is for the server, of so many bytes.
    fn note_message(&mut self, len: usize, cx: &Context<'_>) {
        self.sent_to_server.count(len);
        self.line_passed(cx);
        self.resume_use();
    }

    /// Decides about a line.
    fn route_client_line(&mut self, line: &[u8], cx: &mut Context<'_>) -> Route {
        if line.trim_ascii().is_empty() {
            return Route::Drop;
        }
        debug!("{} client → server: {}", self.tag, excerpt(line));
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(invalid) => {
                self.reply_error(None, ErrorReason::ParseError, &invalid.to_string(), cx);
                return Route::Drop;
            }
        };
        let control = match &message {
            Message::Single(envelope) => envelope
                .control
                .filter(|control| is_for_proxy(*control, cx)),
            Message::Batch(_) => None,
        };
        if let Some(control) = control {
            self.control_line(control, cx);
            return Route::Drop;
        }
        if self.refuse_by_ids(&message, cx) {
            return Route::Drop;
        }
        if self.goal == Goal::End {
            let text = self.end_reason.to_string();
            self.answer_all(&message, self.end_reason.reply_reason(), &text, cx);
            return Route::Drop;
        }
        if !self.admit_requests(&message, cx) {
            return Route::Drop;
        }
        self.classify(&message, line)
    }

    fn control_line(&mut self, control: Control, cx: &Context<'_>) {
        debug!("{} announced itself by a {control:?} line", self.tag);
        self.heartbeat
            .announce(self.opened, cx.now, cx.settings.heartbeat_interval);
    }

    /// Refuses a line with an id that is too long to be kept. Returns whether it did.
    fn refuse_by_ids(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let ids = message
            .envelopes()
            .iter()
            .filter_map(|envelope| envelope.id);
        let (longest, all) = ids.fold((0, 0), |(longest, all), id| {
            (id.len().max(longest), all + id.len())
        });
        let text = if longest > MAX_ID_BYTES {
            format!("an id is too long: the limit is {MAX_ID_BYTES} bytes")
        } else if longest > INLINE_BYTES && all > cx.memory.available() {
            too_long_message(TooLong::BufferBudget, cx)
        } else {
            return false;
        };
        self.answer_all(message, ErrorReason::TooLarge, &text, cx);
        if longest > MAX_ID_BYTES {
            self.reply_error(None, ErrorReason::TooLarge, &text, cx);
        }
        true
    }

    /// Refuses what would put too many requests in flight, a batch as a whole.
    fn admit_requests(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let requests = message
            .envelopes()
            .iter()
            .filter_map(Envelope::request_id)
            .count();
        let unanswered = self.unanswered();
        let is_cut = matches!(message, Message::Batch(batch) if batch.is_cut);
        if !is_cut && (requests == 0 || unanswered + requests <= MAX_IN_FLIGHT) {
            return true;
        }
        let text = format!(
            "{unanswered} requests wait for their answers already; the limit is {MAX_IN_FLIGHT}"
        );
        if requests == 0 {
            // Answers without end: nobody waits for a reply, but the line must not vanish.
            self.reply_error(None, ErrorReason::InFlightLimit, &text, cx);
        }
        self.answer_all(message, ErrorReason::InFlightLimit, &text, cx);
        false
    }

    fn classify(&mut self, message: &Message<'_>, line: &[u8]) -> Route {
        match message {
            Message::Single(envelope) => self.classify_single(envelope, line),
            Message::Batch(batch) => self.classify_batch(batch),
        }
    }

    fn classify_single(&mut self, envelope: &Envelope<'_>, line: &[u8]) -> Route {
        if let Some(id) = envelope.request_id() {
            let is_initialize = envelope.method == Some(Method::Initialize);
            if is_initialize {
                self.handshake.begin();
            }
            let kind = if is_initialize || envelope.method == Some(Method::Discover) {
                Kind::Opening(Box::new(Opening {
                    is_initialize,
                    line: self.keep_for_resending(line),
                }))
            } else {
                Kind::Plain
            };
            let request = Request {
                id: RequestId::new(id),
                kind,
            };
            self.queued.add(&request);
            return Route::Forward(Some(ToUpstream::Request(request)));
        }
        if let Some(id) = envelope.response_id() {
            return match self.addressee(id) {
                Addressee::Present => Route::Forward(Some(ToUpstream::Answer)),
                Addressee::Unknown => Route::Forward(None),
                Addressee::Gone => {
                    debug!(
                        "{}: dropped the answer {id} to a request of a server that is gone",
                        self.tag
                    );
                    Route::Drop
                }
            };
        }
        Route::Forward(classify_notification(envelope).filter(|tag| self.note_queued(tag)))
    }

    /// Counts a part of a line that is going to wait for the server. Returns whether it has to be remembered: a
    /// cancellation of what is not there means nothing.
    fn note_queued(&mut self, part: &ToUpstream) -> bool {
        match part {
            ToUpstream::Request(request) => self.queued.add(request),
            ToUpstream::Cancelled(id) => {
                // Which requests wait is not searched: that there are some is seldom enough.
                if self.queued.requests == 0 && !self.in_flight.contains(id) {
                    return false;
                }
                self.queued.add_cancellation(id);
            }
            _ => {}
        }
        true
    }

    fn classify_batch(&mut self, batch: &Batch<'_>) -> Route {
        let envelopes = &batch.envelopes;
        let parts = envelopes.iter().filter_map(classify_in_batch);
        let parts: Box<[ToUpstream]> = parts.filter(|part| self.note_queued(part)).collect();
        let answers: Vec<Addressee> = envelopes
            .iter()
            .filter_map(Envelope::response_id)
            .map(|id| self.addressee(id))
            .collect();
        if !parts.is_empty() {
            return Route::Forward(Some(ToUpstream::Batch(parts)));
        }
        let nothing_else = answers.len() == batch.len;
        if nothing_else
            && answers.contains(&Addressee::Gone)
            && !answers.contains(&Addressee::Present)
        {
            return Route::Drop;
        }
        Route::Forward(
            answers
                .contains(&Addressee::Present)
                .then_some(ToUpstream::Answer),
        )
    }

    /// Whose request is answered. A server on its way out can still ask, but gets nothing any more.
    fn addressee(&mut self, id: &str) -> Addressee {
        match self.server_requests.end(&RequestId::new(id)) {
            Addressee::Present if !self.upstream.takes_input() => Addressee::Gone,
            addressee => addressee,
        }
    }

    /// A copy of a line that may be sent to another server, unless such lines hold too much already.
    fn keep_for_resending(&self, line: &[u8]) -> Option<Box<[u8]>> {
        let kept = self.in_flight.load().line_bytes + self.queued.line_bytes;
        (kept + line.len() <= MAX_RESEND_BYTES).then(|| line.into())
    }
}

/// The stdio side takes no lines about its connection from the program that started it: there is none between them.
fn is_for_proxy(control: Control, cx: &Context<'_>) -> bool {
    matches!(cx.settings.role, Backend::Process { .. }) && control != Control::HeartbeatResponse
}

/// What a message in a batch means. A request in a batch is never sent twice, as the batch is not.
fn classify_in_batch(envelope: &Envelope<'_>) -> Option<ToUpstream> {
    match envelope.request_id() {
        Some(id) => Some(ToUpstream::Request(Request {
            id: RequestId::new(id),
            kind: Kind::Plain,
        })),
        None => classify_notification(envelope),
    }
}

fn classify_notification(envelope: &Envelope<'_>) -> Option<ToUpstream> {
    match envelope.method {
        Some(Method::Initialized) => Some(ToUpstream::Initialized),
        Some(Method::Cancelled) => envelope
            .cancelled_id()
            .map(|id| ToUpstream::Cancelled(RequestId::new(id))),
        _ => None,
    }
}
