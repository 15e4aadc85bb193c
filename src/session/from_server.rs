//! What the server writes: which lines reach the client, which requests they answer.

use std::fmt::Display;

use log::{debug, info, warn};

use super::ending::Goal;
use super::greeting::Greeting;
use super::in_flight::{Kind, Request};
use super::own_lines::too_long_message;
use super::replay::MAX_RECORD_BYTES;
use super::stderr::excerpt;
use super::{Client, Session, Turn, Upstream};
use crate::protocol::envelope::{Control, Envelope, Message, Method};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::reply::Reason;
use crate::protocol::skip::Skipped;

impl Session {
    /// The server wrote these bytes to its stdout.
    pub fn upstream_sent(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        self.begin_event(turn);
        if let Some(peer) = &mut self.peer {
            peer.sign(turn.now);
        }
        let mut input = bytes;
        while self.delivers() && !input.is_empty() {
            if let Some(line) = Self::next_line(&mut self.from_server, &mut input, turn) {
                self.server_line(line, turn);
            }
        }
        self.finish_event(turn);
    }

    /// The server wrote these bytes to its stderr.
    pub fn upstream_logged(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        self.server_log.stderr(bytes, &self.tag, turn.now);
    }

    /// What the server wrote and did not end by a line end before it ended is its last line.
    pub(super) fn server_tail(&mut self, turn: &mut Turn<'_>) {
        if let Some(line) = self.from_server.end(Self::line_limits(turn))
            && self.delivers()
        {
            self.server_line(line, turn);
        }
    }

    /// Whether the client still gets what the server says.
    pub(super) fn delivers(&self) -> bool {
        matches!(self.client, Client::Open | Client::Ended) && self.goal != Goal::End
    }

    fn server_line(&mut self, line: Line<'_>, turn: &mut Turn<'_>) {
        match line {
            Line::Borrowed(text) => {
                if self.inspect(text, turn) {
                    self.to_client.push(text, None, turn.memory);
                }
            }
            Line::Buffered { bytes, len } => {
                if self.inspect(&bytes[..len], turn) {
                    self.to_client.push_buffer(bytes, None, turn.memory);
                }
            }
            Line::Skipped(skipped, why) => self.report_skipped(&skipped, why, turn),
        }
    }

    /// Looks what a line means. Returns whether the client is to get it.
    fn inspect(&mut self, line: &[u8], turn: &mut Turn<'_>) -> bool {
        if line.trim_ascii().is_empty() {
            return false;
        }
        debug!("{} server → client: {}", self.tag, excerpt(line));
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(invalid) => {
                let tag = &self.tag;
                self.server_log.limited(tag, turn.now, || {
                    warn!("{tag} stdout: {invalid}: {}", excerpt(line));
                });
                return false;
            }
        };
        if let Message::Single(envelope) = &message
            && self.is_replay_answer(envelope.answered_id().map(RequestId::new).as_ref())
        {
            self.replay_answered(envelope, turn);
            return false;
        }
        if let Message::Single(envelope) = &message
            && self.is_for_connector(envelope, turn)
        {
            return false;
        }
        if self.is_connector() && !message.envelopes().iter().any(Envelope::is_proxy_error) {
            self.policy.heard();
        }
        for envelope in message.envelopes() {
            self.note_server_message(envelope, turn);
        }
        self.sent_to_client.count(line.len());
        self.line_passed(turn);
        true
    }

    /// Takes the lines of the proxy at the other end that are about the connection and the server process.
    fn is_for_connector(&mut self, envelope: &Envelope<'_>, turn: &Turn<'_>) -> bool {
        let Some(peer) = &mut self.peer else {
            return false;
        };
        if envelope.control == Some(Control::HeartbeatResponse) {
            peer.response(turn.now);
            return true;
        }
        let restarted = envelope.method == Some(Method::ServerRestarted);
        if restarted {
            info!("{}: the server was restarted", self.tag);
        }
        restarted
    }

    /// Ids that are too long to be kept are no request's of the client, and those of the server pass unexamined.
    fn note_server_message(&mut self, envelope: &Envelope<'_>, turn: &mut Turn<'_>) {
        if envelope.id.is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return;
        }
        if let Some(id) = envelope.answered_id() {
            if let Some(request) = self.in_flight.end(&RequestId::new(id)) {
                self.request_answered(request, envelope, turn);
            }
        } else if let Some(id) = envelope.request_id() {
            self.server_requests.open(RequestId::new(id));
        } else if let Some(id) = envelope.cancelled_id() {
            let id = RequestId::new(id);
            // Ids of the two sides may coincide; a side that takes a request back means its own.
            if !self.server_requests.cancel(&id) {
                self.in_flight.end(&id);
            }
        }
    }

    fn request_answered(&mut self, request: Request, answer: &Envelope<'_>, turn: &mut Turn<'_>) {
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
            self.send_initialized(turn);
        }
    }

    /// An over-long line is lost, but whoever waits for it is told.
    fn report_skipped(&mut self, skipped: &Skipped, why: TooLong, turn: &mut Turn<'_>) {
        let message = too_long_message(why, turn);
        let tag = &self.tag;
        self.server_log.limited(tag, turn.now, || {
            warn!("{tag} stdout: a line was dropped: {message}");
        });
        if skipped.has_method {
            return;
        }
        if self.is_replay_answer(skipped.id.as_ref()) {
            self.replay_answered(&Envelope::default(), turn);
        } else if let Some(request) = skipped.id.as_ref().and_then(|id| self.in_flight.end(id)) {
            let id: &dyn Display = &request.id;
            self.reply_error(Some(id), Reason::TooLarge, &message, turn);
        }
    }

    fn is_replay_answer(&self, id: Option<&RequestId>) -> bool {
        let replay = match &self.upstream {
            Upstream::Up(up) => match &up.greeting {
                Greeting::Replaying(replay) => Some(&replay.id),
                Greeting::Due | Greeting::Done => None,
            },
            Upstream::Leaving(leaving) => leaving.replay.as_ref(),
            _ => None,
        };
        replay.is_some() && replay == id
    }
}
