//! What the server writes: which lines reach the client, which requests they answer.

use std::fmt::Display;

use log::{debug, info, warn};

use super::ending::Goal;
use super::greeting::Greeting;
use super::in_flight::{Ended, Kind, Matched, Request};
use super::own_messages::too_long_message;
use super::replay::MAX_RECORD_BYTES;
use super::stderr::excerpt;
use super::{Client, Context, Session, Upstream};
use crate::protocol::envelope::{Control, Envelope, Message, Method};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::skip::Skipped;

impl Session {
    /// The server wrote these bytes to its stdout.
    pub(super) fn upstream_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if let Some(peer) = &mut self.peer {
            peer.sign(cx.now);
        }
        let mut input = bytes;
        while self.delivers_to_client() && !input.is_empty() {
            if let Some(line) = Self::next_line(&mut self.from_upstream, &mut input, cx) {
                self.upstream_line(line, cx);
            }
        }
    }

    /// The server wrote these bytes to its stderr.
    pub(super) fn upstream_stderr(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        self.server_log.stderr(bytes, &self.tag, cx.now);
    }

    /// What the server wrote and did not end by a line end before it ended is its last line.
    pub(super) fn upstream_tail(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = self.from_upstream.end(Self::line_limits(cx))
            && self.delivers_to_client()
        {
            self.upstream_line(line, cx);
        }
    }

    /// Whether the client still gets what the server says.
    pub(super) fn delivers_to_client(&self) -> bool {
        matches!(self.client, Client::Open | Client::Ended) && self.goal != Goal::End
    }

    fn upstream_line(&mut self, line: Line<'_>, cx: &mut Context<'_>) {
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
            Line::Skipped(skipped, why) => self.report_skipped(&skipped, why, cx),
        }
    }

    /// Looks what a line means. Returns whether the client is to get it.
    fn route_upstream_line(&mut self, line: &[u8], cx: &mut Context<'_>) -> bool {
        if line.trim_ascii().is_empty() {
            return false;
        }
        debug!("{} server → client: {}", self.tag, excerpt(line));
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(invalid) => {
                let tag = &self.tag;
                self.server_log.limited(tag, cx.now, || {
                    warn!("{tag} stdout: {invalid}: {}", excerpt(line));
                });
                return false;
            }
        };
        if let Message::Single(envelope) = &message
            && self.replay_id().is_some_and(|id| responds_to(envelope, id))
        {
            self.replay_responded(envelope, cx);
            return false;
        }
        if let Message::Single(envelope) = &message
            && self.is_for_connector(envelope, cx)
        {
            return false;
        }
        if self.is_connector() && !message.envelopes().iter().any(Envelope::is_proxy_error) {
            self.policy.heard();
        }
        for envelope in message.envelopes() {
            self.note_server_message(envelope, cx);
        }
        self.sent_to_client.count(line.len());
        self.line_passed(cx);
        true
    }

    /// Takes the lines of the proxy at the other end that are about the connection and the server process.
    fn is_for_connector(&mut self, envelope: &Envelope<'_>, cx: &Context<'_>) -> bool {
        let Some(peer) = &mut self.peer else {
            return false;
        };
        if envelope.control == Some(Control::HeartbeatResponse) {
            peer.response(cx.now);
            return true;
        }
        let restarted = envelope.method == Some(Method::ServerRestarted);
        if restarted {
            info!("{}: the server was restarted", self.tag);
        }
        restarted
    }

    /// Ids that are too long to be kept are no request's of the client, and those of the server pass unexamined.
    fn note_server_message(&mut self, envelope: &Envelope<'_>, cx: &mut Context<'_>) {
        if envelope.id.is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return;
        }
        if let Some(id) = envelope.response_id() {
            if let Some(request) = self.end_request(&RequestId::new(id)) {
                self.request_responded(request, envelope, cx);
            }
        } else if let Some(id) = envelope.request_id() {
            self.server_requests.open(RequestId::new(id));
        } else if let Some(id) = envelope.cancelled_id() {
            let id = RequestId::new(id);
            // Ids of the two sides may coincide; a side that takes a request back means its own.
            if !self.server_requests.cancel(&id) {
                self.in_flight.cancel(&id);
            }
        }
    }

    /// Ends the request that a response of this id belongs to.
    fn end_request(&mut self, id: &RequestId) -> Option<Request> {
        let Ended { request, matched } = self.in_flight.end(id)?;
        if matched == (Matched::Coerced { is_first: true }) {
            info!(
                "{}: the server returns ids as another type ({id} for {}); its responses are matched all the same",
                self.tag, request.id
            );
        }
        Some(request)
    }

    fn request_responded(&mut self, request: Request, answer: &Envelope<'_>, cx: &mut Context<'_>) {
        if let Upstream::Up(up) = &mut self.upstream {
            up.used = true;
        }
        let is_initialize = request.is_initialize();
        let (Kind::Opening(opening), true, Some(result)) =
            (request.kind, is_initialize, answer.result())
        else {
            return;
        };
        self.handshake.record(opening.line, result);
        if self.handshake.is_too_large() {
            warn!(
                "{}: the handshake is too large to be kept (over {MAX_RECORD_BYTES} bytes with what else is kept) and \
                 will not be replayed after a restart",
                self.tag
            );
        }
        if self.handshake.take_owed() {
            self.send_initialized(cx);
        }
    }

    /// An over-long line is lost, but whoever waits for it is told.
    fn report_skipped(&mut self, skipped: &Skipped, why: TooLong, cx: &mut Context<'_>) {
        let message = too_long_message(why, cx);
        let tag = &self.tag;
        self.server_log.limited(tag, cx.now, || {
            warn!("{tag} stdout: a line was dropped: {message}");
        });
        if skipped.has_method {
            return;
        }
        if skipped.id.is_some() && self.replay_id() == skipped.id.as_ref() {
            self.replay_responded(&Envelope::default(), cx);
        } else if let Some(request) = skipped.id.as_ref().and_then(|id| self.end_request(id)) {
            let id: &dyn Display = &request.id;
            self.reply_error(Some(id), ErrorReason::TooLarge, &message, cx);
        }
    }

    /// The id of a replay under way.
    fn replay_id(&self) -> Option<&RequestId> {
        match &self.upstream {
            Upstream::Up(up) => match &up.greeting {
                Greeting::Replaying(replay) => Some(&replay.id),
                Greeting::Due | Greeting::Done => None,
            },
            Upstream::Leaving(leaving) => leaving.replay.as_ref(),
            _ => None,
        }
    }
}

/// Whether it is the response to the request of this id.
fn responds_to(envelope: &Envelope<'_>, request: &RequestId) -> bool {
    let id = envelope.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
    id.is_some_and(|id| RequestId::new(id) == *request)
}
