//! What the first line over a link tells of whoever is at its other end: it may be no proxy at all.

use super::report::{EndReason, Exit};
use super::{Context, Session};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::{Protocol, Recogniser, Verdict};

/// What is known of the peer by what it said first.
#[derive(Debug)]
pub(super) struct FirstLine {
    /// Until the protocol is known.
    recogniser: Option<Recogniser>,
    /// Whether it has come.
    has_come: bool,
}

impl FirstLine {
    pub(super) fn new() -> Self {
        Self {
            recogniser: Some(Recogniser::of_server()),
            has_come: false,
        }
    }

    /// Whether it has come.
    pub(super) fn has_come(&self) -> bool {
        self.has_come
    }

    /// Looks at what came. Returns the protocol, if it is another one.
    fn look(&mut self, bytes: &[u8]) -> Option<Protocol> {
        match self.recogniser.as_mut()?.look(bytes) {
            Verdict::Undecided => None,
            Verdict::Ours => {
                self.recogniser = None;
                None
            }
            Verdict::Other(protocol) => Some(protocol),
        }
    }
}

impl Session {
    /// Looks at what came over a link before it is handled. Returns whether it may be.
    ///
    /// A peer of another protocol is a mistake in the address, which no further attempt corrects, unless there was a proxy
    /// before: then something may be in its place for a while.
    pub(super) fn is_from_proxy(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> bool {
        let first_line = self.backend.first_line();
        let Some(protocol) = first_line.and_then(|first_line| first_line.look(bytes)) else {
            return true;
        };
        if self.backend.was_reached() {
            self.link_ended(Exit::OtherProtocol(protocol), cx);
        } else {
            self.end_now(&EndReason::PeerProtocol(protocol), cx);
        }
        false
    }

    /// Notes that a line has come. Returns whether it is the first one over a link.
    pub(super) fn note_line(&mut self) -> bool {
        let first_line = self.backend.first_line();
        first_line.is_some_and(|first_line| !std::mem::replace(&mut first_line.has_come, true))
    }

    /// Takes the refusal of a proxy that is full, which is all that it says. It is a failed attempt, and nothing for the
    /// program that started this one. Returns whether it was one.
    ///
    /// Ask this of the first line alone, or a server could end the link by saying the same.
    pub(super) fn take_refusal(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let Message::Single(envelope) = message else {
            return false;
        };
        let is_refusal = envelope.id.is_none()
            && envelope.method.is_none()
            && envelope.is_proxy_error_of(ErrorReason::SessionLimit);
        if is_refusal {
            self.link_ended(Exit::Full, cx);
        }
        is_refusal
    }
}
