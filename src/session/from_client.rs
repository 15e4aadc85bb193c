//! What the client sends: which lines are for the proxy, which are forwarded, which are refused.

use log::debug;

use super::ending::Goal;
use super::in_flight::{Addressee, Kind, MAX_IN_FLIGHT, MAX_RESEND_BYTES, Opening, Request};
use super::own_lines::too_long_message;
use super::stderr::excerpt;
use super::{Client, OUTBOX_BYTES, OWN_LINES_BYTES, Role, Session, ToServer, Turn, Unread};
use crate::protocol::envelope::{Batch, Control, Envelope, Message, Method};
use crate::protocol::id::{INLINE_BYTES, MAX_ID_BYTES, RequestId};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::reply::Reason;

/// What becomes of a line.
enum Fate {
    /// It is forwarded, with what it means if that matters.
    Forward(Option<ToServer>),
    /// It was for the proxy, or it was refused.
    Drop,
}

impl Session {
    /// The client sent these bytes.
    pub fn client_sent(&mut self, bytes: &[u8], turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.heartbeat.life(turn.now);
        self.prolong_last_call(turn.now);
        match self.client {
            Client::Open => {
                let mut input = bytes;
                if self.unread.is_none() {
                    self.handle_input(&mut input, turn);
                }
                self.keep_unread(input);
                self.note_long_line(turn);
            }
            Client::Lingering { .. } => self.discard(bytes.len(), turn),
            Client::Ended | Client::Closed => {}
        }
        self.finish_event(turn);
    }

    /// The client ended its side. What has no line end is its last line.
    pub fn client_ended(&mut self, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        if self.client == Client::Open {
            if let Some(line) = self.from_client.end(Self::line_limits(turn)) {
                self.client_line(line, turn);
            }
            self.client = Client::Ended;
        }
        self.client_has_ended(turn);
        self.finish_event(turn);
    }

    /// Goes on with what could not be handled when it was read.
    pub(super) fn handle_unread(&mut self, turn: &mut Turn<'_>) {
        if !self.listens() {
            return;
        }
        let Some(mut unread) = self.unread.take() else {
            return;
        };
        let mut input = &unread.bytes[unread.at..];
        self.handle_input(&mut input, turn);
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
    pub(super) fn listens(&self) -> bool {
        self.hears()
            && self.to_server.len() + self.held().len() < OUTBOX_BYTES
            && self.to_client.marked_bytes() <= OWN_LINES_BYTES
    }

    fn handle_input(&mut self, input: &mut &[u8], turn: &mut Turn<'_>) {
        while !input.is_empty() && self.listens() {
            if let Some(line) = Self::next_line(&mut self.from_client, input, turn) {
                self.client_line(line, turn);
            }
        }
    }

    fn client_line(&mut self, line: Line<'_>, turn: &mut Turn<'_>) {
        match line {
            Line::Borrowed(text) => {
                if let Fate::Forward(mark) = self.examine(text, turn) {
                    self.note_message(text.len(), turn);
                    self.outbox_for(mark.as_ref()).push(text, mark, turn.memory);
                    self.greet(turn);
                }
            }
            Line::Buffered { bytes, len } => {
                if let Fate::Forward(mark) = self.examine(&bytes[..len], turn) {
                    self.note_message(len, turn);
                    self.outbox_for(mark.as_ref())
                        .push_buffer(bytes, mark, turn.memory);
                    self.greet(turn);
                }
            }
            Line::Skipped(skipped, why) => self.refuse_skipped(&skipped, why, turn),
        }
    }

    /// The client has said something that is for the server, of so many bytes.
    fn note_message(&mut self, len: usize, turn: &Turn<'_>) {
        self.sent_to_server.count(len);
        self.line_passed(turn);
        self.resume_use();
    }

    /// Decides about a line.
    fn examine(&mut self, line: &[u8], turn: &mut Turn<'_>) -> Fate {
        if line.trim_ascii().is_empty() {
            return Fate::Drop;
        }
        debug!("{} client → server: {}", self.tag, excerpt(line));
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(invalid) => {
                self.reply_error(None, Reason::ParseError, &invalid.to_string(), turn);
                return Fate::Drop;
            }
        };
        let control = match &message {
            Message::Single(envelope) => envelope
                .control
                .filter(|control| is_for_proxy(*control, turn)),
            Message::Batch(_) => None,
        };
        if let Some(control) = control {
            self.control_line(control, turn);
            return Fate::Drop;
        }
        if self.refuse_by_ids(&message, turn) {
            return Fate::Drop;
        }
        if self.goal == Goal::End {
            let text = self.end_reason.to_string();
            self.answer_all(&message, self.end_reason.reply_reason(), &text, turn);
            return Fate::Drop;
        }
        if !self.admit_requests(&message, turn) {
            return Fate::Drop;
        }
        self.meaning_of(&message, line)
    }

    fn control_line(&mut self, control: Control, turn: &Turn<'_>) {
        debug!("{} announced itself by a {control:?} line", self.tag);
        self.heartbeat
            .announce(self.opened, turn.now, turn.settings.heartbeat_interval);
    }

    /// Refuses a line with an id that is too long to be kept. Returns whether it did.
    fn refuse_by_ids(&mut self, message: &Message<'_>, turn: &mut Turn<'_>) -> bool {
        let ids = message
            .envelopes()
            .iter()
            .filter_map(|envelope| envelope.id);
        let (longest, all) = ids.fold((0, 0), |(longest, all), id| {
            (id.len().max(longest), all + id.len())
        });
        let text = if longest > MAX_ID_BYTES {
            format!("an id is too long: the limit is {MAX_ID_BYTES} bytes")
        } else if longest > INLINE_BYTES && all > turn.memory.available() {
            too_long_message(TooLong::Memory, turn)
        } else {
            return false;
        };
        self.answer_all(message, Reason::TooLarge, &text, turn);
        if longest > MAX_ID_BYTES {
            self.reply_error(None, Reason::TooLarge, &text, turn);
        }
        true
    }

    /// Refuses what would put too many requests in flight, a batch as a whole.
    fn admit_requests(&mut self, message: &Message<'_>, turn: &mut Turn<'_>) -> bool {
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
            self.reply_error(None, Reason::InFlightLimit, &text, turn);
        }
        self.answer_all(message, Reason::InFlightLimit, &text, turn);
        false
    }

    fn meaning_of(&mut self, message: &Message<'_>, line: &[u8]) -> Fate {
        match message {
            Message::Single(envelope) => self.meaning_of_single(envelope, line),
            Message::Batch(batch) => self.meaning_of_batch(batch),
        }
    }

    fn meaning_of_single(&mut self, envelope: &Envelope<'_>, line: &[u8]) -> Fate {
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
            return Fate::Forward(Some(ToServer::Request(request)));
        }
        if let Some(id) = envelope.answered_id() {
            return match self.addressee(id) {
                Addressee::Present => Fate::Forward(Some(ToServer::Answer)),
                Addressee::Unknown => Fate::Forward(None),
                Addressee::Gone => {
                    debug!(
                        "{}: dropped the answer {id} to a request of a server that is gone",
                        self.tag
                    );
                    Fate::Drop
                }
            };
        }
        Fate::Forward(meaning_of_notification(envelope))
    }

    fn meaning_of_batch(&mut self, batch: &Batch<'_>) -> Fate {
        let envelopes = &batch.envelopes;
        let parts: Box<[ToServer]> = envelopes.iter().filter_map(meaning_in_batch).collect();
        let answers: Vec<Addressee> = envelopes
            .iter()
            .filter_map(Envelope::answered_id)
            .map(|id| self.addressee(id))
            .collect();
        if !parts.is_empty() {
            let batch = ToServer::Batch(parts);
            batch
                .requests()
                .for_each(|request| self.queued.add(request));
            return Fate::Forward(Some(batch));
        }
        let nothing_else = answers.len() == batch.len;
        if nothing_else
            && answers.contains(&Addressee::Gone)
            && !answers.contains(&Addressee::Present)
        {
            return Fate::Drop;
        }
        Fate::Forward(
            answers
                .contains(&Addressee::Present)
                .then_some(ToServer::Answer),
        )
    }

    /// Whose request is answered. A server on its way out can still ask, but gets nothing any more.
    fn addressee(&mut self, id: &str) -> Addressee {
        match self.server_requests.answer(&RequestId::new(id)) {
            Addressee::Present if !self.upstream.takes_input() => Addressee::Gone,
            addressee => addressee,
        }
    }

    /// A copy of a line that may be sent to another server, unless such lines hold too much already.
    fn keep_for_resending(&self, line: &[u8]) -> Option<Box<[u8]>> {
        let queued = self
            .to_server
            .marks()
            .chain(self.held().marks())
            .filter_map(|mark| match mark {
                ToServer::Request(request) => request.resendable(),
                _ => None,
            });
        let kept = self.in_flight.resendable_bytes() + queued.map(<[u8]>::len).sum::<usize>();
        (kept + line.len() <= MAX_RESEND_BYTES).then(|| line.into())
    }
}

/// The stdio side takes no lines about its connection from the program that started it: there is none between them.
fn is_for_proxy(control: Control, turn: &Turn<'_>) -> bool {
    matches!(turn.settings.role, Role::Proxy { .. }) && control != Control::HeartbeatResponse
}

/// What a message in a batch means. A request in a batch is never sent twice, as the batch is not.
fn meaning_in_batch(envelope: &Envelope<'_>) -> Option<ToServer> {
    match envelope.request_id() {
        Some(id) => Some(ToServer::Request(Request {
            id: RequestId::new(id),
            kind: Kind::Plain,
        })),
        None => meaning_of_notification(envelope),
    }
}

fn meaning_of_notification(envelope: &Envelope<'_>) -> Option<ToServer> {
    match envelope.method {
        Some(Method::Initialized) => Some(ToServer::Initialized),
        Some(Method::Cancelled) => envelope
            .cancelled_id()
            .map(|id| ToServer::Cancelled(RequestId::new(id))),
        _ => None,
    }
}
