//! For hosts that end the session when a server says something they did not ask for: a response to no request, or progress
//! of none. Such lines are dropped, and counted (`connect --tidy`).

use serde::{Deserialize, Serialize};

use super::in_flight::MAX_IN_FLIGHT;
use super::{Context, Session};
use crate::protocol::envelope::{Envelope, Message, Method, is_progress};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::util::plural::Counted;

/// So many tokens are kept: twice as many as requests can be unanswered.
pub(super) const MAX_TOKENS: usize = 2 * MAX_IN_FLIGHT;

/// What there is to know to tell such lines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tidy {
    /// The progress tokens of requests, each with the id of its request, which may have its response already.
    pub(super) tokens: Vec<(RequestId, RequestId)>,
    dropped: u64,
}

impl Session {
    #[inline]
    fn any_tidy(&mut self) -> Option<&mut Tidy> {
        self.rare.changed().and_then(|rare| rare.tidy.as_mut())
    }

    /// Notes the progress tokens of requests on their way to the server.
    pub(super) fn note_progress_tokens(&mut self, message: &Message<'_>) {
        if self.any_tidy().is_none() {
            return;
        }
        for envelope in message.envelopes() {
            let token = envelope.requested_progress().filter(|it| is_kept(it));
            let Some((token, id)) = token.zip(envelope.request_id()) else {
                continue;
            };
            self.forget_old_tokens();
            if let Some(tidy) = self.any_tidy() {
                tidy.tokens
                    .push((RequestId::new(token), RequestId::new(id)));
            }
        }
    }

    /// Once there are many, those of requests that have their responses are forgotten; there can't be many others.
    fn forget_old_tokens(&mut self) {
        let full = |tidy: &&mut Tidy| tidy.tokens.len() >= MAX_TOKENS;
        let Some(tidy) = self.any_tidy().filter(full) else {
            return;
        };
        let mut tokens = std::mem::take(&mut tidy.tokens);
        tokens.retain(|(_, id)| self.is_unanswered(id));
        if let Some(tidy) = self.any_tidy() {
            tidy.tokens = tokens;
        }
    }

    /// Whether the host is to be spared a line. Ask before the line is noted, as a response ends its request.
    pub(super) fn is_unasked(
        &mut self,
        message: &Message<'_>,
        line: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Message::Single(envelope) = message else {
            return false;
        };
        if self.any_tidy().is_none() {
            return false;
        }
        let what = if envelope.is_response() {
            let id = envelope.id.filter(|id| id.len() <= MAX_ID_BYTES);
            let id = id.map(RequestId::new);
            if id.is_some_and(|id| self.in_flight.meant_by(&id).is_some()) {
                return false;
            }
            "a response to no request"
        } else if envelope.method == Some(Method::Other) && is_progress(line) {
            if self.is_progress_asked(envelope) {
                return false;
            }
            "progress of no request"
        } else {
            return false;
        };
        self.note_dropped(what, cx);
        true
    }

    fn is_progress_asked(&mut self, envelope: &Envelope<'_>) -> bool {
        let token = envelope.progress_token().filter(|it| is_kept(it));
        let (Some(token), Some(tidy)) = (token.map(RequestId::new), &self.rare.tidy) else {
            return false;
        };
        let in_flight = &mut self.in_flight;
        let mut tokens = tidy.tokens.iter();
        tokens.any(|(known, id)| *known == token && in_flight.contains(id))
    }

    fn note_dropped(&mut self, what: &str, cx: &mut Context<'_>) {
        let Some(tidy) = self.any_tidy() else {
            return;
        };
        tidy.dropped += 1;
        let dropped = Counted(tidy.dropped, "line");
        let text = format_args!("dropped {what} (--tidy), {dropped} so far");
        self.server_log.warn(&self.label, cx, text);
    }
}

/// Whether an id or a token is short enough to be kept.
fn is_kept(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES
}
