//! Which lines of the client may pass: not those over a limit, and none at the end of the session.

use super::in_flight::MAX_IN_FLIGHT;
use super::own_messages::too_long_message;
use super::refusals::Refusal;
use super::report::EndReason;
use super::{Context, Session};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::envelope::{Control, Envelope, Message};
use crate::protocol::id::{INLINE_BYTES, MAX_ID_BYTES};
use crate::protocol::lines::{Line, TooLong};
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::skip::SkipScanner;
use crate::resume::wire::Side;
use crate::util::plural::{Counted, are};

/// What there is to count in a message.
#[derive(Default)]
struct Ids {
    requests: usize,
    /// The longest id, as written, in bytes.
    longest: usize,
    /// All ids together.
    bytes: usize,
}

impl Ids {
    fn of(message: &Message<'_>) -> Self {
        let batch = match message {
            Message::Single(Envelope { id: None, .. }) => return Self::default(),
            Message::Single(Envelope {
                id: Some(id),
                method,
                ..
            }) => {
                return Self {
                    requests: usize::from(method.is_some()),
                    longest: id.len(),
                    bytes: id.len(),
                };
            }
            Message::Batch(batch) => batch,
        };
        Self::of_all(&batch.envelopes)
    }

    #[inline(never)]
    fn of_all(envelopes: &[Envelope<'_>]) -> Self {
        let mut ids = Self::default();
        for envelope in envelopes {
            let Some(id) = envelope.id else { continue };
            ids.requests += usize::from(envelope.method.is_some());
            ids.longest = ids.longest.max(id.len());
            ids.bytes += id.len();
        }
        ids
    }
}

impl Session {
    /// Refuses a message that is over a limit, and any message at the end of the session. Returns whether it may pass.
    pub(super) fn admits(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let ids = Ids::of(message);
        if ids.longest > INLINE_BYTES && self.refuse_by_ids(message, &ids, cx) {
            return false;
        }
        if self.goal.is_end() {
            self.refuse_at_end(message, cx);
            return false;
        }
        if self.is_stopping() && ids.requests > 0 {
            let reason = EndReason::Shutdown;
            self.refuse_requests(message, reason.error_reason(), &reason.to_string(), cx);
            return false;
        }
        let is_cut = matches!(message, Message::Batch(batch) if batch.is_cut);
        if is_cut || (ids.requests > 0 && self.unanswered() + ids.requests > MAX_IN_FLIGHT) {
            self.refuse_by_number(message, ids.requests, cx);
            return false;
        }
        true
    }

    /// What the host writes is not about the link, and must not be taken for that at its other end. Returns whether it would
    /// be.
    pub(super) fn refuse_control_line(
        &mut self,
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Message::Single(envelope) = message else {
            return false;
        };
        if envelope.control.is_none() || !self.backend.is_link() {
            return false;
        }
        let is_ours = |control: Control| control.side() == Side::Client;
        if !envelope.control.is_some_and(is_ours) {
            return false;
        }
        let text = "a line of this type is for the connection to the proxy, which is made here";
        self.note_refusal(Refusal::Unreadable, text, cx);
        let id = envelope.id.as_ref().map(|id| id as &dyn std::fmt::Display);
        self.reply_error(id, ErrorReason::InvalidRequest, text, cx);
        true
    }

    /// Refuses a line with ids that are too long to be kept. Returns whether it did.
    fn refuse_by_ids(&mut self, message: &Message<'_>, ids: &Ids, cx: &mut Context<'_>) -> bool {
        let (kind, text) = if ids.longest > MAX_ID_BYTES {
            let text = format!("an id is too long: the limit is {MAX_ID_BYTES} bytes");
            (Refusal::TooLong, text)
        } else if ids.bytes > cx.memory.available() {
            let text = too_long_message("ids", ids.bytes as u64, TooLong::BufferBudget, cx);
            (Refusal::NoMemory, text)
        } else {
            return false;
        };
        self.note_refusal(kind, &text, cx);
        self.refuse_requests(message, ErrorReason::TooLarge, &text, cx);
        if ids.longest > MAX_ID_BYTES {
            self.reply_error(None, ErrorReason::TooLarge, &text, cx);
        }
        true
    }

    fn refuse_at_end(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        if let Some(reason) = self.goal.reason() {
            let (reason, text) = (reason.error_reason(), reason.to_string());
            self.note_refusal(Refusal::AtEnd, &text, cx);
            self.refuse_requests(message, reason, &text, cx);
        }
    }

    /// Refuses what would put too many requests in flight, a batch as a whole.
    fn refuse_by_number(&mut self, message: &Message<'_>, requests: usize, cx: &mut Context<'_>) {
        let unanswered = self.unanswered();
        let text = format!(
            "{} {} waiting for responses already; the limit is {MAX_IN_FLIGHT}",
            Counted(unanswered, "request"),
            are(unanswered)
        );
        self.note_refusal(Refusal::InFlight, &text, cx);
        if requests == 0 {
            // More responses than are examined: nobody waits for a reply, but the line must not vanish.
            self.reply_error(None, ErrorReason::InFlightLimit, &text, cx);
        }
        self.refuse_requests(message, ErrorReason::InFlightLimit, &text, cx);
    }

    /// The system may have less memory than the budget allows: a long line that does not fit is refused, as if the
    /// budget were spent. Returns whether it was.
    pub(super) fn refuse_for_lack_of_memory(
        &mut self,
        line: &Line<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let text = match line {
            Line::Borrowed(text) => *text,
            Line::Buffered { bytes, len } => &bytes[..*len],
            Line::Skipped(..) => return false,
        };
        // What is small beside the free part of a buffer is to be had.
        if self.bytes_in_outbox() + text.len() < UNCHARGED_BYTES {
            return false;
        }
        let outbox = self.outbox_for(None);
        let is_moved = outbox.is_empty() && matches!(line, Line::Buffered { .. });
        if is_moved || outbox.try_reserve(text.len(), cx.memory) {
            return false;
        }
        let mut scanner = SkipScanner::default();
        scanner.feed(text);
        self.refuse_skipped(&scanner.finish(), TooLong::BufferBudget, cx);
        true
    }
}
